//! Whole runs on recorded and on scripted devices.
//!
//! Failures that were seen in other tuners, and the tests that keep them out of this one; here unless a file is named:
//!
//! | failure | test |
//! |---|---|
//! | the samples that chose a winner backed its claim, and rounds of one sitting passed for independent ones | `error_rates.rs`: all four; `measure/noise.rs`: `a_label_that_lies_badly_in_one_sitting_is_no_evidence` |
//! | a slower kernel was named the winner | [`a_choice_that_fresh_samples_show_slower_gives_way_to_the_first_incumbent`] |
//! | a build failed and the previous candidate's file was scored again | [`a_failed_build_is_not_scored_with_the_code_of_another`] |
//! | a missing "correct" field counted as a pass | [`a_missing_correctness_is_no_pass`] |
//! | two kernels that wrote half the rows each into one buffer both looked right | `oracle/judge.rs`: `what_was_not_written_is_named`; `tests/hostile.rs`: `refused/even_tiles`, `refused/odd_tiles`, `halves_share_no_output` |
//! | an illegal configuration scored as the optimum | [`an_illegal_configuration_is_never_the_optimum`] |
//! | a measured time of 0 or NaN won | [`a_time_of_zero_or_nan_never_wins`] |
//! | a time limit did not stop the run | [`a_time_limit_stops_the_run_and_its_journal_remembers`], [`a_time_limit_ends_a_trial_that_is_under_way`]; `tests/hostile.rs`: `a_time_limit_ends_a_hanging_trial` |
//! | a shutdown hung: infinite device loop, deadlocked barrier | `tests/worker.rs`: `a_hang_is_ended`, `shutdown_does_not_wait_for_ever`; [`a_hang_is_refused_and_the_run_goes_on`]; `simt/tests/barrier.rs`: `a_warp_that_skips_a_barrier_is_a_deadlock`; `tests/hostile.rs`: `refused/spin`, `refused/deadlock`, `a_worker_ends_with_its_parent` |
//! | one bad candidate poisoned the context and every later one failed | [`one_bad_candidate_poisons_no_other`]; `tests/worker.rs`: `a_fault_gets_a_fresh_worker`; `tests/hostile.rs`: `refused/out_of_bounds`, `the_run_goes_on` |
//! | a cached winner was invalid for another shape of its bucket | `dispatch.rs`: `a_record_is_followed_where_it_holds` (records are of one problem, there are no buckets) |
//! | a cache hit survived an edit in a helper file | `builder/tests/build.rs`: `only_what_changed_is_built_and_unchanged_code_keeps_its_hash` |
//! | a record was used on another GPU | `dispatch.rs`: `a_record_that_does_not_hold_leaves_the_default_and_says_why`; [`a_journal_is_resumed_on_its_own_gpu_space_and_settings_only`] |
//! | causal work was counted double | [`causal_work_is_what_the_mask_lets_through`] |
//! | a value added to a gene invalidated all earlier trials | [`a_value_added_to_a_gene_keeps_earlier_measurements`] |
//! | a smaller population on resume lost the best program ever seen | [`shrinking_the_population_keeps_the_best`] |
//! | results could not be read after an upgrade | [`files_of_the_first_schema_are_read_or_refused_by_name_of_the_versions`], [`formats_without_a_version_or_of_another_are_refused`] |

use std::{
    cell::Cell,
    path::Path,
    rc::Rc,
    sync::OnceLock,
    time::{Duration, Instant},
};

use spec::{Family, Gene, Problem, Variant};

use super::{
    EvolveError,
    budget::Reason,
    claims::{FIRST, Finding},
    earlier::Earlier,
    engine::{Progress, Run, evolve},
    journal::Journal,
    outcome::Outcome,
    population::elites,
    settings::{Cases, Lab, Peer, Peers, Settings},
    source::{Compiled, Source},
    space::Space,
    strategy::Kind,
};
use crate::{
    cases::{Case, Distribution, Inputs},
    device::{Correctness, Description, Device, Failure, Samples, Subject, TimingPlan, replay::Replay},
    record::{
        fixture,
        sweep::{Entry, Row, Sweep},
    },
};

/// Opens the same device again and again.
pub(super) struct Bank<D: Device + Clone + 'static>(pub(super) D);

impl<D: Device + Clone + 'static> Lab for Bank<D> {
    fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
        Ok(Box::new(self.0.clone()))
    }

    fn peers(&mut self, _: &Problem) -> Peers {
        let flash = Peer { name: "flash".into(), hot_us: vec![30.0; 20], cold_us: vec![], recorded: None };
        let old = Peer { recorded: Some("1999 on a GPU".into()), name: "old".into(), ..flash.clone() };
        Peers { peers: vec![flash, old], notes: vec![] }
    }
}

pub(super) fn record() -> &'static Sweep {
    static RECORD: OnceLock<Sweep> = OnceLock::new();
    RECORD.get_or_init(|| fixture::sweep(400, 0.01, 1))
}

pub(super) fn space(sweep: &Sweep) -> Space {
    Space::listed(sweep.header.problem, sweep.header.device.limits, sweep.rows.iter().map(|(variant, _)| *variant))
}

pub(super) fn cases() -> Cases {
    let case = Case { name: "normal".into(), problem: Problem::SEED, inputs: Inputs::new(Distribution::Normal, 1) };
    Cases { gate: vec![case.clone()], suite: vec![case; 2] }
}

pub(super) fn run_on(
    device: impl Device + Clone + 'static,
    source: &mut dyn Source,
    space: &Space,
    settings: &Settings,
    journal: Option<(&Path, bool)>,
) -> Result<Outcome, EvolveError> {
    run_in(&mut Bank(device), source, space, settings, journal, None)
}

/// A run from a lab's devices on, which ends by itself at the deadline.
pub(super) fn run_in(
    lab: &mut dyn Lab,
    source: &mut dyn Source,
    space: &Space,
    settings: &Settings,
    journal: Option<(&Path, bool)>,
    deadline: Option<Instant>,
) -> Result<Outcome, EvolveError> {
    let mut ignore = |_: Progress<'_>| {};
    let run = Run {
        settings,
        space,
        source,
        lab,
        cases: &cases(),
        earlier: &Earlier::default(),
        deadline,
        progress: &mut ignore,
    };
    evolve(run, |header| match journal {
        Some((path, resume)) => Ok(Journal::open(path, header, resume)?),
        None => Ok(Journal::unkept()),
    })
}

fn replay(settings: &Settings) -> Outcome {
    let device = Replay::new(record());
    run_on(device.clone(), &mut device.clone(), &space(record()), settings, None).unwrap()
}

#[test]
fn forty_five_means_forty_five() {
    for strategy in [Kind::Random, Kind::Free, Kind::Insight, Kind::Full, Kind::Exhaustive] {
        let outcome = replay(&Settings { strategy, ..Settings::default() });
        assert_eq!(outcome.budget.spent, 45, "{strategy:?}");
        assert_eq!(outcome.trials.len(), 45);
        let mut identities: Vec<_> = outcome.trials.iter().map(|trial| &trial.identity.sha256).collect();
        identities.sort();
        identities.dedup();
        assert!(identities.len() > 40, "{strategy:?} measured the same code again");
        let refused: u32 = outcome.budget.free.values().sum();
        assert_eq!(refused as usize, outcome.refusals.len());
        let winner = outcome.trial(outcome.winner).unwrap();
        assert!(winner.suite && winner.us.is_finite());
        assert_eq!(outcome.claims.len(), if outcome.winner == outcome.incumbent { 2 } else { 3 });
        assert_eq!(outcome.claims.last().unwrap().finding, Finding::Context);
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let settings = Settings::default();
    let (a, b) = (replay(&settings), replay(&settings));
    assert_eq!(a, b);
    let c = replay(&Settings { seed: 1, ..settings });
    let variants = |outcome: &Outcome| outcome.trials.iter().map(|trial| trial.variant).collect::<Vec<_>>();
    assert_ne!(variants(&a), variants(&c));
}

#[test]
fn a_run_killed_anywhere_resumes_to_the_same_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let (device, space) = (Replay::new(record()), space(record()));
    let settings = Settings { trials: 12, ..Settings::default() };
    let run = |resume| run_on(device.clone(), &mut device.clone(), &space, &settings, Some((&path, resume))).unwrap();
    let whole = run(false);
    let journal = std::fs::read(&path).unwrap();
    for cut in (0..20).map(|i| journal.len() * i / 20 + i).chain([journal.len()]) {
        std::fs::write(&path, &journal[..cut]).unwrap();
        assert_eq!(run(true), whole, "cut at byte {cut}");
        assert_eq!(std::fs::read(&path).unwrap(), journal, "cut at byte {cut}");
    }
}

/// The error of resuming a finished run under other circumstances.
fn refusal(change: impl Fn(&mut Sweep, &mut Settings)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let mut settings = Settings { trials: 3, ..Settings::default() };
    let mut sweep = record().clone();
    for resume in [false, true] {
        let device = Replay::new(&sweep);
        let outcome = run_on(device.clone(), &mut device.clone(), &space(&sweep), &settings, Some((&path, resume)));
        if let Err(error) = outcome {
            return error.to_string().replace(&path.display().to_string(), "J");
        }
        change(&mut sweep, &mut settings);
    }
    "accepted".into()
}

#[test]
fn a_journal_is_resumed_on_its_own_gpu_space_and_settings_only() {
    assert_eq!(refusal(|_, _| ()), "accepted");
    let text = refusal(|sweep, _| sweep.header.device.name = "Other".into());
    assert_eq!(
        text,
        "J: the journal's device is name=\"Test GPU\", this run's is name=\"Other\"; it cannot be resumed"
    );
    let text = refusal(|sweep, _| drop(sweep.rows.pop()));
    assert!(text.starts_with("J: the journal's space is "), "{text}");
    let text = refusal(|sweep, _| sweep.header.toolchain = "newer".into());
    assert_eq!(text, "J: the journal's toolchain is test, this run's is newer; it cannot be resumed");
    let text = refusal(|_, settings| settings.population = 3);
    assert_eq!(text, "J: the journal's settings is population=5, this run's is population=3; it cannot be resumed");
}

/// What a scripted device does instead of replaying.
#[derive(Clone)]
struct Scripted {
    replay: Replay,
    check: fn(&Variant, Correctness) -> Result<Correctness, Failure>,
    time: fn(&Variant, Samples) -> Result<Samples, Failure>,
    /// Whether a fault makes every later answer a failure of the device, until it is opened again.
    poisoned: Option<bool>,
}

impl Scripted {
    fn new() -> Self {
        Self {
            replay: Replay::new(record()),
            check: |_, passed| Ok(passed),
            time: |_, as_it_was| Ok(as_it_was),
            poisoned: None,
        }
    }

    fn run(self) -> Outcome {
        let mut source = self.replay.clone();
        run_on(self, &mut source, &space(record()), &Settings { trials: 20, ..Settings::default() }, None).unwrap()
    }

    fn alive(&self) -> Result<(), Failure> {
        match self.poisoned {
            Some(true) => Err(Failure::Device("context is lost".into())),
            _ => Ok(()),
        }
    }

    fn remember<A>(&mut self, answer: Result<A, Failure>) -> Result<A, Failure> {
        if let (Some(poisoned), Err(Failure::Fault(_))) = (&mut self.poisoned, &answer) {
            *poisoned = true;
        }
        answer
    }
}

impl Device for Scripted {
    fn description(&self) -> &Description {
        self.replay.description()
    }

    fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
        self.alive()?;
        let answer = self.replay.check(subject, cases).and_then(|passed| (self.check)(&subject.variant, passed));
        self.remember(answer)
    }

    fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
        self.alive()?;
        let samples = self.replay.time(subjects, plan)?;
        let answer = subjects.iter().zip(samples).map(|(subject, of)| (self.time)(&subject.variant, of)).collect();
        self.remember(answer)
    }
}

/// A third of all variants: those that a script treats badly.
fn bad(variant: &Variant) -> bool {
    variant.get(Gene::ExpPoly) == Some(0) && variant.get(Gene::BlocksPerSm) != Some(1) && variant != first()
}

/// The variant that is tried first.
fn first() -> &'static Variant {
    static FIRST: OnceLock<Variant> = OnceLock::new();
    FIRST.get_or_init(|| space(record()).central(Family::Mma).unwrap())
}

/// No bad variant was measured, `count` of them were refused for this reason, and the run went on to its end.
fn assert_refused(outcome: &Outcome, reason: Reason) {
    assert_eq!(outcome.budget.spent, 20, "{:?}", outcome.notes);
    assert!(outcome.trials.iter().all(|trial| !bad(&trial.variant)));
    let of_reason = outcome.refusals.iter().filter(|refusal| refusal.reason == reason);
    let refused = of_reason.filter(|refusal| refusal.variant.is_some_and(|candidate| bad(&candidate.variant))).count();
    assert!(refused > 0, "no candidate was refused as {reason:?}: {:?}", outcome.budget.free);
}

#[test]
fn a_missing_correctness_is_no_pass() {
    let unchecked =
        |variant: &Variant, passed| Ok(if bad(variant) { Correctness { cases: 0, ..passed } } else { passed });
    assert_refused(&Scripted { check: unchecked, ..Scripted::new() }.run(), Reason::Wrong);
    let nan = |variant: &Variant, passed| {
        Ok(if bad(variant) { Correctness { max_abs_error: f64::NAN, ..passed } } else { passed })
    };
    assert_refused(&Scripted { check: nan, ..Scripted::new() }.run(), Reason::Wrong);
}

#[test]
fn a_time_of_zero_or_nan_never_wins() {
    let zero = |variant: &Variant, mut samples: Samples| {
        if bad(variant) {
            samples.hot_us.fill(0.0);
        }
        Ok(samples)
    };
    assert_refused(&Scripted { time: zero, ..Scripted::new() }.run(), Reason::Impossible);
    let nan = |variant: &Variant, mut samples: Samples| {
        if bad(variant) {
            samples.hot_us[3] = f64::NAN;
        }
        Ok(samples)
    };
    assert_refused(&Scripted { time: nan, ..Scripted::new() }.run(), Reason::Impossible);
}

#[test]
fn a_hang_is_refused_and_the_run_goes_on() {
    let hang =
        |variant: &Variant, samples| if bad(variant) { Err(Failure::Hang { seconds: 5.0 }) } else { Ok(samples) };
    assert_refused(&Scripted { time: hang, ..Scripted::new() }.run(), Reason::Hang);
}

#[test]
fn one_bad_candidate_poisons_no_other() {
    let fault = |variant: &Variant, passed| {
        if bad(variant) { Err(Failure::Fault("illegal address".into())) } else { Ok(passed) }
    };
    let outcome = Scripted { check: fault, poisoned: Some(false), ..Scripted::new() }.run();
    assert_refused(&outcome, Reason::Fault);
    assert_eq!(outcome.budget.free.get(&Reason::Device), None);
}

#[test]
fn a_device_that_stays_broken_ends_the_run_with_its_reason() {
    let broken = |_: &Variant, _| Err(Failure::Device("no GPU any more".into()));
    let device = Scripted { time: broken, ..Scripted::new() };
    let mut source = device.replay.clone();
    let error = run_on(device, &mut source, &space(record()), &Settings::default(), None).unwrap_err();
    assert_eq!(error.to_string(), "device failed: no GPU any more");
}

/// A source that fails for some variants, and says so.
struct Flaky(Replay);

impl Source for Flaky {
    fn toolchain(&self) -> String {
        self.0.toolchain()
    }

    fn compile(&mut self, variants: &[Variant]) -> Vec<Result<Compiled, Failure>> {
        let answers = variants.iter().zip(self.0.compile(variants));
        answers.map(|(v, answer)| if bad(v) { Err(Failure::Build("error".into())) } else { answer }).collect()
    }
}

#[test]
fn a_failed_build_is_not_scored_with_the_code_of_another() {
    // The device would time them all: what has no code must not reach it.
    let device = Scripted {
        time: |variant, samples| if bad(variant) { panic!("{variant} was timed without code") } else { Ok(samples) },
        ..Scripted::new()
    };
    let mut source = Flaky(device.replay.clone());
    let settings = Settings { trials: 20, ..Settings::default() };
    let outcome = run_on(device, &mut source, &space(record()), &settings, None).unwrap();
    assert_refused(&outcome, Reason::Build);
}

#[test]
fn an_illegal_configuration_is_never_the_optimum() {
    let space = space(record());
    let illegal = fixture::illegal();
    assert!(matches!(space.admit(&illegal), Err(Failure::Illegal(why)) if why.contains("rows per warp")));
}

#[test]
fn a_spilling_kernel_is_refused_by_the_compiler_gate() {
    let outcome = replay(&Settings { trials: 200, strategy: Kind::Random, ..Settings::default() });
    let gated: Vec<_> = outcome.refusals.iter().filter(|refusal| refusal.reason == Reason::Gate).collect();
    assert!(!gated.is_empty());
    assert!(gated.iter().all(|refusal| refusal.why.contains("spills 320 B")), "{gated:?}");
}

/// A record of the variants that differ from the first in these genes at most.
fn around_the_first(genes: &[Gene]) -> Sweep {
    let each = |variants: Vec<Variant>, gene: &Gene| -> Vec<Variant> {
        let domain = first().family().domains().iter().find(|domain| domain.gene == *gene).unwrap();
        let with = |variant: Variant| domain.values.iter().map(move |value| variant.with(*gene, *value).unwrap());
        variants.into_iter().flat_map(with).collect()
    };
    fixture::from_variants(&genes.iter().fold(vec![*first()], each), 0.01, 1)
}

#[test]
fn identical_code_shares_one_measurement() {
    let mut sweep = around_the_first(&[Gene::ExpPoly, Gene::CacheHint, Gene::BlockOrder, Gene::LazyRescale]);
    for (variant, row) in &mut sweep.rows {
        // As if it made no difference to the code when the output is rescaled.
        row.sha256 =
            row.sha256.as_ref().map(|_| variant.with(Gene::LazyRescale, 0).unwrap().kernel(&Problem::SEED).to_string());
    }
    let device = Replay::new(&sweep);
    let settings = Settings { trials: 20, ..Settings::default() };
    let outcome = run_on(device.clone(), &mut device.clone(), &space(&sweep), &settings, None).unwrap();
    let mut identities: Vec<_> = outcome.trials.iter().map(|trial| trial.identity.clone()).collect();
    identities.dedup();
    let distinct: std::collections::HashSet<_> = identities.iter().collect();
    assert_eq!(distinct.len(), outcome.trials.len());
    assert!(outcome.budget.free[&Reason::Shared] > 0);
}

#[test]
fn an_elite_that_fails_the_whole_suite_loses_its_place_and_its_trial() {
    // Many, and among the fastest.
    fn narrow(variant: &Variant) -> bool {
        variant.get(Gene::LazyRescale) == Some(1) && variant != first()
    }
    // The device tells the suite by its size.
    #[derive(Clone)]
    struct Narrow(Replay);
    impl Device for Narrow {
        fn description(&self) -> &Description {
            self.0.description()
        }
        fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
            if cases.len() > 1 && narrow(&subject.variant) {
                return Err(Failure::Wrong { case: "tails".into(), reason: "O[1] was not written".into() });
            }
            self.0.check(subject, cases)
        }
        fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
            self.0.time(subjects, plan)
        }
    }
    let device = Narrow(Replay::new(record()));
    let mut source = device.0.clone();
    let outcome = run_on(device, &mut source, &space(record()), &Settings::default(), None).unwrap();
    assert_eq!((outcome.budget.spent, outcome.trials.len()), (45, 45));
    let elites = outcome.elites.iter().map(|number| outcome.trial(*number).unwrap());
    assert!(elites.clone().all(|elite| elite.suite && !narrow(&elite.variant)));
    assert!(outcome.refusals.iter().any(|refusal| refusal.why.contains("wrong on tails")));
}

#[test]
fn a_choice_that_fresh_samples_show_slower_gives_way_to_the_first_incumbent() {
    static INCUMBENT: OnceLock<Variant> = OnceLock::new();
    INCUMBENT.get_or_init(|| replay(&Settings { trials: 1, ..Settings::default() }).trials[0].variant);
    // Only claims measure with a flushed L2.
    let slow_when_it_counts = |variant: &Variant, mut samples: Samples| {
        if !samples.cold_us.is_empty() && Some(variant) != INCUMBENT.get() {
            samples.hot_us.iter_mut().for_each(|us| *us *= 3.0);
        }
        Ok(samples)
    };
    let outcome = Scripted { time: slow_when_it_counts, ..Scripted::new() }.run();
    let overturned = outcome.overturned.as_ref().unwrap();
    assert_eq!(outcome.winner, outcome.incumbent);
    assert_ne!(overturned.number, outcome.incumbent);
    assert!(overturned.claim.finding == Finding::Slower && overturned.claim.ratio.low > 1.0);
    // The winner's claims are on samples of its own, and it is not compared with itself.
    assert!(!outcome.claims.is_empty() && outcome.claims.iter().all(|claim| claim.against != FIRST));
    let table = crate::report::terminal::table(&outcome, "report.html");
    for text in [table, crate::report::html::page(&outcome)] {
        assert!(text.contains("the first incumbent is the winner"), "{text}");
    }
}

#[test]
fn a_time_limit_stops_the_run_and_its_journal_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let (device, space, settings) = (Replay::new(record()), space(record()), Settings::default());
    let run = |resume: bool, deadline: Option<Instant>| {
        let mut lab = Bank(device.clone());
        run_in(&mut lab, &mut device.clone(), &space, &settings, Some((&path, resume)), deadline).unwrap()
    };
    let stopped = run(false, Some(Instant::now()));
    assert_eq!(stopped.budget.spent, 1);
    assert_eq!(stopped.notes, ["stopped after 1 trials: the time was up"]);
    assert_eq!(run(true, None), stopped);
}

/// A device on which some variants never end; it gives up only at its deadline.
#[derive(Clone)]
struct Patient {
    replay: Replay,
    deadline: Option<Instant>,
}

impl Device for Patient {
    fn description(&self) -> &Description {
        self.replay.description()
    }

    fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
        if bad(&subject.variant) {
            let deadline = self.deadline.expect("a limited run");
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
            return Err(Failure::Hang { seconds: 1.0 });
        }
        self.replay.check(subject, cases)
    }

    fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
        self.replay.time(subjects, plan)
    }

    fn answer_by(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }
}

#[test]
fn a_time_limit_ends_a_trial_that_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let (replay, space, settings) = (Replay::new(record()), space(record()), Settings::default());
    let run = |resume: bool, deadline: Option<Instant>| {
        let mut lab = Bank(Patient { replay: replay.clone(), deadline: None });
        run_in(&mut lab, &mut replay.clone(), &space, &settings, Some((&path, resume)), deadline).unwrap()
    };
    let stopped = run(false, Some(Instant::now() + Duration::from_secs(2)));
    assert_eq!(stopped.notes, [format!("stopped after {} trials: the time was up", stopped.trials.len())]);
    assert!(stopped.trials.len() < 45 && !stopped.budget.free.contains_key(&Reason::Hang), "{:?}", stopped.budget);
    assert_eq!(run(true, None), stopped, "a resumed run ends where the other did");
}

#[test]
fn the_code_of_a_refused_candidate_is_not_run_again() {
    // Two codes under many names; one of them faults.
    fn faulty(variant: &Variant) -> bool {
        variant.get(Gene::ExpPoly) == Some(0)
    }
    let mut sweep = around_the_first(&[Gene::ExpPoly, Gene::CacheHint, Gene::LazyRescale]);
    for (variant, row) in &mut sweep.rows {
        row.sha256 = row.sha256.as_ref().map(|_| faulty(variant).to_string());
    }
    #[derive(Clone)]
    struct Counting {
        replay: Replay,
        faults: Rc<Cell<u32>>,
    }
    impl Device for Counting {
        fn description(&self) -> &Description {
            self.replay.description()
        }
        fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
            if faulty(&subject.variant) {
                self.faults.set(self.faults.get() + 1);
                return Err(Failure::Fault("illegal address".into()));
            }
            self.replay.check(subject, cases)
        }
        fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
            self.replay.time(subjects, plan)
        }
    }
    let (replay, faults) = (Replay::new(&sweep), Rc::new(Cell::new(0)));
    let device = Counting { replay: replay.clone(), faults: Rc::clone(&faults) };
    let settings = Settings { trials: 40, strategy: Kind::Random, ..Settings::default() };
    let outcome = run_on(device, &mut replay.clone(), &space(&sweep), &settings, None).unwrap();
    let refused: Vec<_> = outcome.refusals.iter().filter(|refusal| refusal.reason == Reason::Fault).collect();
    let again = refused.iter().filter(|refusal| refusal.why.ends_with("which was refused: faulted: illegal address"));
    assert_eq!(faults.get(), 1);
    assert!(again.count() + 1 == refused.len() && refused.len() > 2, "{refused:?}");
}

#[test]
fn shrinking_the_population_keeps_the_best() {
    let outcome = replay(&Settings::default());
    let large = elites(&outcome.trials, 5);
    assert_eq!(elites(&outcome.trials, 1), large[..1]);
    let best = outcome.trials.iter().map(|trial| trial.us).fold(f64::INFINITY, f64::min);
    assert_eq!(outcome.trials[large[0]].us, best);
}

#[test]
fn a_value_added_to_a_gene_keeps_earlier_measurements() {
    // The record was made when no kernel had four stages; it still serves.
    let old: Vec<Variant> =
        record().rows.iter().map(|(v, _)| *v).filter(|variant| variant.get(Gene::Stages) != Some(4)).collect();
    let sweep = fixture::from_variants(&old, 0.01, 1);
    let device = Replay::new(&sweep);
    let settings = Settings { trials: 10, ..Settings::default() };
    let outcome = run_on(device.clone(), &mut device.clone(), &space(&sweep), &settings, None).unwrap();
    assert_eq!(outcome.budget.spent, 10);
    // A row of a variant that this program does not know (any more) is counted, not fatal.
    let mut lines = vec![serde_json::to_string(&Entry::Header(sweep.header.clone())).unwrap()];
    for (i, (_, row)) in sweep.rows.iter().enumerate() {
        let variant = if i == 0 { "mma:tile_q=48".into() } else { row.variant.clone() };
        lines.push(serde_json::to_string(&Entry::Row(Row { variant, ..row.clone() })).unwrap());
    }
    let read = Sweep::from_entries(Path::new("R"), &lines).unwrap();
    assert_eq!((read.unknown, read.rows.len()), (1, sweep.rows.len() - 1));
}

#[test]
fn causal_work_is_what_the_mask_lets_through() {
    let causal: Problem = "b1-h8-s512-d64-f16-causal".parse().unwrap();
    // Each of 512 queries sees the keys up to itself; two products of 2 x 64 operations per score.
    assert_eq!(causal.flops(), 8 * (512 * 513 / 2) * 2 * 2 * 64);
    assert_eq!(Problem::SEED.flops(), 8 * 512 * 512 * 2 * 2 * 64);
}

#[test]
fn formats_without_a_version_or_of_another_are_refused() {
    let error = Sweep::from_entries(Path::new("R"), &["{\"header\":{}}".into()]).unwrap_err();
    assert_eq!(error.to_string(), "R: line 1: the schema is null; this program reads sweep records of schema 1 to 2");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let (mut log, _) = crate::record::log::Log::open(&path).unwrap();
    log.append("{\"schema\":99}").unwrap();
    drop(log);
    let device = Replay::new(record());
    let error =
        run_on(device.clone(), &mut device.clone(), &space(record()), &Settings::default(), Some((&path, true)));
    let text = error.unwrap_err().to_string();
    assert!(text.ends_with("journal of schema 99; this program reads schema 2"), "{text}");
}

#[test]
fn files_of_the_first_schema_are_read_or_refused_by_name_of_the_versions() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    // Schema 2 of sweeps only adds to schema 1.
    let sweep = Sweep::read(&fixtures.join("sweep-schema-1.jsonl.zst")).unwrap();
    assert_eq!((sweep.header.schema, sweep.noise.len(), sweep.rows.len(), sweep.again.len()), (1, 1, 3, 0));
    assert_eq!(sweep.times().len(), 3);
    // Schema 1 of journals answers questions that are put otherwise now: a run cannot go on from it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let journal = std::fs::read(fixtures.join("journal-schema-1.jsonl")).unwrap();
    std::fs::write(&path, &journal).unwrap();
    let device = Replay::new(record());
    let error =
        run_on(device.clone(), &mut device.clone(), &space(record()), &Settings::default(), Some((&path, true)));
    let text = error.unwrap_err().to_string();
    assert!(text.ends_with("journal of schema 1; this program reads schema 2"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), journal, "a refused journal is left as it was");
}

#[test]
fn reports_say_what_won_by_how_much_and_against_what() {
    let outcome = replay(&Settings::default());
    let winner = outcome.trial(outcome.winner).unwrap().variant.to_string();
    let table = crate::report::terminal::table(&outcome, "report.html");
    let page = crate::report::html::page(&outcome);
    for text in [&table, &page] {
        for needed in
            [winner.as_str(), "first incumbent", "flash", "recorded 1999", "replayed from a record of Test GPU"]
        {
            assert!(text.contains(needed), "{needed} is missing in {text}");
        }
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(!page.contains("NaN") && !page.contains("http"), "the page is complete in itself");
}

#[test]
fn elites_are_held_against_the_peaks_of_a_gpu_that_is_known() {
    let mut outcome = replay(&Settings::default());
    let (of_matrix, of_memory) = ("% of the matrix peak", "% of memory bandwidth, memory bounds it");
    let shown = |outcome: &Outcome| {
        let page = crate::report::html::page(outcome);
        [of_matrix, of_memory, "Peaks are the GPU's"].map(|text| page.matches(text).count())
    };
    assert_eq!(shown(&outcome), [0; 3], "nobody knows the peaks of a Test GPU");
    outcome.run.device.name = "NVIDIA H100 80GB HBM3".into();
    assert_eq!(shown(&outcome), [outcome.elites.len(), outcome.elites.len(), 1]);
    // 2^29 operations and 2^21 bytes in 10 us, of 989.4 TFLOP/s and 3.35 TB/s.
    let (fastest, problem) = (outcome.elites[0], outcome.run.problem);
    outcome.elites.truncate(1);
    outcome.trials.iter_mut().filter(|trial| trial.number == fastest).for_each(|trial| trial.us = 10.0);
    assert_eq!((problem.flops(), problem.bytes()), (1 << 29, 1 << 21));
    let page = crate::report::html::page(&outcome);
    assert!(
        page.contains("53.7 TFLOP/s: 5.4 % of the matrix peak, 6.3 % of memory bandwidth, memory bounds it"),
        "{page}"
    );
}

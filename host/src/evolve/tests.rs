//! Whole runs on recorded and on scripted devices.

use std::{path::Path, sync::OnceLock};

use spec::Problem;

use super::{
    EvolveError,
    claims::Finding,
    engine::{Progress, Run, evolve},
    journal::Journal,
    outcome::Outcome,
    settings::{Baseline, Cases, Lab, Settings},
    source::Source,
    space::Space,
    strategy::Kind,
};
use crate::{
    cases::{Case, Distribution, Inputs},
    device::{Device, Failure, replay::Replay},
    record::{fixture, sweep::Sweep},
};

/// Opens the same device again and again.
struct Bank<D: Device + Clone + 'static>(D);

impl<D: Device + Clone + 'static> Lab for Bank<D> {
    fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
        Ok(Box::new(self.0.clone()))
    }

    fn baselines(&mut self, _: &Problem) -> Result<Vec<Baseline>, String> {
        let flash = Baseline { name: "flash".into(), hot_us: vec![30.0; 20], cold_us: vec![], recorded: None };
        let old = Baseline { recorded: Some("1999 on a GPU".into()), name: "old".into(), ..flash.clone() };
        Ok(vec![flash, old])
    }
}

fn record() -> &'static Sweep {
    static RECORD: OnceLock<Sweep> = OnceLock::new();
    RECORD.get_or_init(|| fixture::sweep(400, 0.01, 1))
}

fn space(sweep: &Sweep) -> Space {
    Space::listed(sweep.header.problem, sweep.header.device.limits, sweep.rows.iter().map(|(variant, _)| *variant))
}

fn cases() -> Cases {
    let case = Case {
        name: "normal".into(),
        problem: Problem::SEED,
        inputs: Inputs { distribution: Distribution::Normal, seed: 1 },
    };
    Cases { gate: vec![case.clone()], suite: vec![case] }
}

fn run_on(
    device: impl Device + Clone + 'static,
    source: &mut dyn Source,
    space: &Space,
    settings: &Settings,
    journal: Option<(&Path, bool)>,
) -> Result<Outcome, EvolveError> {
    let mut ignore = |_: Progress<'_>| {};
    let run =
        Run { settings, space, source, lab: &mut Bank(device), cases: &cases(), deadline: None, progress: &mut ignore };
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
        eprintln!("{strategy:?}: {} us, claims {:?}", winner.us, outcome.claims[0].ratio);
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
    assert_eq!(text, "J: the journal's device is name=\"Test GPU\", this run's is name=\"Other\"; it cannot be resumed");
    let text = refusal(|sweep, _| drop(sweep.rows.pop()));
    assert!(text.starts_with("J: the journal's space is "), "{text}");
    let text = refusal(|sweep, _| sweep.header.toolchain = "newer".into());
    assert_eq!(text, "J: the journal's toolchain is test, this run's is newer; it cannot be resumed");
    let text = refusal(|_, settings| settings.population = 3);
    assert_eq!(text, "J: the journal's settings is population=5, this run's is population=3; it cannot be resumed");
}

//! What a program outside is asked and what it may answer: one line of JSON each, described in `docs/proposer.md`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spec::{Family, Variant};

use super::{
    budget::Reason,
    candidate::{Candidate, Edit},
    insight::Effect,
    strategy::Context,
    trial::{Operator, Proposal},
};
use crate::{child, device::Description, measure::statistics::Interval};

/// Version of the protocol.
pub const SCHEMA: u32 = 1;

/// Refusals that a request tells of: the last ones.
const REFUSALS: usize = 20;

/// What a program is asked. One line.
#[derive(Debug, Serialize)]
pub struct Request<'a> {
    schema: u32,
    /// How many candidates are wanted.
    count: usize,
    generation: u32,
    task: Task<'a>,
    elites: Vec<Elite>,
    refusals: Vec<Refused<'a>>,
    insights: Insights<'a>,
    space: Space,
}

#[derive(Debug, Serialize)]
struct Task<'a> {
    problem: String,
    goal: &'static str,
    device: &'a Description,
}

#[derive(Debug, Serialize)]
struct Elite {
    number: usize,
    variant: Candidate,
    us: f64,
    /// Of its time to that of the elite it was first timed against.
    ratio: Interval,
    registers: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Refused<'a> {
    variant: Option<Candidate>,
    reason: Reason,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct Insights<'a> {
    effects: Vec<Effect>,
    rules: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct Space {
    members: usize,
    families: Vec<FamilySpace>,
}

#[derive(Debug, Serialize)]
struct FamilySpace {
    family: Family,
    members: usize,
    genes: Vec<GeneSpace>,
    /// Where the kernel is, for whoever wants to rewrite it.
    source: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct GeneSpace {
    gene: &'static str,
    values: &'static [u16],
}

impl<'a> Request<'a> {
    pub(super) fn new(context: &Context<'a>, count: usize) -> Self {
        let project = builder::Project::find().ok().filter(builder::Project::has_sources);
        let elite = |(number, _): &(usize, Variant)| {
            let trial = context.trials.iter().find(|trial| trial.number == *number)?;
            let registers = trial.facts.as_ref().map(|facts| facts.registers);
            Some(Elite { number: *number, variant: trial.candidate(), us: trial.us, ratio: trial.ratio, registers })
        };
        let refusals = &context.refusals[context.refusals.len().saturating_sub(REFUSALS)..];
        let own: Vec<_> = context.trials.iter().filter(|trial| trial.candidate().edit.is_none()).cloned().collect();
        let members = context.space.members();
        let family = |family: Family| FamilySpace {
            family,
            members: members.iter().filter(|variant| variant.family() == family).count(),
            genes: family
                .domains()
                .iter()
                .map(|domain| GeneSpace { gene: domain.gene.name(), values: domain.values })
                .collect(),
            source: project.as_ref().map(|project| project.family_source(family)),
        };
        Self {
            schema: SCHEMA,
            count,
            generation: context.generation,
            task: Task {
                problem: context.space.problem().to_string(),
                goal: "the shortest time of a kernel whose outputs are within the error budget",
                device: context.device,
            },
            elites: context.elites.iter().filter_map(elite).collect(),
            refusals: refusals
                .iter()
                .map(|refusal| Refused { variant: refusal.variant, reason: refusal.reason, why: &refusal.why })
                .collect(),
            insights: Insights {
                effects: context.insights.effects(&own),
                rules: context.insights.rules.iter().map(|rule| rule.text.as_str()).collect(),
            },
            space: Space {
                members: members.len(),
                families: context.space.families().into_iter().map(family).collect(),
            },
        }
    }
}

/// What a program answers. One line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    candidates: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// Family and genes.
    variant: String,
    /// The whole text of the family's source file, if it was rewritten.
    source: Option<String>,
    /// Numbers of the trials it was made from.
    #[serde(default)]
    parents: Vec<usize>,
}

/// What came of asking: this goes into the journal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Candidates; whether they are legal, new, or compile is not known yet.
    pub proposals: Vec<Proposal>,
    /// The text of the rewritten sources among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<Edit, String>,
    /// What was no candidate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declined: Vec<Declined>,
}

/// What was no candidate, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// For counting.
    pub reason: Reason,
    /// In words; one line.
    pub why: String,
}

impl Declined {
    pub(super) fn proposer(why: String) -> Self {
        Self { reason: Reason::Proposer, why: format!("the proposer {why}") }
    }
}

impl Reply {
    /// A reply that says only what went wrong.
    pub(super) fn failed(why: String) -> Self {
        Self { declined: vec![Declined::proposer(why)], ..Self::default() }
    }

    /// Reads a line of a program that was asked for `count` candidates; `Err` if the line is no answer. What is no candidate
    /// is declined one by one.
    pub(super) fn read(line: &str, context: &Context<'_>, count: usize) -> Result<Self, String> {
        let answer: Answer = serde_json::from_str(line).map_err(|error| child::garbage(line, &error))?;
        let mut reply = Self::default();
        let more = answer.candidates.len().saturating_sub(count);
        for value in answer.candidates.into_iter().take(count) {
            match candidate(value, context) {
                Ok((proposal, None)) => reply.proposals.push(proposal),
                Ok((Proposal { variant, parents, .. }, Some(text))) => {
                    let edit = Edit::of(variant.family(), &text);
                    reply.sources.insert(edit, text);
                    reply.proposals.push(Proposal { variant, operator: Operator::Edited(edit), parents });
                }
                Err(declined) => reply.declined.push(declined),
            }
        }
        if more > 0 {
            reply.declined.push(Declined::proposer(format!("named {more} candidates more than the {count} asked for")));
        }
        Ok(reply)
    }
}

fn candidate(value: Value, context: &Context<'_>) -> Result<(Proposal, Option<String>), Declined> {
    let Named { variant, source, parents } =
        serde_json::from_value(value).map_err(|error| Declined::proposer(format!("named no candidate: {error}")))?;
    let known = |number: &usize| context.trials.iter().any(|trial| trial.number == *number);
    if let Some(stranger) = parents.iter().find(|number| !known(number)) {
        return Err(Declined::proposer(format!("named trial {stranger} as a parent, but there is none")));
    }
    let variant = variant.parse().map_err(|error| Declined {
        reason: Reason::Illegal,
        why: format!("the proposer's `{}` is no variant: {error}", variant.chars().take(200).collect::<String>()),
    })?;
    Ok((Proposal { variant, operator: Operator::External, parents }, source))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::Path,
        thread,
        time::{Duration, Instant},
    };

    use spec::{DeviceLimits, Problem};

    use super::*;
    use crate::{
        cases::Case,
        device::{Code, Correctness, Device, Failure, Samples, Subject, TimingPlan, replay::Replay},
        evolve::{
            outcome::Outcome,
            settings::{Lab, Peers, Proposer, Settings},
            source::{Compiled, Rewrite, Source},
            tests::{Bank, record, run_in, run_on, space},
        },
        record::fixture,
    };

    /// Seconds that suffice on the busiest machine.
    const PATIENCE: u64 = 120;

    fn settings(command: &str, seconds: u64) -> Settings {
        let proposer = Some(Proposer { command: command.to_owned(), seconds });
        Settings { proposer, trials: 12, ..Settings::default() }
    }

    fn run(command: &str, journal: Option<(&Path, bool)>) -> Outcome {
        run_with(&settings(command, PATIENCE), journal)
    }

    fn run_with(settings: &Settings, journal: Option<(&Path, bool)>) -> Outcome {
        let device = Replay::new(record());
        run_on(device.clone(), &mut device.clone(), &space(record()), settings, journal).unwrap()
    }

    /// A program that answers every line with this one.
    fn always(answer: &str) -> String {
        format!("while read -r line; do echo '{answer}'; done")
    }

    fn count(outcome: &Outcome, operator: Operator) -> usize {
        outcome.trials.iter().filter(|trial| trial.operator == operator).count()
    }

    #[test]
    fn the_example_names_neighbours_of_the_elites() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/proposers/neighbours.py");
        // The middle of a family and all that differs from it in one gene or two.
        let central = fixture::wide().central(Family::Mma).unwrap();
        let changed = |variant: Variant| {
            let one = move |domain: &'static spec::Domain| {
                domain.values.iter().filter_map(move |value| variant.with(domain.gene, *value))
            };
            Family::Mma.domains().iter().flat_map(one)
        };
        let near: BTreeSet<Variant> = changed(central).flat_map(changed).collect();
        let fits = |variant: &Variant| spec::legal(&Problem::SEED, variant, &DeviceLimits::H100).is_ok();
        let sweep = fixture::from_variants(&near.into_iter().filter(fits).collect::<Vec<_>>(), 0.01, 1);
        let device = Replay::new(&sweep);
        let settings = Settings { trials: 30, ..settings(&format!("python3 {example}"), PATIENCE) };
        let outcome = run_on(device.clone(), &mut device.clone(), &space(&sweep), &settings, None).unwrap();
        let named: Vec<_> = outcome.trials.iter().filter(|trial| trial.operator == Operator::External).collect();
        assert!(!named.is_empty(), "{:?}", outcome.refusals);
        for trial in named {
            let [parent] = trial.parents[..] else { panic!("{:?}", trial.parents) };
            let parent = outcome.trial(parent).unwrap().variant;
            let changed = trial.variant.genes().filter(|(gene, value)| parent.get(*gene) != Some(*value)).count();
            assert_eq!(changed, 1, "{} of {parent}", trial.variant);
        }
    }

    #[test]
    fn a_proposer_that_misbehaves_is_counted_and_the_run_goes_on() {
        let alone = Settings { proposer: None, ..settings("", PATIENCE) };
        let own = run_with(&alone, None).trials.len();
        for (command, reason, why) in [
            ("false", Reason::Proposer, "the proposer ended with exit status: 1"),
            ("echo no key >&2; exit 3", Reason::Proposer, "the proposer ended with exit status: 3: no key"),
            ("/no/such/program", Reason::Proposer, "the proposer ended with exit status: 127: "),
            (&always("tile_q should be 64"), Reason::Proposer, "the proposer no answer but \"tile_q should be 64\""),
            (&always("{}"), Reason::Proposer, "the proposer no answer but \"{}\" (missing field `candidates`"),
            (
                &always("{\"candidates\": [{\"genes\": 1}]}"),
                Reason::Proposer,
                "the proposer named no candidate: unknown field `genes`",
            ),
            (
                &always("{\"candidates\": [{\"variant\": \"mma:tile_q=17\"}]}"),
                Reason::Illegal,
                "the proposer's `mma:tile_q=17` is no variant: ",
            ),
            (
                &always(&format!(
                    "{{\"candidates\": [{{\"variant\": \"{}\", \"parents\": [99]}}]}}",
                    fixture::illegal()
                )),
                Reason::Proposer,
                "the proposer named trial 99 as a parent, but there is none",
            ),
            (
                &always(&format!("{{\"candidates\": [{{\"variant\": \"{}\"}}]}}", fixture::illegal())),
                Reason::Illegal,
                "illegal: ",
            ),
        ] {
            let outcome = run(command, None);
            assert_eq!((outcome.budget.spent, outcome.trials.len()), (12, own), "{command}");
            let refusal = outcome.refusals.iter().find(|refusal| refusal.why.starts_with(why));
            let refusal = refusal.unwrap_or_else(|| panic!("{command}: {:?}", outcome.refusals));
            assert_eq!((refusal.reason, refusal.why.lines().count()), (reason, 1), "{command}");
            assert!(outcome.budget.free[&reason] > 0, "{command}");
            assert_eq!(count(&outcome, Operator::External), 0);
        }
    }

    /// A line that starts a program, writes its number down, and waits for it.
    fn silent(number: &Path) -> String {
        format!("sleep 600 & echo $! > '{}'; wait", number.display())
    }

    /// Whether a process that [`silent`] started is still there; the system may take a moment to end it.
    fn is_left(number: &Path) -> bool {
        let process = Path::new("/proc").join(fs::read_to_string(number).unwrap().trim()).join("cmdline");
        let sleeps = || fs::read(&process).is_ok_and(|line| line.starts_with(b"sleep"));
        (0..100).all(|_| {
            thread::sleep(Duration::from_millis(50));
            sleeps()
        })
    }

    #[test]
    fn a_silent_proposer_is_given_up_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let number = folder.path().join("number");
        let outcome = run_with(&settings(&silent(&number), 1), None);
        assert_eq!(outcome.budget.spent, 12);
        let late = outcome.refusals.iter().filter(|refusal| refusal.why == "the proposer gave no answer within 1 s");
        assert_eq!(late.count(), outcome.budget.free[&Reason::Proposer] as usize);
        assert!(!is_left(&number));
    }

    #[test]
    fn a_time_limit_does_not_wait_for_a_proposer() {
        let folder = tempfile::tempdir().unwrap();
        let [number, journal] = ["number", "journal"].map(|name| folder.path().join(name));
        let settings = settings(&silent(&number), PATIENCE);
        let device = Replay::new(record());
        let run = |deadline: Option<Instant>, resume: bool| {
            let mut lab = Bank(device.clone());
            let journal = Some((journal.as_path(), resume));
            run_in(&mut lab, &mut device.clone(), &space(record()), &settings, journal, deadline).unwrap()
        };
        let begun = Instant::now();
        let outcome = run(Some(begun + Duration::from_secs(2)), false);
        assert!(begun.elapsed() < Duration::from_secs(PATIENCE / 2));
        assert_eq!(
            (&outcome.notes[..], outcome.refusals.len()),
            (&["stopped after 1 trials: the time was up".to_owned()][..], 0)
        );
        assert_eq!(run(None, true), outcome, "a resumed run asks no more than the run that it resumes");
    }

    #[test]
    fn more_than_asked_for_is_not_taken() {
        let (variant, _) = record().rows[3];
        let named = format!("{{\"variant\": \"{variant}\"}}");
        let many = format!("{{\"candidates\": [{}]}}", vec![named; 7].join(","));
        let outcome = run(&always(&many), None);
        assert!(count(&outcome, Operator::External) <= 1);
        let why = "the proposer named 3 candidates more than the 4 asked for";
        assert!(outcome.refusals.iter().any(|refusal| refusal.why == why), "{:?}", outcome.refusals);
        assert!(outcome.budget.free[&Reason::Duplicate] > 0);
    }

    #[test]
    fn a_resumed_run_asks_nothing_again() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, asked) = (folder.path().join("journal"), folder.path().join("asked"));
        let (variant, _) = record().rows[3];
        let answer = format!("{{\"candidates\": [{{\"variant\": \"{variant}\"}}]}}");
        let command = format!("while read -r line; do echo x >> '{}'; echo '{answer}'; done", asked.display());
        let whole = run(&command, Some((&journal, false)));
        let questions = fs::read(&asked).unwrap();
        assert!(!questions.is_empty());
        assert_eq!(run(&command, Some((&journal, true))), whole);
        assert_eq!(fs::read(&asked).unwrap(), questions);
    }

    #[test]
    fn a_rewritten_source_is_refused_where_nothing_is_compiled() {
        let (variant, _) = record().rows[3];
        let answer = format!("{{\"candidates\": [{{\"variant\": \"{variant}\", \"source\": \"fn f() {{}}\"}}]}}");
        let outcome = run(&always(&answer), None);
        let why = "not built: nothing is compiled here, so no rewritten source can be";
        let refusal = outcome.refusals.iter().find(|refusal| refusal.why == why).unwrap();
        let edit = Edit::of(variant.family(), "fn f() {}");
        assert_eq!(refusal.variant, Some(Candidate { variant, edit: Some(edit) }));
    }

    /// A lab of a record with a CPU machine, real or not, beside it; and a source that compiles whatever was rewritten.
    #[derive(Clone)]
    struct Both {
        record: Replay,
        cpu: Result<Correctness, Failure>,
    }

    impl Lab for Both {
        fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
            Ok(Box::new(self.record.clone()))
        }

        fn peers(&mut self, _: &Problem) -> Peers {
            Peers::default()
        }

        fn cpu_machine(&mut self) -> Result<Box<dyn Device>, Failure> {
            Ok(Box::new(self.clone()))
        }
    }

    impl Device for Both {
        fn description(&self) -> &Description {
            self.record.description()
        }

        fn check(&mut self, subject: &Subject, _: &[Case]) -> Result<Correctness, Failure> {
            assert_eq!(subject.code, Code::Library { path: "rewritten.so".into() });
            self.cpu.clone()
        }

        fn time(&mut self, _: &[Subject], _: &TimingPlan) -> Result<Vec<Samples>, Failure> {
            panic!("the CPU machine times nothing here");
        }
    }

    impl Source for Both {
        fn toolchain(&self) -> String {
            self.record.toolchain()
        }

        fn compile(&mut self, variants: &[Variant]) -> Vec<Result<Compiled, Failure>> {
            self.record.compile(variants)
        }

        fn compile_rewritten(&mut self, rewrite: Rewrite<'_>, variants: &[Variant]) -> Vec<Result<Compiled, Failure>> {
            let renamed =
                |answer: Result<Compiled, Failure>| answer.map(|of| Compiled { sha256: rewrite.text.into(), ..of });
            self.record.compile(variants).into_iter().map(renamed).collect()
        }

        fn rehearsal(&mut self, _: Rewrite<'_>, _: &Variant) -> Result<Code, Failure> {
            Ok(Code::Library { path: "rewritten.so".into() })
        }
    }

    #[test]
    fn a_rewritten_source_runs_on_the_cpu_machine_before_it_runs_elsewhere() {
        let measured = |(_, row): &&(Variant, crate::record::sweep::Row)| row.result.is_ok();
        let (variant, _) = record().rows.iter().rev().filter(measured).nth(5).unwrap();
        let answer = format!("{{\"candidates\": [{{\"variant\": \"{variant}\", \"source\": \"new\"}}]}}");
        let outcome = |cpu: Result<Correctness, Failure>| {
            let both = Both { record: Replay::new(record()), cpu };
            let settings = settings(&always(&answer), PATIENCE);
            run_in(&mut both.clone(), &mut both.clone(), &space(record()), &settings, None, None).unwrap()
        };
        let edited = |outcome: &Outcome| {
            outcome.trials.iter().filter(|trial| trial.candidate().edit.is_some()).map(|trial| trial.variant).next()
        };
        let right = outcome(Ok(Correctness { cases: 1, max_abs_error: 0.0, budget_used: 0.0 }));
        assert_eq!(edited(&right), Some(*variant), "{:?}", right.refusals);
        let wrong = outcome(Err(Failure::Wrong { case: "gate".into(), reason: "zeros".into() }));
        assert_eq!(edited(&wrong), None);
        assert!(wrong.refusals.iter().any(|refusal| refusal.why == "wrong on gate: zeros"));
    }
}

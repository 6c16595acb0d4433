//! What earlier sweeps and runs found, of any problem: it seeds what a run believes before it has measured much itself.
//!
//! Only ratios are learnt, each lesson's times against their average: another problem takes another time, but what makes a
//! variant faster than others often does so there, too. How far that goes is fitted to the run's own times as they come, see
//! [`Surrogate::fit`]. Nothing learnt here ever backs a claim.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spec::{Problem, Variant};

use super::{
    budget::Reason,
    candidate::Candidate,
    insight::{Rule, refused_values},
    journal,
    source::gate,
    surrogate::{Surrogate, eased},
    trial::Verdict,
};
use crate::record::{
    file::FileError,
    log::{self, LogError},
    sweep::{RecordError, Sweep},
};

/// Relative noise of one recorded time, and what the model cannot say of it.
const NOISE: f64 = 0.01;
/// Times that are learnt from at most; of more, every so-and-so-many-th in the order of variants.
const MOST: usize = 1000;
/// First bytes of a file that zstd compressed: records of sweeps are, journals are not.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// One file that was learnt from: a journal's header names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lesson {
    /// The file's name.
    pub file: String,
    /// Hash of what is in it.
    pub sha256: String,
    /// What was measured.
    pub problem: Problem,
    /// Name of the GPU it was measured on.
    pub gpu: String,
    /// Variants with a time.
    pub times: usize,
}

/// All that is known from before.
#[derive(Clone, Debug, Default)]
pub struct Earlier {
    lessons: Vec<Lesson>,
    models: Option<Models>,
    rules: Vec<Rule>,
}

/// Models of ratios.
#[derive(Clone, Debug)]
pub(super) struct Models {
    /// Of times.
    pub(super) plain: Arc<Surrogate>,
    /// Of times as a search sees them.
    pub(super) eased: Arc<Surrogate>,
}

/// Why a file cannot be learnt from. One line each.
#[derive(Debug, thiserror::Error)]
pub enum EarlierError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It is no record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It is a log of something else.
    #[error("{path}: it is neither a record of a sweep nor the journal of a run: {reason}")]
    Stranger {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// There is nothing in it.
    #[error("{0}: it holds no time of a variant that this program knows")]
    Nothing(String),
    /// What is in it would count twice.
    #[error("{0}: it is named twice")]
    Twice(String),
}

/// What a file says.
struct Told {
    problem: Problem,
    gpu: String,
    /// Variants and their microseconds.
    times: Vec<(Variant, f64)>,
    failures: Vec<(Variant, Reason)>,
}

impl Earlier {
    /// Learns from records of sweeps and journals of runs, for a run on `problem`.
    pub fn read(paths: &[PathBuf], problem: &Problem) -> Result<Self, EarlierError> {
        let mut lessons: Vec<Lesson> = Vec::new();
        let (mut plain, mut ease, mut measured, mut failures) = (vec![], vec![], vec![], vec![]);
        for path in paths {
            let name = path.display().to_string();
            let bytes = fs::read(path).map_err(FileError::at(path))?;
            let told = if bytes.starts_with(&ZSTD) { of_sweep(&Sweep::read(path)?) } else { of_journal(path, &bytes)? };
            let sha256 = builder::sha256(&bytes);
            if lessons.iter().any(|lesson| lesson.sha256 == sha256) {
                return Err(EarlierError::Twice(name));
            }
            if told.times.is_empty() {
                return Err(EarlierError::Nothing(name));
            }
            let count = told.times.len();
            let log_times: Vec<(Variant, f64)> = told.times.iter().map(|(variant, us)| (*variant, us.ln())).collect();
            ease.extend(against_average(eased(&log_times)));
            plain.extend(against_average(log_times));
            // A failure says something where the same code would run.
            let same_code = |variant: &Variant| variant.kernel(&told.problem) == variant.kernel(problem);
            measured.extend(told.times.iter().map(|(variant, _)| *variant).filter(same_code));
            failures.extend(told.failures.into_iter().filter(|(variant, _)| same_code(variant)));
            let file = path.file_name().map_or(name, |name| name.to_string_lossy().into_owned());
            lessons.push(Lesson { file, sha256, problem: told.problem, gpu: told.gpu, times: count });
        }
        if lessons.is_empty() {
            return Ok(Self::default());
        }
        let mut rules = refused_values(&measured, &failures);
        rules.iter_mut().for_each(|rule| rule.text += " in earlier measurements");
        Ok(Self { lessons, models: Some(Models { plain: model(plain), eased: model(ease) }), rules })
    }

    /// The files.
    pub fn lessons(&self) -> &[Lesson] {
        &self.lessons
    }

    /// Whether a file is one of them, under whatever name.
    pub fn is_taught_by(&self, path: &Path) -> Result<bool, FileError> {
        let sha256 = builder::sha256(&fs::read(path).map_err(FileError::at(path))?);
        Ok(self.lessons.iter().any(|lesson| lesson.sha256 == sha256))
    }

    /// The models; `None` if nothing was learnt.
    pub(super) fn models(&self) -> Option<&Models> {
        self.models.as_ref()
    }

    /// Values that always failed.
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

fn against_average(log_times: Vec<(Variant, f64)>) -> impl Iterator<Item = (Variant, f64)> {
    let average = log_times.iter().map(|(_, y)| y).sum::<f64>() / log_times.len() as f64;
    log_times.into_iter().map(move |(variant, y)| (variant, y - average))
}

fn model(mut observations: Vec<(Variant, f64)>) -> Arc<Surrogate> {
    observations.sort_by_key(|(variant, _)| *variant);
    let step = observations.len().div_ceil(MOST);
    let observations: Vec<(Variant, f64)> = observations.into_iter().step_by(step).collect();
    Arc::new(Surrogate::fit(&observations, NOISE, None))
}

fn of_sweep(sweep: &Sweep) -> Told {
    let mut times: Vec<(Variant, f64)> = sweep.times().into_iter().collect();
    times.sort_by_key(|(variant, _)| *variant);
    let failures = sweep.rows.iter().filter_map(|(variant, row)| {
        let gated = row.facts.as_ref().map_or(Ok(()), gate);
        let failure = gated.err().or_else(|| row.result.as_ref().err().cloned())?;
        Some((*variant, Reason::of(&failure)))
    });
    let failures = failures.collect();
    Told { problem: sweep.header.problem, gpu: sweep.header.device.name.clone(), times, failures }
}

/// What became of candidates; of a rewritten source nothing is learnt, since genes do not say what it does.
fn of_journal(path: &Path, bytes: &[u8]) -> Result<Told, EarlierError> {
    let stranger = |reason: String| EarlierError::Stranger { path: path.display().to_string(), reason };
    let lines = log::entries(path, bytes)?;
    let mut lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).map_err(|e| stranger(e.to_string())));
    let header = lines.next().ok_or_else(|| stranger("it is empty".to_owned()))??;
    if header["schema"].as_u64().is_none_or(|schema| schema > journal::SCHEMA.into()) {
        return Err(stranger(format!("its schema is {}", header["schema"])));
    }
    let field = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_default();
    let problem = field(&header["problem"]).parse().map_err(|error| stranger(format!("problem: {error}")))?;
    let mut told = Told { problem, gpu: field(&header["device"]["name"]), times: vec![], failures: vec![] };
    for line in lines {
        let verdict = &line?["ask"]["verdict"];
        // Variants that this program does not know any more teach nothing.
        match serde_json::from_value(verdict.clone()) {
            Ok(Verdict::Trial { variant: Candidate { variant, edit: None }, us, .. }) => told.times.push((variant, us)),
            Ok(Verdict::Refused(refusal)) => {
                let own = refusal.variant.filter(|candidate| candidate.edit.is_none());
                told.failures.extend(own.map(|candidate| (candidate.variant, refusal.reason)));
            }
            _ => {}
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::replay::Replay,
        evolve::{
            engine::{Run, evolve},
            insight::Insights,
            journal::Journal,
            outcome::Outcome,
            settings::Settings,
            strategy::Kind,
            tests::{Bank, cases, space},
        },
        measure::statistics,
        record::fixture,
        report,
    };

    /// A record of another problem on other variants than `of`, whose times are those of the fixture to a power.
    fn lesson(of: &Sweep, power: f64, folder: &Path) -> PathBuf {
        let mut sweep = fixture::sweep(700, 0.01, 9);
        sweep.header.problem = "b4-h16-s2048-d64-bf16-causal".parse().unwrap();
        sweep.rows.retain(|(variant, _)| of.rows.iter().all(|(other, _)| other != variant));
        for (_, row) in &mut sweep.rows {
            if let Ok(measurement) = &mut row.result {
                measurement.samples.hot_us.iter_mut().for_each(|us| *us = 30.0 * us.powf(power));
            }
        }
        let path = folder.join(format!("lesson{power}.jsonl.zst"));
        sweep.write(&path).unwrap();
        path
    }

    fn run(sweep: &Sweep, earlier: &Earlier, settings: &Settings, journal: Option<(&Path, bool)>) -> Outcome {
        let device = Replay::new(sweep);
        let run = Run {
            settings,
            space: &space(sweep),
            source: &mut device.clone(),
            lab: &mut Bank(device),
            cases: &cases(),
            earlier,
            deadline: None,
            progress: &mut |_| (),
        };
        let open = |header: &journal::Header| match journal {
            Some((path, resume)) => Ok(Journal::open(path, header, resume)?),
            None => Ok(Journal::unkept()),
        };
        evolve(run, open).unwrap()
    }

    /// Median over seeds of the trials until one was within 5 % of the best, which 1 % of variants are.
    fn arrival(sweep: &Sweep, earlier: &Earlier, strategy: Kind) -> f64 {
        let truth = sweep.times();
        let best = truth.values().copied().fold(f64::INFINITY, f64::min);
        let arrivals: Vec<f64> = (0..12)
            .map(|seed| {
                let settings = Settings { strategy, seed, sittings: 6, sitting_rounds: 1, ..Settings::default() };
                let outcome = run(sweep, earlier, &settings, None);
                let close = outcome.trials.iter().position(|trial| truth[&trial.variant] <= 1.05 * best);
                close.unwrap_or(outcome.trials.len()) as f64 + 1.0
            })
            .collect();
        statistics::median(&arrivals)
    }

    #[test]
    fn what_was_learnt_elsewhere_helps_where_it_holds_and_is_let_go_where_it_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let sweep = fixture::sweep(600, 0.01, 4);
        let read = |power: f64| Earlier::read(&[lesson(&sweep, power, folder.path())], &sweep.header.problem).unwrap();
        let (true_to_it, reversed) = (read(1.0), read(-1.0));
        for strategy in [Kind::Insight, Kind::Full] {
            let alone = arrival(&sweep, &Earlier::default(), strategy);
            let taught = arrival(&sweep, &true_to_it, strategy);
            assert!(taught <= 0.5 * alone, "{strategy:?}: {taught} trials, {alone} without");
        }
        let settings = Settings { trials: 30, ..Settings::default() };
        let weight = |earlier: &Earlier| run(&sweep, earlier, &settings, None).earlier_weight.unwrap();
        assert!(weight(&true_to_it) > 0.9, "{}", weight(&true_to_it));
        assert!(weight(&reversed) < 0.1, "{}", weight(&reversed));
        assert_eq!(run(&sweep, &Earlier::default(), &settings, None).earlier_weight, None);
        // Who does not learn is not taught.
        let random = Settings { strategy: Kind::Random, ..settings };
        let variants = |earlier: &Earlier| {
            let trials = run(&sweep, earlier, &random, None).trials.into_iter();
            trials.map(|trial| trial.variant).collect::<Vec<_>>()
        };
        assert_eq!(variants(&true_to_it), variants(&Earlier::default()));
    }

    #[test]
    fn a_journal_names_its_lessons_and_is_resumed_with_the_same_only() {
        let folder = tempfile::tempdir().unwrap();
        let sweep = fixture::sweep(300, 0.01, 4);
        let path = lesson(&sweep, 1.0, folder.path());
        let journal = folder.path().join("journal");
        let earlier = Earlier::read(std::slice::from_ref(&path), &sweep.header.problem).unwrap();
        let settings = Settings { trials: 12, ..Settings::default() };
        let outcome = run(&sweep, &earlier, &settings, Some((&journal, false)));
        assert_eq!(outcome.run.learnt_from, earlier.lessons());
        assert_eq!(run(&sweep, &earlier, &settings, Some((&journal, true))), outcome);
        for text in [report::html::page(&outcome), report::terminal::table(&outcome, "")] {
            assert!(text.contains("lesson1.jsonl.zst") && text.contains("bf16-causal"), "{text}");
        }
        let mut changed = lesson(&sweep, 1.1, folder.path());
        fs::rename(&changed, &path).unwrap();
        changed.clone_from(&path);
        for other in [Earlier::default(), Earlier::read(&[changed], &sweep.header.problem).unwrap()] {
            let header = journal::Header { learnt_from: other.lessons().to_vec(), ..outcome.run.clone() };
            let error = Journal::open(&journal, &header, true).unwrap_err().to_string();
            assert!(
                error.contains("the journal's learnt_from is ") && error.ends_with("it cannot be resumed"),
                "{error}"
            );
        }

        // The run that was taught can teach in turn.
        let next = Earlier::read(&[journal], &sweep.header.problem).unwrap();
        assert_eq!((next.lessons()[0].times, &next.lessons()[0].gpu), (12, &outcome.run.device.name));
    }

    #[test]
    fn failures_are_a_lesson_where_the_same_code_would_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut sweep = fixture::sweep(300, 0.01, 4);
        let bad = |variant: &Variant| variant.get(spec::Gene::ExpPoly) == Some(4);
        for (variant, row) in &mut sweep.rows {
            if bad(variant) {
                row.result = Err(crate::device::Failure::Wrong { case: "gate".into(), reason: "zeros".into() });
            }
        }
        let path = folder.path().join("record.jsonl.zst");
        sweep.write(&path).unwrap();
        let variant = sweep.rows.iter().map(|(variant, _)| variant).find(|variant| bad(variant)).unwrap();
        let advises = |problem: &str| {
            let earlier = Earlier::read(std::slice::from_ref(&path), &problem.parse().unwrap()).unwrap();
            let insights = Insights::learn(&[], &[], 0.01, &earlier);
            let texts: Vec<String> = insights.rules.iter().map(|rule| rule.text.clone()).collect();
            (insights.advises_against(variant), texts.concat())
        };
        let (against, texts) = advises(&sweep.header.problem.to_string());
        assert!(against && texts.contains("wrong output in earlier measurements"), "{texts}");
        assert_eq!(advises("b1-h8-s512-d128-f16"), (false, String::new()));
    }

    #[test]
    fn what_is_no_lesson_is_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let sweep = fixture::sweep(60, 0.01, 4);
        let good = lesson(&sweep, 1.0, folder.path());
        let refused = |paths: &[PathBuf]| Earlier::read(paths, &sweep.header.problem).unwrap_err().to_string();
        let file = |name: &str, entries: &[&str]| {
            let path = folder.path().join(name);
            fs::write(&path, log::text(entries.iter().copied())).unwrap();
            path
        };
        let header = format!("{{\"schema\":2,\"problem\":\"{}\",\"device\":{{\"name\":\"G\"}}}}", sweep.header.problem);
        let twice = folder.path().join("copy");
        fs::copy(&good, &twice).unwrap();
        for (paths, why) in [
            (vec![folder.path().join("absent")], "No such file"),
            (vec![file("other", &["{\"schema\":99}"])], "its schema is 99"),
            (vec![file("nothing", &[&header])], "it holds no time of a variant that this program knows"),
            (vec![file("empty", &[])], "it is empty"),
            (vec![good, twice], "copy: it is named twice"),
        ] {
            let error = refused(&paths);
            assert!(error.contains(why) && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn journals_of_the_first_schema_teach_too() {
        let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../records/runs");
        let path = runs.join("seed-h100-2026-11-25/journal.jsonl");
        assert_eq!(Earlier::read(&[path], &Problem::SEED).unwrap().lessons()[0].times, 45);
    }
}

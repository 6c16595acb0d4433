//! Measures every variant of a part of the space, for a record. No candidate is chosen: what fails is a row too.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Instant,
};

use spec::{Family, Variant};

use super::{
    sanity::{passed, possible},
    settings::{Cases, Lab},
    source::{Compiled, Source},
    space::Space,
};
use crate::{
    device::{Correctness, Device, Failure, Samples, Subject, TimingPlan},
    measure::statistics,
    record::{
        file::FileError,
        log::{Log, LogError, entries},
        sweep::{Entry, Header, Measurement, RecordError, Row, SCHEMA, Sweep, finish},
    },
};

/// Variants timed in turns with the reference at once.
const BATCH: usize = 6;
/// Rounds of an A/A test, as a multiple of a variant's.
const NOISE_ROUNDS: u32 = 5;
/// The fastest so many are measured again,
const AGAIN: usize = 50;
/// so often.
const TIMES_AGAIN: usize = 3;

/// Why a sweep ended without a record. What was measured stays in the log.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The record cannot be written, or the log is of another schema.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The log belongs to another sweep.
    #[error("{path}: the log's {what} is another than this sweep's; finish that sweep or name another file")]
    Changed {
        /// The log.
        path: String,
        /// What differs.
        what: &'static str,
    },
    /// The device failed, and failed again in a fresh process.
    #[error("{0}")]
    Device(Failure),
    /// No variant could serve as the reference.
    #[error("no variant works as the reference: {0}")]
    NoReference(Failure),
    /// A row cannot be written.
    #[error("a row cannot be written as JSON: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// What is to be measured, and how.
pub struct Plan<'a> {
    /// The space; its problem is measured.
    pub space: &'a Space,
    /// The variants.
    pub variants: &'a [Variant],
    /// Which part of the space they are, in words.
    pub part: String,
    /// What is checked before a variant is timed.
    pub cases: &'a Cases,
    /// Rounds per variant.
    pub rounds: u32,
    /// Seed of the order of subjects.
    pub seed: u64,
    /// Today, UTC, `YYYY-MM-DD`.
    pub date: String,
    /// When no further batch is begun.
    pub deadline: Option<Instant>,
    /// The record to write; the log beside it keeps what was measured until the record is complete.
    pub out: &'a Path,
}

/// How far a sweep came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Variants measured, in all.
    pub measured: usize,
    /// Variants that failed, in all.
    pub failed: usize,
    /// Variants the time did not suffice for.
    pub left: usize,
}

/// Measures what is planned and not yet in the log, then writes the record: of all, or of what the time sufficed for.
pub fn sweep(
    plan: &Plan<'_>,
    source: &mut dyn Source,
    lab: &mut dyn Lab,
    progress: &mut dyn FnMut(&Row),
) -> Result<Summary, SweepError> {
    let path = log_path(plan.out);
    let (log, lines) = Log::open(&path)?;
    let device = lab.open().map_err(SweepError::Device)?;
    let mut sweeper = Sweeper { plan, lab, device, log, compiled: HashMap::new(), summary: Summary::default() };
    let mut known: Vec<Entry> = Vec::new();
    for line in &lines {
        known.push(serde_json::from_str(line)?);
    }
    let todo: Vec<Variant> = {
        let done = |variant: &Variant| {
            let text = variant.to_string();
            known.iter().any(|entry| matches!(entry, Entry::Row(row) if row.variant == text))
        };
        plan.variants.iter().filter(|variant| !done(variant)).copied().collect()
    };
    for entry in &known {
        if let Entry::Row(row) = entry {
            sweeper.count(row);
        }
    }

    let reference = match known.first() {
        Some(Entry::Header(header)) => {
            sweeper.same_sweep(&path, header, &source.toolchain())?;
            let reference = header.reference;
            sweeper.compile(source, &[reference])?.pop().transpose().map_err(SweepError::NoReference)?;
            reference
        }
        _ => sweeper.begin(source)?,
    };
    let mut ready = Vec::new();
    for (variant, built) in todo.iter().zip(sweeper.compile(source, &todo)?) {
        match built {
            Ok(()) => ready.push(*variant),
            Err(failure) => sweeper.write_row(variant, Err(failure), progress)?,
        }
    }
    for batch in ready.chunks(BATCH) {
        if plan.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        sweeper.measure(&reference, batch, progress)?;
    }
    let planned = plan.variants.len();
    let Summary { measured, failed, .. } = sweeper.summary;
    let left = planned.saturating_sub(measured + failed);
    if left == 0 {
        sweeper.measure_again(source, &reference, &path)?;
        sweeper.noise(&reference)?;
    }
    finish(&path, plan.out)?;
    if left == 0 {
        // The record holds all of it. A log that cannot be removed does no harm.
        let _ = std::fs::remove_file(&path);
    }
    Ok(Summary { measured, failed, left })
}

/// Where a sweep keeps what it has measured so far.
fn log_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".log");
    name.into()
}

struct Sweeper<'a> {
    plan: &'a Plan<'a>,
    lab: &'a mut dyn Lab,
    device: Box<dyn Device>,
    log: Log,
    compiled: HashMap<Variant, Compiled>,
    summary: Summary,
}

impl Sweeper<'_> {
    /// Finds the reference, writes the header, the first A/A test and what others take.
    fn begin(&mut self, source: &mut dyn Source) -> Result<Variant, SweepError> {
        let space = self.plan.space;
        let centres: Vec<Variant> = Family::ALL.iter().rev().filter_map(|family| space.central(*family)).collect();
        let mut last = Failure::Unrecorded;
        for variant in centres.into_iter().chain(self.plan.variants.iter().copied()) {
            let built = self.compile(source, &[variant])?.remove(0);
            match built.and_then(|()| self.check(&variant)) {
                Ok(_) => {
                    let header = Header {
                        schema: SCHEMA,
                        problem: *space.problem(),
                        device: self.device.description().clone(),
                        toolchain: source.toolchain(),
                        date: self.plan.date.clone(),
                        part: self.plan.part.clone(),
                        planned: self.plan.variants.len(),
                        reference: variant,
                    };
                    self.write(&Entry::Header(header))?;
                    self.noise(&variant)?;
                    let peers = self.lab.peers(space.problem());
                    self.write(&Entry::Peers(peers))?;
                    return Ok(variant);
                }
                Err(failure @ Failure::Device(_)) => return Err(SweepError::Device(failure)),
                Err(failure) => last = failure,
            }
        }
        Err(SweepError::NoReference(last))
    }

    fn same_sweep(&self, path: &Path, header: &Header, toolchain: &str) -> Result<(), SweepError> {
        let differs = [
            ("schema", header.schema != SCHEMA),
            ("problem", header.problem != *self.plan.space.problem()),
            ("device", header.device != *self.device.description()),
            ("toolchain", header.toolchain != toolchain),
            ("part of the space", header.part != self.plan.part),
        ];
        match differs.iter().find(|(_, differs)| *differs) {
            Some((what, _)) => Err(SweepError::Changed { path: path.display().to_string(), what }),
            None => Ok(()),
        }
    }

    /// Compiles all that is not compiled, at once.
    fn compile(
        &mut self,
        source: &mut dyn Source,
        variants: &[Variant],
    ) -> Result<Vec<Result<(), Failure>>, SweepError> {
        if variants.is_empty() {
            return Ok(vec![]);
        }
        let answers = variants.iter().zip(source.compile(variants));
        Ok(answers.map(|(variant, answer)| answer.map(|code| drop(self.compiled.insert(*variant, code)))).collect())
    }

    fn subject(&self, variant: &Variant) -> Result<Subject, Failure> {
        let code = self.compiled.get(variant).map(|compiled| compiled.code.clone());
        Ok(Subject {
            problem: *self.plan.space.problem(),
            variant: *variant,
            geometry: self.plan.space.admit(variant)?,
            code: code.ok_or_else(|| Failure::Build("its source gave no answer".into()))?,
        })
    }

    fn check(&mut self, variant: &Variant) -> Result<Correctness, Failure> {
        let subject = self.subject(variant)?;
        let cases = &self.plan.cases.gate;
        self.ask(|device| passed(device.check(&subject, cases)?, cases.len()))
    }

    fn time(&mut self, variants: &[Variant], rounds: u32) -> Result<Vec<Samples>, Failure> {
        let subjects = variants.iter().map(|variant| self.subject(variant)).collect::<Result<Vec<_>, _>>()?;
        let plan = TimingPlan { rounds, cold: true, seed: self.plan.seed };
        let problem = *self.plan.space.problem();
        self.ask(|device| possible(device.time(&subjects, &plan)?, subjects.len(), &problem))
    }

    /// Asks the device, and once more in a fresh process if it failed by itself.
    fn ask<A>(&mut self, ask: impl Fn(&mut dyn Device) -> Result<A, Failure>) -> Result<A, Failure> {
        match ask(self.device.as_mut()) {
            Err(Failure::Device(_)) => {
                self.device = self.lab.open()?;
                ask(self.device.as_mut())
            }
            answer => answer,
        }
    }

    /// Checks a batch, then times what is correct in turns with the reference; one by one if that fails, so that the
    /// failure gets the right name.
    fn measure(
        &mut self,
        reference: &Variant,
        batch: &[Variant],
        progress: &mut dyn FnMut(&Row),
    ) -> Result<(), SweepError> {
        let mut correct = Vec::new();
        for variant in batch {
            match self.check(variant) {
                Ok(correctness) => correct.push((*variant, correctness)),
                Err(failure) => self.write_row(variant, Err(failure), progress)?,
            }
        }
        let with_reference = |variants: &[(Variant, Correctness)]| -> Vec<Variant> {
            std::iter::once(*reference).chain(variants.iter().map(|(variant, _)| *variant)).collect()
        };
        match self.time(&with_reference(&correct), self.plan.rounds) {
            Ok(samples) => self.write_measured(&correct, samples, progress),
            Err(_) => {
                for one in correct.chunks(1) {
                    match self.time(&with_reference(one), self.plan.rounds) {
                        Ok(samples) => self.write_measured(one, samples, progress)?,
                        Err(failure) => self.write_row(&one[0].0, Err(failure), progress)?,
                    }
                }
                Ok(())
            }
        }
    }

    /// Measures the fastest again, each time in a fresh process and in other company.
    fn measure_again(&mut self, source: &mut dyn Source, reference: &Variant, log: &Path) -> Result<(), SweepError> {
        let bytes = std::fs::read(log).map_err(FileError::at(log)).map_err(LogError::from)?;
        let so_far = Sweep::from_entries(log, &entries(log, &bytes)?)?;
        let mut fastest: Vec<(f64, Variant)> = so_far.times().into_iter().map(|(variant, us)| (us, variant)).collect();
        fastest.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let fastest: Vec<Variant> = fastest.into_iter().take(AGAIN).map(|(_, variant)| variant).collect();
        let missing: Vec<Variant> = fastest.iter().filter(|v| !self.compiled.contains_key(v)).copied().collect();
        self.compile(source, &missing)?;
        for time in 0..TIMES_AGAIN {
            self.device = self.lab.open().map_err(SweepError::Device)?;
            for first in 0..fastest.len().div_ceil(BATCH) {
                // In turns the batches are runs of neighbours and every so-and-so-many-th.
                let batch: Vec<Variant> = match time % 2 {
                    0 => fastest.iter().skip(first * BATCH).take(BATCH).copied().collect(),
                    _ => fastest.iter().skip(first).step_by(fastest.len().div_ceil(BATCH)).copied().collect(),
                };
                let subjects: Vec<Variant> = std::iter::once(*reference).chain(batch.iter().copied()).collect();
                let Ok(samples) = self.time(&subjects, self.plan.rounds) else { continue };
                let reference_us = statistics::median(&samples[0].hot_us);
                for (variant, samples) in batch.iter().zip(samples.into_iter().skip(1)) {
                    let known = so_far.rows.iter().find(|(known, _)| known == variant);
                    let Some((_, Row { result: Ok(first), .. })) = known else { continue };
                    let correctness = first.correctness.clone();
                    let row = self.row(variant, Ok(Measurement { correctness, samples, reference_us }));
                    self.write(&Entry::Again(row))?;
                }
            }
        }
        Ok(())
    }

    fn write_measured(
        &mut self,
        correct: &[(Variant, Correctness)],
        mut samples: Vec<Samples>,
        progress: &mut dyn FnMut(&Row),
    ) -> Result<(), SweepError> {
        let of_variants = samples.split_off(1);
        let reference_us = statistics::median(&samples[0].hot_us);
        for ((variant, correctness), samples) in correct.iter().zip(of_variants) {
            let correctness = correctness.clone();
            self.write_row(variant, Ok(Measurement { correctness, samples, reference_us }), progress)?;
        }
        Ok(())
    }

    fn noise(&mut self, reference: &Variant) -> Result<(), SweepError> {
        let samples = self.time(&[*reference; 2], NOISE_ROUNDS * self.plan.rounds).map_err(SweepError::Device)?;
        match <[Samples; 2]>::try_from(samples) {
            Ok([a, b]) => self.write(&Entry::Noise { a, b }),
            Err(_) => Err(SweepError::Device(Failure::Device("it did not time every subject".into()))),
        }
    }

    fn write_row(
        &mut self,
        variant: &Variant,
        result: Result<Measurement, Failure>,
        progress: &mut dyn FnMut(&Row),
    ) -> Result<(), SweepError> {
        if let Err(failure @ Failure::Device(_)) = result {
            return Err(SweepError::Device(failure));
        }
        let row = self.row(variant, result);
        self.count(&row);
        progress(&row);
        self.write(&Entry::Row(row))
    }

    fn row(&self, variant: &Variant, result: Result<Measurement, Failure>) -> Row {
        let compiled = self.compiled.get(variant);
        Row {
            variant: variant.to_string(),
            sha256: compiled.map(|compiled| compiled.sha256.clone()),
            facts: compiled.and_then(|compiled| compiled.facts.clone()),
            result,
        }
    }

    fn count(&mut self, row: &Row) {
        match row.result {
            Ok(_) => self.summary.measured += 1,
            Err(_) => self.summary.failed += 1,
        }
    }

    fn write(&mut self, entry: &Entry) -> Result<(), SweepError> {
        Ok(self.log.append(&serde_json::to_string(entry)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::replay::Replay,
        evolve::tests::{Bank, cases, space},
        record::fixture,
    };

    fn run(sweep_of: &Sweep, out: &Path, seconds: Option<u64>) -> Result<Summary, SweepError> {
        let space = space(sweep_of);
        let cases = cases();
        let deadline = seconds.map(|seconds| Instant::now() + std::time::Duration::from_secs(seconds));
        let plan = Plan {
            space: &space,
            variants: space.members(),
            part: "a part".into(),
            cases: &cases,
            rounds: 10,
            seed: 1,
            date: "2000-01-01".into(),
            deadline,
            out,
        };
        let device = Replay::new(sweep_of);
        super::sweep(&plan, &mut device.clone(), &mut Bank(device), &mut |_| ())
    }

    #[test]
    fn a_sweep_of_a_replay_is_a_record_again() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("sweep.jsonl.zst");
        let original = fixture::sweep(60, 0.01, 5);
        let summary = run(&original, &out, None).unwrap();
        assert_eq!(summary.measured + summary.failed, original.rows.len());
        assert!(summary.failed > 0 && summary.left == 0);
        let record = Sweep::read(&out).unwrap();
        assert_eq!(record.rows.len(), original.rows.len());
        assert_eq!(record.noise.len(), 2);
        let working = record.times().len();
        assert_eq!(record.again.len(), TIMES_AGAIN * working.min(AGAIN));
        assert_eq!(record.peers.peers.len(), 2);
        for (variant, row) in &record.rows {
            let (_, recorded) = original.rows.iter().find(|(other, _)| other == variant).unwrap();
            assert_eq!(row.result.as_ref().err(), recorded.result.as_ref().err(), "{variant}");
        }
        assert!(!log_path(&out).exists(), "a complete sweep needs no log");
    }

    #[test]
    fn no_time_left_keeps_what_there_is_and_goes_on_later() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("sweep.jsonl.zst");
        let original = fixture::sweep(60, 0.01, 5);
        let stopped = run(&original, &out, Some(0)).unwrap();
        assert!(stopped.left > 30, "{stopped:?}");
        assert_eq!(Sweep::read(&out).unwrap().rows.len(), stopped.measured + stopped.failed);
        let resumed = run(&original, &out, None).unwrap();
        assert_eq!((resumed.left, resumed.measured + resumed.failed), (0, original.rows.len()));
        assert_eq!(Sweep::read(&out).unwrap().rows.len(), original.rows.len());
    }

    #[test]
    fn a_log_of_another_gpu_is_not_continued() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("sweep.jsonl.zst");
        let mut original = fixture::sweep(60, 0.01, 5);
        run(&original, &out, Some(0)).unwrap();
        original.header.device.uuid = "GPU-1".into();
        let error = run(&original, &out, None).unwrap_err().to_string();
        assert!(error.contains("the log's device is another than this sweep's"), "{error}");
    }
}

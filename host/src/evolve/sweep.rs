//! Measures every variant of a part of the space, for a record. No candidate is chosen: what fails is a row too.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use spec::{Family, Variant};

use super::{
    crew::{Hand, share_out},
    sanity::{passed, possible, twice},
    settings::{Cases, Lab},
    source::{Compiled, Source},
    space::Space,
};
use crate::{
    device::{Correctness, Device, Failure, Pace, Samples, Subject, TimingPlan},
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
    /// Whether the fastest are measured again once all are measured; a share of a sweep cannot know them.
    pub again: bool,
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
    /// How long this call was busy with checking and timing variants, the A/A tests not counted.
    pub took: Duration,
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
    let others = lab.others().map_err(SweepError::Device)?;
    let bench = Bench { plan, compiled: HashMap::new() };
    let gpu = device.description().uuid.clone();
    let mut sweeper =
        Sweeper { bench, lab, device, others, log: Book { log, gpu, summary: Summary::default(), progress } };
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
            sweeper.log.count(row);
        }
    }

    let reference = match known.first() {
        Some(Entry::Header(header)) => {
            sweeper.same_sweep(&path, header, &source.toolchain())?;
            let reference = header.reference;
            sweeper.bench.compile(source, &[reference]).pop().transpose().map_err(SweepError::NoReference)?;
            reference
        }
        _ => sweeper.begin(source)?,
    };
    let mut ready = Vec::new();
    for (variant, built) in todo.iter().zip(sweeper.bench.compile(source, &todo)) {
        match built {
            Ok(()) => ready.push(*variant),
            Err(failure) => {
                let row = sweeper.bench.row(variant, Err(failure), None);
                sweeper.log.write_row(row)?;
            }
        }
    }
    let begun = Instant::now();
    sweeper.measure(&reference, &ready)?;
    let took = begun.elapsed();
    let planned = plan.variants.len();
    let Summary { measured, failed, .. } = sweeper.log.summary;
    let left = planned.saturating_sub(measured + failed);
    if left == 0 {
        if plan.again {
            sweeper.measure_again(source, &reference, &path)?;
        }
        sweeper.noise(&reference)?;
    }
    finish(&path, plan.out)?;
    if left == 0 {
        // The record holds all of it. A log that cannot be removed does no harm.
        let _ = std::fs::remove_file(&path);
    }
    Ok(Summary { measured, failed, left, took })
}

/// Where a sweep keeps what it has measured so far.
fn log_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".log");
    name.into()
}

struct Sweeper<'a> {
    bench: Bench<'a>,
    lab: &'a mut dyn Lab,
    device: Box<dyn Device>,
    others: Vec<Hand>,
    log: Book<'a>,
}

impl Sweeper<'_> {
    /// Finds the reference, writes the header, the first A/A test and what others take.
    fn begin(&mut self, source: &mut dyn Source) -> Result<Variant, SweepError> {
        let plan = self.bench.plan;
        let space = plan.space;
        let centres: Vec<Variant> = Family::ALL.iter().rev().filter_map(|family| space.central(*family)).collect();
        let mut last = Failure::Unrecorded;
        for variant in centres.into_iter().chain(plan.variants.iter().copied()) {
            let built = self.bench.compile(source, &[variant]).remove(0);
            match built.and_then(|()| self.bench.check(self.device.as_mut(), &variant)) {
                Ok(_) => {
                    let header = Header {
                        schema: SCHEMA,
                        problem: *space.problem(),
                        device: self.device.description().clone(),
                        toolchain: source.toolchain(),
                        date: plan.date.clone(),
                        part: plan.part.clone(),
                        planned: plan.variants.len(),
                        reference: variant,
                    };
                    self.log.write(&Entry::Header(header))?;
                    self.noise(&variant)?;
                    let peers = self.lab.peers(space.problem());
                    self.log.write(&Entry::Peers(peers))?;
                    return Ok(variant);
                }
                Err(failure @ Failure::Device(_)) => return Err(SweepError::Device(failure)),
                Err(failure) => last = failure,
            }
        }
        Err(SweepError::NoReference(last))
    }

    fn same_sweep(&self, path: &Path, header: &Header, toolchain: &str) -> Result<(), SweepError> {
        let plan = self.bench.plan;
        let differs = [
            ("schema", header.schema != SCHEMA),
            ("problem", header.problem != *plan.space.problem()),
            ("device", header.device != *self.device.description()),
            ("toolchain", header.toolchain != toolchain),
            ("part of the space", header.part != plan.part),
        ];
        match differs.iter().find(|(_, differs)| *differs) {
            Some((what, _)) => Err(SweepError::Changed { path: path.display().to_string(), what }),
            None => Ok(()),
        }
    }

    /// Measures batches on whichever device is free, until there are no more or the time is up.
    fn measure(&mut self, reference: &Variant, variants: &[Variant]) -> Result<(), SweepError> {
        let Self { bench, device, others, log, .. } = self;
        let deadline = bench.plan.deadline;
        let batches: Vec<&[Variant]> = variants.chunks(BATCH).collect();
        share_out(
            device.as_mut(),
            others,
            &batches,
            || deadline.is_some_and(|deadline| Instant::now() >= deadline),
            |device, batch| bench.measure(device, reference, batch),
            |_, rows| rows.into_iter().try_for_each(|row| log.write_row(row)),
        )
    }

    /// Measures the fastest again, each time in a fresh process and in other company.
    fn measure_again(&mut self, source: &mut dyn Source, reference: &Variant, log: &Path) -> Result<(), SweepError> {
        let bytes = std::fs::read(log).map_err(FileError::at(log)).map_err(LogError::from)?;
        let so_far = Sweep::from_entries(log, &entries(log, &bytes)?)?;
        let mut fastest: Vec<(f64, Variant)> = so_far.times().into_iter().map(|(variant, us)| (us, variant)).collect();
        fastest.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let fastest: Vec<Variant> = fastest.into_iter().take(AGAIN).map(|(_, variant)| variant).collect();
        let missing: Vec<Variant> = fastest.iter().filter(|v| !self.bench.compiled.contains_key(v)).copied().collect();
        self.bench.compile(source, &missing);
        for time in 0..TIMES_AGAIN {
            self.device = self.lab.open().map_err(SweepError::Device)?;
            for first in 0..fastest.len().div_ceil(BATCH) {
                // In turns the batches are runs of neighbours and every so-and-so-many-th.
                let batch: Vec<Variant> = match time % 2 {
                    0 => fastest.iter().skip(first * BATCH).take(BATCH).copied().collect(),
                    _ => fastest.iter().skip(first).step_by(fastest.len().div_ceil(BATCH)).copied().collect(),
                };
                let subjects: Vec<Variant> = std::iter::once(*reference).chain(batch.iter().copied()).collect();
                let rounds = self.bench.plan.rounds;
                let Ok(samples) = self.bench.time(self.device.as_mut(), &subjects, rounds) else { continue };
                let reference_us = statistics::median(&samples[0].hot_us);
                for (variant, samples) in batch.iter().zip(samples.into_iter().skip(1)) {
                    let known = so_far.rows.iter().find(|(known, _)| known == variant);
                    let Some((_, Row { result: Ok(first), .. })) = known else { continue };
                    let correctness = first.correctness.clone();
                    let row = self.bench.row(variant, Ok(Measurement { correctness, samples, reference_us }), None);
                    self.log.write(&Entry::Again(row))?;
                }
            }
        }
        Ok(())
    }

    fn noise(&mut self, reference: &Variant) -> Result<(), SweepError> {
        let rounds = NOISE_ROUNDS * self.bench.plan.rounds;
        let samples = self.bench.time(self.device.as_mut(), &[*reference; 2], rounds).map_err(SweepError::Device)?;
        match <[Samples; 2]>::try_from(samples) {
            Ok([a, b]) => self.log.write(&Entry::Noise { a, b }),
            Err(_) => Err(SweepError::Device(Failure::Device("it did not time every subject".into()))),
        }
    }
}

/// What is measured, and its code: the same on every device.
struct Bench<'a> {
    plan: &'a Plan<'a>,
    compiled: HashMap<Variant, Compiled>,
}

impl Bench<'_> {
    /// Compiles all that is not compiled, at once.
    fn compile(&mut self, source: &mut dyn Source, variants: &[Variant]) -> Vec<Result<(), Failure>> {
        if variants.is_empty() {
            return vec![];
        }
        let answers = variants.iter().zip(source.compile(variants));
        answers.map(|(variant, answer)| answer.map(|code| drop(self.compiled.insert(*variant, code)))).collect()
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

    fn check(&self, device: &mut dyn Device, variant: &Variant) -> Result<Correctness, Failure> {
        let subject = self.subject(variant)?;
        let cases = &self.plan.cases.gate;
        twice(device, |device| passed(device.check(&subject, cases)?, cases.len()))
    }

    fn time(&self, device: &mut dyn Device, variants: &[Variant], rounds: u32) -> Result<Vec<Samples>, Failure> {
        let subjects = variants.iter().map(|variant| self.subject(variant)).collect::<Result<Vec<_>, _>>()?;
        let plan = TimingPlan { rounds, cold: true, seed: self.plan.seed, pace: Pace::Sustained };
        let problem = *self.plan.space.problem();
        twice(device, |device| possible(device.time(&subjects, &plan)?, subjects.len(), &problem))
    }

    /// Checks a batch, then times what is correct in turns with the reference; one by one if that fails, so that the
    /// failure gets the right name. A failure of the device is the last row.
    fn measure(&self, device: &mut dyn Device, reference: &Variant, batch: &[Variant]) -> Vec<Row> {
        let gpu = device.description().uuid.clone();
        let row = |variant: &Variant, result| self.row(variant, result, Some(&gpu));
        let (mut correct, mut rows) = (Vec::new(), Vec::new());
        for variant in batch {
            match self.check(device, variant) {
                Ok(correctness) => correct.push((*variant, correctness)),
                Err(failure) => {
                    let over = is_the_devices(&failure);
                    rows.push(row(variant, Err(failure)));
                    if over {
                        return rows;
                    }
                }
            }
        }
        let mut time = |variants: &[(Variant, Correctness)]| {
            let with_reference: Vec<Variant> =
                std::iter::once(*reference).chain(variants.iter().map(|(variant, _)| *variant)).collect();
            self.time(device, &with_reference, self.plan.rounds)
        };
        let mut measured = |variants: &[(Variant, Correctness)], mut samples: Vec<Samples>| {
            let of_variants = samples.split_off(1);
            let reference_us = statistics::median(&samples[0].hot_us);
            for ((variant, correctness), samples) in variants.iter().zip(of_variants) {
                let correctness = correctness.clone();
                rows.push(row(variant, Ok(Measurement { correctness, samples, reference_us })));
            }
        };
        match time(&correct) {
            Ok(samples) => measured(&correct, samples),
            Err(_) => {
                let mut failures = Vec::new();
                for one in correct.chunks(1) {
                    match time(one) {
                        Ok(samples) => measured(one, samples),
                        Err(failure) => {
                            let over = is_the_devices(&failure);
                            failures.push(row(&one[0].0, Err(failure)));
                            if over {
                                break;
                            }
                        }
                    }
                }
                rows.extend(failures);
            }
        }
        rows
    }

    fn row(&self, variant: &Variant, result: Result<Measurement, Failure>, gpu: Option<&str>) -> Row {
        let compiled = self.compiled.get(variant);
        Row {
            variant: variant.to_string(),
            sha256: compiled.map(|compiled| compiled.sha256.clone()),
            facts: compiled.and_then(|compiled| compiled.facts.clone()),
            result,
            gpu: gpu.map(str::to_owned),
        }
    }
}

fn is_the_devices(failure: &Failure) -> bool {
    matches!(failure, Failure::Device(_))
}

/// Where rows are written.
struct Book<'a> {
    log: Log,
    /// UUID of the header's GPU.
    gpu: String,
    summary: Summary,
    progress: &'a mut dyn FnMut(&Row),
}

impl Book<'_> {
    fn write_row(&mut self, mut row: Row) -> Result<(), SweepError> {
        if let Err(failure @ Failure::Device(_)) = row.result {
            return Err(SweepError::Device(failure));
        }
        row.gpu = row.gpu.filter(|gpu| *gpu != self.gpu);
        self.count(&row);
        (self.progress)(&row);
        self.write(&Entry::Row(row))
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
    use std::sync::{Arc, Barrier};

    use spec::Problem;

    use super::*;
    use crate::{
        cases::Case,
        device::{Description, replay::Replay},
        evolve::{
            settings::Peers,
            tests::{Bank, cases, space},
        },
        record::fixture,
    };

    fn run(sweep_of: &Sweep, out: &Path, seconds: Option<u64>) -> Result<Summary, SweepError> {
        run_on(sweep_of, out, seconds, &mut Bank(Replay::new(sweep_of)), &mut |_| ())
    }

    fn run_on(
        sweep_of: &Sweep,
        out: &Path,
        seconds: Option<u64>,
        lab: &mut dyn Lab,
        progress: &mut dyn FnMut(&Row),
    ) -> Result<Summary, SweepError> {
        let space = space(sweep_of);
        let cases = cases();
        let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let plan = Plan {
            space: &space,
            variants: space.members(),
            part: "a part".into(),
            cases: &cases,
            rounds: 10,
            seed: 1,
            date: "2000-01-01".into(),
            again: true,
            deadline,
            out,
        };
        super::sweep(&plan, &mut Replay::new(sweep_of), lab, progress)
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

    /// A replay that is gone for good after so many checks.
    #[derive(Clone)]
    struct Mortal {
        replay: Replay,
        checks: usize,
        before_it_goes: Option<Arc<Barrier>>,
    }

    impl Device for Mortal {
        fn description(&self) -> &Description {
            self.replay.description()
        }

        fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
            let Some(left) = self.checks.checked_sub(1) else {
                self.before_it_goes.take().map(|meeting| meeting.wait());
                return Err(Failure::Device("gone".into()));
            };
            self.checks = left;
            self.replay.check(subject, cases)
        }

        fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
            self.replay.time(subjects, plan)
        }
    }

    /// A replay that is at its first batch when the other one goes.
    #[derive(Clone)]
    struct Heir {
        replay: Replay,
        other_goes: Option<Arc<Barrier>>,
    }

    impl Device for Heir {
        fn description(&self) -> &Description {
            self.replay.description()
        }

        fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
            self.other_goes.take().map(|meeting| meeting.wait());
            self.replay.check(subject, cases)
        }

        fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
            self.replay.time(subjects, plan)
        }
    }

    struct Pair(Mortal, Heir);

    impl Lab for Pair {
        fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
            Ok(Box::new(self.0.clone()))
        }

        fn others(&mut self) -> Result<Vec<Hand>, Failure> {
            Ok(vec![Box::new(self.1.clone())])
        }

        fn peers(&mut self, _: &Problem) -> Peers {
            Peers::default()
        }
    }

    #[test]
    fn a_device_that_ends_in_the_middle_of_a_batch_loses_no_row() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("sweep.jsonl.zst");
        let original = fixture::sweep(60, 0.01, 5);
        let (replay, meeting) = (Replay::new(&original), Some(Arc::new(Barrier::new(2))));
        // Enough for the reference, a batch, and half of one.
        let mortal = Mortal { replay: replay.clone(), checks: 1 + BATCH + BATCH / 2, before_it_goes: meeting.clone() };
        let mut pair = Pair(mortal, Heir { replay, other_goes: meeting });
        let mut told = vec![];
        let gone = run_on(&original, &out, None, &mut pair, &mut |row| told.push(row.variant.clone()));
        assert!(matches!(gone, Err(SweepError::Device(_))), "{gone:?}");
        let (_, lines) = Log::open(&log_path(&out)).unwrap();
        let written: Vec<String> = lines
            .iter()
            .filter_map(|line| match serde_json::from_str(line).unwrap() {
                Entry::Row(row) => Some(row.variant),
                _ => None,
            })
            .collect();
        assert_eq!(written, told);
        // The first device's batch and that of the second, which it had taken before.
        assert!(written.len() >= 2 * BATCH, "{written:?}");
        let resumed = run(&original, &out, None).unwrap();
        assert_eq!((resumed.left, resumed.measured + resumed.failed), (0, original.rows.len()));
        let mut variants: Vec<Variant> = Sweep::read(&out).unwrap().rows.iter().map(|(variant, _)| *variant).collect();
        variants.dedup();
        assert_eq!(variants.len(), original.rows.len());
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

//! A real GPU, in this process. A kernel may take its context with it: run it in a worker.

mod stage;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use spec::Problem;

use self::stage::{Inputs, Stage};
use super::{Code, Correctness, Description, Device, Failure, Kind, Samples, Subject, TimingPlan, same_again};
use crate::attention::{Attention, AttentionError};
use crate::cases::{Case, Distribution, Tensors};
use crate::driver::{DriverError, Gpu, Module, Monitor, Rates};
use crate::measure::floor::floor_us;
use crate::measure::timing::{Timer, Work};
use crate::oracle::metamorphic::Executor;
use crate::oracle::{Answer, Answers, Outputs, judge};

/// The case that is timed, by name.
const TIMED: &str = "the timed problem";
/// Seed of its inputs: always the same, so that its reference is worked out once.
const TIMED_SEED: u64 = 0;

/// Nothing in a kernel depends on chance, unless its threads race.
const OTHER_BITS: &str = "a second run on the same inputs gave other bits";

/// Checks and times subjects on one GPU.
#[derive(Debug)]
pub struct Cuda {
    gpu: Gpu,
    timer: Timer,
    description: Description,
    /// By the hash of their PTX.
    modules: HashMap<String, Module>,
    answers: Answers,
}

impl Cuda {
    /// Opens GPU number `ordinal`.
    pub fn open(ordinal: u32) -> Result<Self, DriverError> {
        let gpu = Gpu::open(ordinal)?;
        let timer = Timer::new(&gpu)?;
        let driver = Monitor::open(gpu.uuid()).and_then(|monitor| monitor.driver_version());
        let description = Description {
            kind: Kind::Cuda,
            name: gpu.name().to_owned(),
            uuid: gpu.uuid().to_owned(),
            driver: driver.unwrap_or_default(),
            limits: *gpu.limits(),
        };
        Ok(Self { gpu, timer, description, modules: HashMap::new(), answers: Answers::default() })
    }

    /// The GPU's timer.
    pub fn timer(&self) -> &Timer {
        &self.timer
    }

    /// How `problem` is done by the subject's variant and code.
    fn plan(&mut self, subject: &Subject, problem: &Problem) -> Result<Attention, Failure> {
        let Code::Ptx { sha256, path } = &subject.code else {
            return Err(Failure::Build("a GPU runs PTX only".to_owned()));
        };
        let module = match self.modules.get(sha256) {
            Some(module) => module.clone(),
            None => {
                let module = Module::load(&self.gpu, &ptx(path, sha256)?).map_err(driver_failed)?;
                self.modules.insert(sha256.clone(), module.clone());
                module
            }
        };
        Attention::from_module(&module, problem, &subject.variant).map_err(failed)
    }

    /// A variant as an executor of whole problems.
    pub fn executor<'a>(&'a mut self, subject: &'a Subject) -> impl Executor + 'a {
        Whole { device: self, subject }
    }

    fn check_case(&mut self, subject: &Subject, case: &Case) -> Result<Correctness, Failure> {
        let plan = self.plan(subject, &case.problem)?;
        let answer = self.answers.to(case)?;
        let inputs = Inputs::new(&self.gpu, &answer.tensors).map_err(driver_failed)?;
        let stage = Stage::new(plan, &inputs, Outputs::unwritten(&case.problem)?).map_err(failed)?;
        let outputs = stage.run(self.timer.stream()).map_err(driver_failed)?;
        let again = stage.run_over(&outputs.negated(), self.timer.stream()).map_err(driver_failed)?;
        let wrong = |reason: String| Failure::Wrong { case: case.name.clone(), reason };
        if let Some(change) = inputs.change().map_err(driver_failed)? {
            return Err(wrong(change));
        }
        let correctness = judge(case, &answer.reference, &outputs)?;
        same_again(&outputs, &again, OTHER_BITS).map_err(wrong)?;
        Ok(correctness)
    }
}

impl Device for Cuda {
    fn description(&self) -> &Description {
        &self.description
    }

    fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
        let mut all = Correctness { cases: 0, max_abs_error: 0.0, budget_used: 0.0 };
        for case in cases {
            let one = self.check_case(subject, case)?;
            all.cases += 1;
            all.max_abs_error = all.max_abs_error.max(one.max_abs_error);
            all.budget_used = all.budget_used.max(one.budget_used);
        }
        Ok(all)
    }

    fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
        // Subjects of one problem read the same tensors, so that none has luckier addresses.
        let mut timed: Vec<(Case, Arc<Answer>)> = Vec::new();
        for Subject { problem, .. } in subjects {
            if !timed.iter().any(|(case, _)| case.problem == *problem) {
                let case = Case::new(TIMED, *problem, Distribution::Normal, TIMED_SEED);
                let answer = self.answers.to(&case)?;
                timed.push((case, answer));
            }
        }
        let mut inputs = Vec::with_capacity(timed.len());
        for (case, answer) in &timed {
            inputs.push((case, answer, Inputs::new(&self.gpu, &answer.tensors).map_err(driver_failed)?));
        }
        let mut stages = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let plan = self.plan(subject, &subject.problem)?;
            let unwritten = Outputs::unwritten(&subject.problem)?;
            if let Some((case, answer, inputs)) = inputs.iter().find(|(case, ..)| case.problem == subject.problem) {
                stages.push((*case, *answer, Stage::new(plan, inputs, unwritten).map_err(failed)?));
            }
        }

        let stream = self.timer.stream();
        let first = stages.iter().map(|(.., stage)| stage.run(stream));
        let first = first.collect::<Result<Vec<_>, _>>().map_err(driver_failed)?;
        let works: Vec<&dyn Work> = stages.iter().map(|(.., stage)| stage as &dyn Work).collect();
        let samples = self.timer.time(&works, plan).map_err(driver_failed)?;

        for (((case, answer, stage), first), samples) in stages.iter().zip(&first).zip(&samples) {
            check_timed(case, answer, stage, first)?;
            check_possible(&case.problem, samples, self.gpu.rates())?;
            // Only now: whoever relies on what an earlier launch left may have reported a time that cannot be.
            let again = stage.run_over(&first.negated(), stream).map_err(driver_failed)?;
            same_again(first, &again, OTHER_BITS).map_err(wrong)?;
        }
        Ok(samples)
    }
}

/// A subject's kernel on problems of any size.
struct Whole<'a> {
    device: &'a mut Cuda,
    subject: &'a Subject,
}

impl Executor for Whole<'_> {
    fn run(&mut self, problem: &Problem, tensors: &Tensors) -> Result<Outputs, Failure> {
        let plan = self.device.plan(self.subject, problem)?;
        let inputs = Inputs::new(&self.device.gpu, tensors).map_err(driver_failed)?;
        let stage = Stage::new(plan, &inputs, Outputs::unwritten(problem)?).map_err(failed)?;
        stage.run(self.device.timer.stream()).map_err(driver_failed)
    }
}

fn wrong(reason: String) -> Failure {
    Failure::Wrong { case: TIMED.to_owned(), reason }
}

/// Refuses a kernel that was timed doing something else than the work.
fn check_timed(case: &Case, answer: &Answer, stage: &Stage<'_>, first: &Outputs) -> Result<(), Failure> {
    let last = stage.outputs().map_err(driver_failed)?;
    if let Some(change) = stage.inputs().change().map_err(driver_failed)? {
        return Err(wrong(change));
    }
    judge(case, &answer.reference, &last)?;
    if last != *first {
        return Err(wrong("the last timed launch gave other bits than the first".to_owned()));
    }
    Ok(())
}

/// Refuses times below the floor, and the lack of times.
fn check_possible(problem: &Problem, samples: &Samples, rates: &Rates) -> Result<(), Failure> {
    if samples.hot_us.is_empty() {
        return Err(Failure::Device(format!("it throttled in all of {} rounds", samples.throttled)));
    }
    for (times, cold) in [(&samples.hot_us, false), (&samples.cold_us, true)] {
        let floor_us = floor_us(problem, rates, cold);
        // What is not a number is not above the floor either.
        if let Some(measured_us) = times.iter().copied().find(|us| us.is_nan() || *us <= floor_us) {
            return Err(Failure::Impossible { measured_us, floor_us });
        }
    }
    Ok(())
}

/// The text of a PTX file, if it is what it should be.
fn ptx(path: &Path, sha256: &str) -> Result<String, Failure> {
    let at = |reason: String| Failure::Build(format!("{}: {reason}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
    let found = builder::sha256(text.as_bytes());
    if found != sha256 {
        return Err(at(format!("its hash is {found}, not {sha256}")));
    }
    Ok(text)
}

fn failed(error: AttentionError) -> Failure {
    match error {
        AttentionError::Driver(error) => driver_failed(error),
        AttentionError::Problem { reason, .. } | AttentionError::Illegal { reason, .. } => {
            Failure::Illegal(reason.to_string())
        }
        other => Failure::Launch(other.to_string()),
    }
}

/// Whose fault a failed call is: the PTX's, the kernel's, the launch's, or the device's own.
fn driver_failed(error: DriverError) -> Failure {
    let line = error.to_string();
    match error {
        DriverError::Ptx { .. } => Failure::Build(line),
        error if error.breaks_context() => Failure::Fault(line),
        DriverError::Call { call: "cuLaunchKernelEx" | "cuFuncSetAttribute" | "cuModuleGetFunction", .. } => {
            Failure::Launch(line)
        }
        _ => Failure::Device(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: Rates =
        Rates { capability: (9, 0), multiprocessors: 132, clock_hz: 1.98e9, memory_bytes_per_s: 3.35e12 };

    #[test]
    fn impossible_times_are_refused() {
        let check = |hot_us: &[f64], cold_us: &[f64]| {
            let samples = Samples { hot_us: hot_us.to_vec(), cold_us: cold_us.to_vec(), throttled: 0 };
            check_possible(&Problem::SEED, &samples, &H100)
        };
        assert_eq!(check(&[4.0, 4.1], &[9.0]), Ok(()));
        for bad in [0.1, 0.0, -1.0, f64::NAN] {
            assert!(matches!(check(&[4.0, bad], &[]), Err(Failure::Impossible { .. })), "{bad}");
        }
        // Enough for what is in L2, too little for what must come from memory.
        assert!(matches!(check(&[0.6], &[0.6]), Err(Failure::Impossible { floor_us, .. }) if floor_us > 0.6));
        assert!(matches!(check(&[], &[]), Err(Failure::Device(_))));
    }

    #[test]
    fn ptx_is_what_its_name_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ptx");
        fs::write(&path, ".version 8.3").unwrap();
        assert_eq!(ptx(&path, &builder::sha256(b".version 8.3")), Ok(".version 8.3".to_owned()));
        assert!(matches!(ptx(&path, "00"), Err(Failure::Build(why)) if why.contains("not 00")));
        assert!(matches!(ptx(&folder.path().join("b.ptx"), "00"), Err(Failure::Build(_))));
    }

    #[test]
    fn failures_are_told_apart() {
        let call = |call, code| driver_failed(DriverError::Call { call, code, name: String::new() });
        assert!(matches!(call("cuStreamSynchronize", 700), Failure::Fault(_)));
        assert!(matches!(call("cuLaunchKernelEx", 701), Failure::Launch(_)));
        assert!(matches!(call("cuLaunchKernelEx", 719), Failure::Fault(_)));
        assert!(matches!(call("cuMemAlloc", 2), Failure::Device(_)));
        let ptx = DriverError::Ptx { code: 218, name: String::new(), log: String::new() };
        assert!(matches!(driver_failed(ptx), Failure::Build(_)));
    }
}

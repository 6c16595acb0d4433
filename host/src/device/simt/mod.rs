//! The CPU machine as a device: kernels really execute, thread by thread, and every access is checked; times are modelled.

mod blocks;
mod model;
mod prepared;

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};

use libloading::Library;
use simt::Entry;
use spec::{DeviceLimits, Problem, Variant, legal};

use super::{Code, Correctness, Description, Device, Failure, Kind, Samples, Subject, TimingPlan, same_again};
use crate::cases::{Case, Distribution, Inputs, Tensors};
use crate::oracle::metamorphic::Executor;
use crate::oracle::{Outputs, Reference, judge};
use prepared::Prepared;

/// Multiply-adds of the clusters that run for one case and schedule, at most, so that it takes some tenths of a second.
/// One cluster always runs.
const WORK: u64 = 8 << 20;

/// Clusters that a time is modelled from.
const MODELLED_CLUSTERS: u64 = 2;

/// Runs kernels on the CPU machine.
///
/// A library stays open until the device is dropped. Kernels run in this process: one that breaks it takes it along.
#[derive(Debug)]
pub struct Simt {
    description: Description,
    libraries: HashMap<PathBuf, Library>,
}

impl Simt {
    /// A CPU machine with the limits of a GPU.
    pub fn new(limits: DeviceLimits) -> Self {
        let description = Description {
            kind: Kind::Simt,
            name: format!("CPU machine ({})", limits.sm),
            uuid: String::new(),
            driver: String::new(),
            limits,
        };
        Self { description, libraries: HashMap::new() }
    }

    /// A variant as an executor of whole problems.
    pub fn executor<'a>(&'a mut self, variant: Variant, code: &'a Code) -> impl Executor + 'a {
        Whole { device: self, variant, code }
    }

    fn prepare(&mut self, problem: &Problem, variant: &Variant, code: &Code) -> Result<Prepared, Failure> {
        let Code::Library { path } = code else {
            return Err(Failure::Launch("the CPU machine runs libraries made for it, not PTX".into()));
        };
        let geometry = legal(problem, variant, &self.description.limits);
        let geometry = geometry.map_err(|reason| Failure::Illegal(reason.to_string()))?;
        let kernel = variant.kernel(problem);
        let entry = self.entry(path, &kernel.symbol().to_string())?;
        Ok(Prepared::new(*problem, *variant, geometry, kernel, entry))
    }

    fn entry(&mut self, path: &Path, symbol: &str) -> Result<Entry, Failure> {
        let failed = |error: libloading::Error| Failure::Launch(format!("{}: {error}", path.display()));
        if !self.libraries.contains_key(path) {
            // SAFETY: what the builder makes for the CPU machine has no initialisers that could do harm.
            let library = unsafe { Library::new(path) }.map_err(failed)?;
            self.libraries.insert(path.to_owned(), library);
        }
        // SAFETY: only the symbol's address is taken.
        let address = unsafe { self.libraries[path].get::<*const c_void>(symbol) }.map_err(failed)?;
        // SAFETY: kernels are exported under their symbols as entries of the CPU machine, and the library stays open.
        Ok(unsafe { Entry::new(*address) })
    }

    fn check_case(&mut self, subject: &Subject, case: &Case) -> Result<Correctness, Failure> {
        let kernel = self.prepare(&case.problem, &subject.variant, &subject.code)?;
        let tensors = case.inputs.generate(&case.problem)?;
        let seed = case.inputs.seed;
        let clusters = kernel.sample(WORK / kernel.work_per_cluster(), seed);
        let (outputs, _) = kernel.launch(&tensors, &clusters, seed)?;
        let reference = Reference::of(&case.problem, &tensors, &kernel.rows(&tensors, &clusters));
        let correctness = judge(case, &reference, &outputs)?;
        let (again, _) = kernel.launch_over(outputs.negated(), &tensors, &clusters, seed + 1)?;
        same_again(&outputs, &again, "the outputs depend on the order in which warps run")
            .map_err(|reason| Failure::Wrong { case: case.name.clone(), reason })?;
        Ok(correctness)
    }
}

impl Device for Simt {
    fn description(&self) -> &Description {
        &self.description
    }

    /// Runs a seeded sample of the clusters (blocks, where there are none) where all would take long, each under two schedules.
    fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
        let mut total = Correctness { cases: 0, max_abs_error: 0.0, budget_used: 0.0 };
        for case in cases {
            let one = self.check_case(subject, case)?;
            total.cases += 1;
            total.max_abs_error = total.max_abs_error.max(one.max_abs_error);
            total.budget_used = total.budget_used.max(one.budget_used);
        }
        Ok(total)
    }

    /// A modelled time, the same in each round.
    fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
        let mut times = HashMap::new();
        let limits = self.description.limits;
        let mut model = |subject: &Subject| {
            let kernel = self.prepare(&subject.problem, &subject.variant, &subject.code)?;
            let inputs = Inputs::new(Distribution::Normal, 0);
            let clusters = kernel.sample(MODELLED_CLUSTERS, 0);
            let (_, stats) = kernel.launch(&inputs.generate(&subject.problem)?, &clusters, 0)?;
            Ok::<_, Failure>(model::times_us(&subject.problem, &subject.geometry, &stats, &limits))
        };
        subjects
            .iter()
            .map(|subject| {
                let key = (format!("{} {}", subject.variant, subject.problem), subject.code.clone());
                let time = match times.get(&key) {
                    Some(time) => *time,
                    None => {
                        let time = model(subject)?;
                        times.insert(key, time);
                        time
                    }
                };
                let rounds = |time, wanted| if wanted { vec![time; plan.rounds as usize] } else { vec![] };
                let model::Times { hot_us, cold_us } = time;
                Ok(Samples { hot_us: rounds(hot_us, true), cold_us: rounds(cold_us, plan.cold), throttled: 0 })
            })
            .collect()
    }
}

/// All blocks of a problem.
struct Whole<'a> {
    device: &'a mut Simt,
    variant: Variant,
    code: &'a Code,
}

impl Executor for Whole<'_> {
    fn run(&mut self, problem: &Problem, tensors: &Tensors) -> Result<Outputs, Failure> {
        let kernel = self.device.prepare(problem, &self.variant, self.code)?;
        Ok(kernel.launch(tensors, &kernel.sample(u64::MAX, 0), 0)?.0)
    }
}

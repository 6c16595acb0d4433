//! Where only a record is replayed, kernels still run: generation 0 and the winner, on the CPU machine.

use spec::{DeviceLimits, Variant, legal};

use super::place::workers::CpuMachine;
use crate::{
    cases::Case,
    device::{Failure, Subject},
    evolve::{
        library::SimtSource,
        outcome::{Execution, Outcome},
        settings::Lab,
        source::Source,
    },
};

/// Runs them on these cases and notes in the outcome how they did, or why they did not run.
pub(super) fn rehearse(outcome: &mut Outcome, cases: &[Case]) {
    let first = outcome.trials.iter().filter(|trial| trial.generation == 0 || trial.number == outcome.winner);
    let variants: Vec<Variant> = first.map(|trial| trial.variant).collect();
    match execute(outcome, &variants, cases) {
        Ok(executed) => outcome.executed = executed,
        Err(failure) => outcome.notes.push(format!("nothing ran on the CPU machine: {failure}")),
    }
}

fn execute(outcome: &Outcome, variants: &[Variant], cases: &[Case]) -> Result<Vec<Execution>, Failure> {
    let problem = outcome.run.problem;
    let limits = DeviceLimits::of(outcome.run.device.limits.sm);
    let mut source = SimtSource::open(problem, limits.sm).map_err(|error| Failure::Build(error.to_string()))?;
    let mut device = CpuMachine(limits.sm).open()?;
    let mut executed = Vec::new();
    for (variant, compiled) in variants.iter().zip(source.compile(variants)) {
        let geometry = legal(&problem, variant, &limits).map_err(|why| Failure::Illegal(why.to_string()))?;
        let subject = Subject { problem, variant: *variant, geometry, code: compiled?.code };
        executed.push(Execution { variant: *variant, result: device.check(&subject, cases) });
    }
    Ok(executed)
}

//! What a device's answers must look like before they are believed.

use spec::Problem;

use crate::device::{Correctness, Device, Failure, Samples};

/// Floating-point operations per microsecond that no GPU reaches: 20 PFLOP/s. A device knows a tighter bound of its own.
const FLOPS_PER_US: f64 = 20e9;

/// Asks a device, and once more if it failed by itself: it comes back in a fresh process.
pub(super) fn twice<A>(
    device: &mut dyn Device,
    ask: impl Fn(&mut dyn Device) -> Result<A, Failure>,
) -> Result<A, Failure> {
    match ask(device) {
        Err(Failure::Device(_)) => ask(device),
        answer => answer,
    }
}

/// A pass must be stated: what was not checked, or has no finite error, did not pass.
pub(super) fn passed(correctness: Correctness, cases: usize) -> Result<Correctness, Failure> {
    let wrong = |reason| Err(Failure::Wrong { case: "all".into(), reason });
    let Correctness { cases: checked, max_abs_error, budget_used } = correctness;
    if (checked as usize) < cases {
        return wrong(format!("{checked} of {cases} cases were checked"));
    }
    if !max_abs_error.is_finite() || !(0.0..=1.0).contains(&budget_used) {
        return wrong(format!("an error of {max_abs_error} takes {budget_used} of its budget"));
    }
    Ok(correctness)
}

/// Every subject has times, and every time is one in which the work can have been done.
pub(super) fn possible(samples: Vec<Samples>, subjects: usize, problem: &Problem) -> Result<Vec<Samples>, Failure> {
    if samples.len() != subjects {
        return Err(Failure::Device(format!("it timed {} of {subjects} subjects", samples.len())));
    }
    let floor_us = problem.flops() as f64 / FLOPS_PER_US;
    for time in samples.iter().flat_map(|of| of.hot_us.iter().chain(&of.cold_us)) {
        if !time.is_finite() || *time < floor_us {
            // Infinities and NaN have no JSON.
            let measured_us = if time.is_finite() { *time } else { 0.0 };
            return Err(Failure::Impossible { measured_us, floor_us });
        }
    }
    Ok(samples)
}

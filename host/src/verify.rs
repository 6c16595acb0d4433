//! Checks a dispatch record again: that it is of this GPU and this code, that what it names computes the right thing, and
//! that it is worth naming.

use builder::Library;
use spec::{DeviceLimits, Problem, Sm, Variant, legal};

use crate::{
    attention::AttentionError,
    cases::{self, Case, Extent},
    device::{Code, Correctness, Device, Failure, Kind, Pace, Subject, TimingPlan},
    dispatch::{self, Chosen, Dispatch, Entry, Refusal},
    measure::statistics::{self, Interval, NoInterval},
};

/// Level of the interval behind "slower than the fallback".
const LEVEL: f64 = 0.99;
/// Rows, keys and heads of what the CPU machine runs instead of a large problem, at most.
const SMALL: u32 = 256;
const SMALL_HEADS: u32 = 2;

/// A record that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// What was checked: the record's problem, or a smaller one on the CPU machine.
    pub problem: Problem,
    /// How it did.
    pub correctness: Correctness,
    /// How long it took; `None` where nothing can be timed.
    pub timing: Option<Timing>,
}

/// How long a recorded variant takes now.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Median over warm caches, in microseconds.
    pub hot_us: f64,
    /// Of its time to that of the variant that would be taken without the record; `None` if that is the same.
    pub to_fallback: Option<Interval>,
}

/// Why a record does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is not of this GPU or code.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What it names is wrong, or does not run.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// There is nothing to compare it with.
    #[error("no fallback: {0}")]
    NoFallback(#[from] AttentionError),
    /// Its times say nothing.
    #[error("not timed: {0}")]
    NotTimed(#[from] NoInterval),
    /// Whoever follows it is slower than without it.
    #[error(
        "slower than the fallback {fallback}, {:.3} [{:.3}, {:.3}] of its time",
        ratio.estimate, ratio.low, ratio.high
    )]
    Slower {
        /// What would be taken without it.
        fallback: Variant,
        /// Of its time to the fallback's.
        ratio: Interval,
    },
}

/// Verifies the record of one problem: on a GPU in full; on the CPU machine whether it is of code at hand, and whether that
/// is correct at a small shape.
pub fn verify(
    library: &Library,
    device: &mut dyn Device,
    dispatch: &Dispatch,
    entry: &Entry,
    rounds: u32,
) -> Result<Verified, Fault> {
    match device.description().kind {
        Kind::Simt => on_cpu_machine(library, device, dispatch, entry),
        Kind::Cuda | Kind::Replay => on_gpu(library, device, dispatch, entry, rounds),
    }
}

fn on_gpu(
    library: &Library,
    device: &mut dyn Device,
    dispatch: &Dispatch,
    Entry { problem, .. }: &Entry,
    rounds: u32,
) -> Result<Verified, Fault> {
    let (name, limits) = (device.description().name.clone(), device.description().limits);
    let subject = |chosen: Chosen| -> Result<Subject, Failure> {
        let path = chosen.artifact.path;
        subject(problem, chosen.variant, &limits, Code::Ptx { sha256: chosen.artifact.sha256, path })
    };
    let recorded = subject(dispatch::follow(library, &name, &limits, dispatch, problem)?)?;
    let correctness = check(device, &recorded, cases::suite(problem, Extent::Large))?;
    let fallback = subject(dispatch::choose(library, &name, &limits, None, problem)?)?;

    let plan = TimingPlan { rounds, cold: false, seed: 0, pace: Pace::Sustained };
    let same = fallback.variant == recorded.variant;
    let subjects = if same { vec![recorded] } else { vec![recorded, fallback] };
    let samples = device.time(&subjects, &plan)?;
    let to_fallback = match &samples[..] {
        [recorded, fallback] => Some(statistics::paired(&recorded.hot_us, &fallback.hot_us, LEVEL)?),
        [_] if same => None,
        _ => return Err(Failure::Device("it did not time every subject".into()).into()),
    };
    match to_fallback {
        Some(ratio) if ratio.low > 1.0 => Err(Fault::Slower { fallback: subjects[1].variant, ratio }),
        to_fallback => {
            let timing = Timing { hot_us: statistics::median(&samples[0].hot_us), to_fallback };
            Ok(Verified { problem: *problem, correctness, timing: Some(timing) })
        }
    }
}

fn on_cpu_machine(
    library: &Library,
    device: &mut dyn Device,
    dispatch: &Dispatch,
    Entry { problem, .. }: &Entry,
) -> Result<Verified, Fault> {
    // Which GPUs the record is of is not known here: its code is that of one of the targets.
    let mut refusal = Refusal::NotRecorded;
    let followed = Sm::ALL.into_iter().map(DeviceLimits::of).find_map(|limits| {
        let chosen = dispatch::follow(library, dispatch.gpu(), &limits, dispatch, problem);
        chosen.map_err(|why| refusal = why).ok().map(|chosen| (chosen.variant, limits))
    });
    let (variant, limits) = followed.ok_or(refusal)?;
    let path = library.simt(&[variant.kernel(problem)]).map_err(|error| Failure::Build(error.to_string()))?;
    let problem = small(problem);
    let subject = subject(&problem, variant, &limits, Code::Library { path })?;
    let correctness = check(device, &subject, cases::gate(&problem))?;
    Ok(Verified { problem, correctness, timing: None })
}

fn subject(problem: &Problem, variant: Variant, limits: &DeviceLimits, code: Code) -> Result<Subject, Failure> {
    let geometry = legal(problem, &variant, limits).map_err(|why| Failure::Illegal(why.to_string()))?;
    Ok(Subject { problem: *problem, variant, geometry, code })
}

/// Runs a subject on those of the cases that its variant claims to do.
fn check(device: &mut dyn Device, subject: &Subject, mut cases: Vec<Case>) -> Result<Correctness, Failure> {
    let limits = device.description().limits;
    cases.retain(|case| legal(&case.problem, &subject.variant, &limits).is_ok());
    let correctness = device.check(subject, &cases)?;
    if (correctness.cases as usize) < cases.len() || cases.is_empty() {
        let reason = format!("{} of {} cases were checked", correctness.cases, cases.len());
        return Err(Failure::Wrong { case: "all".into(), reason });
    }
    Ok(correctness)
}

/// A problem with the same kernel that the CPU machine runs in a moment; the same one if it is small.
fn small(problem: &Problem) -> Problem {
    let per_kv = problem.heads_q / problem.heads_kv.max(1);
    let heads_kv = problem.heads_kv.min(SMALL_HEADS);
    if problem.batch == 1 && heads_kv == problem.heads_kv && problem.seqlen_q.max(problem.seqlen_kv) <= SMALL {
        return *problem;
    }
    Problem { batch: 1, heads_q: heads_kv * per_kv, ..*problem }
        .with_heads_kv(heads_kv)
        .with_seqlens(problem.seqlen_q.min(SMALL), problem.seqlen_kv.min(SMALL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::{Description, Samples},
        dispatch::tests::{GPU, LIMITS, dispatch, library, two},
    };

    /// A GPU on which each variant takes as long as it is told to.
    struct Clock {
        description: Description,
        us: fn(&Variant) -> f64,
        check: fn(u32) -> Result<Correctness, Failure>,
    }

    impl Device for Clock {
        fn description(&self) -> &Description {
            &self.description
        }

        fn check(&mut self, _: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
            (self.check)(cases.len() as u32)
        }

        fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
            let samples = |subject: &Subject| {
                let us = (self.us)(&subject.variant);
                let hot_us = (0..plan.rounds).map(|i| us + f64::from(i % 3) * 0.01).collect();
                Samples { hot_us, ..Samples::default() }
            };
            Ok(subjects.iter().map(samples).collect())
        }
    }

    fn passed(cases: u32) -> Result<Correctness, Failure> {
        Ok(Correctness { cases, max_abs_error: 1e-4, budget_used: 0.5 })
    }

    /// What becomes of the record of the second default, on this GPU.
    fn run(
        name: &str,
        us: fn(&Variant) -> f64,
        check: fn(u32) -> Result<Correctness, Failure>,
    ) -> Result<Verified, Fault> {
        let [first, second] = two();
        let (library, _folder) = library(&[first, second]);
        let description = Description {
            kind: Kind::Cuda,
            name: name.into(),
            uuid: "GPU-0".into(),
            driver: "1".into(),
            limits: LIMITS,
        };
        let records = dispatch(&second);
        verify(&library, &mut Clock { description, us, check }, &records, &records.entries()[0], 20)
    }

    fn second_faster(variant: &Variant) -> f64 {
        if *variant == two()[1] { 4.0 } else { 5.0 }
    }

    #[test]
    fn a_record_that_is_right_and_worth_following_holds() {
        let Timing { hot_us, to_fallback } = run(GPU, second_faster, passed).unwrap().timing.unwrap();
        assert!((hot_us - 4.01).abs() < 0.011, "{hot_us}");
        assert!((to_fallback.unwrap().estimate - 0.8).abs() < 1e-3);
    }

    #[test]
    fn one_that_is_slower_wrong_half_checked_or_of_another_gpu_does_not() {
        let fault = |us, check, gpu| run(gpu, us, check).unwrap_err().to_string();
        let slower = fault(|variant| 20.0 - second_faster(variant), passed, GPU);
        assert!(slower.starts_with(&format!("slower than the fallback {}, 1.06", two()[0])), "{slower}");
        let wrong = fault(second_faster, |_| Err(Failure::Wrong { case: "x".into(), reason: "zeros".into() }), GPU);
        assert_eq!(wrong, "wrong on x: zeros");
        assert!(fault(second_faster, |cases| passed(cases - 1), GPU).contains(" cases were checked"));
        let other = fault(second_faster, passed, "NVIDIA L4");
        assert_eq!(other, format!("the dispatch records are of {GPU}, this is NVIDIA L4"));
    }

    #[test]
    fn the_cpu_machine_gets_a_small_problem_of_the_same_kernel() {
        let large: Problem = "b2-hq32-hk8-s16384-d128-bf16-causal".parse().unwrap();
        let small = small(&large);
        assert_eq!((small.batch, small.heads_q, small.heads_kv, small.seqlen_q), (1, 8, 2, 256));
        let variant = Variant::smallest(spec::Family::Tiled);
        assert_eq!(variant.kernel(&small), variant.kernel(&large));
        let tiny: Problem = "b1-h2-s7-d64-f16".parse().unwrap();
        assert_eq!(super::small(&tiny), tiny);
    }
}

//! Where a trial runs: a real GPU, a record of one, or the CPU machine.
//!
//! The engine knows only this trait. Everything in it can be sent to a worker process and back, since a bad kernel may
//! take its process with it.

pub mod cuda;
pub mod remote;
pub mod replay;
pub mod simt;
pub mod worker;

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use spec::{DeviceLimits, LaunchGeometry, Problem, Variant};

use crate::cases::Case;
use crate::oracle::Outputs;

/// What a device is; measurements belong to one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Whether times are measured, recorded or modelled.
    pub kind: Kind,
    /// Name as the driver gives it, e.g. `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// The GPU's UUID; empty where there is none.
    pub uuid: String,
    /// Driver version, e.g. `580.159.04`; empty where there is none.
    pub driver: String,
    /// What it allows.
    pub limits: DeviceLimits,
}

/// Where a device's times come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Measured on a GPU, now.
    Cuda,
    /// Drawn from a record of measurements on a GPU.
    Replay,
    /// Modelled; kernels really execute, on the CPU machine.
    Simt,
}

/// The compiled form of a variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A PTX file with the one entry point `attention`.
    Ptx {
        /// Hash of the canonical text.
        sha256: String,
        /// The file.
        path: PathBuf,
    },
    /// A library for the CPU machine; the entry point is the kernel's symbol.
    Library {
        /// The file.
        path: PathBuf,
    },
    /// None is needed: the device replays a record.
    Recorded,
}

/// A variant ready to run a problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// What is asked.
    pub problem: Problem,
    /// How it is done.
    pub variant: Variant,
    /// How it is launched.
    pub geometry: LaunchGeometry,
    /// What is launched.
    pub code: Code,
}

/// How subjects are timed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimingPlan {
    /// Samples per subject; in a burst, at most. Subjects take turns in the order A B B A, so that drift cancels.
    pub rounds: u32,
    /// Also time with a flushed L2.
    pub cold: bool,
    /// Seed of the order of subjects and of replayed noise.
    pub seed: u64,
    /// What the GPU does besides.
    #[serde(default, skip_serializing_if = "Pace::is_sustained")]
    pub pace: Pace,
}

/// What the GPU does before and between samples. Where its power limits it, a kernel is up to a fifth faster after a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// It works all along, before the first sample too, and subjects take their turns: none has an advantage.
    #[default]
    Sustained,
    /// It rests before each subject, whose samples then follow each other for 20 ms at most: as baselines are timed, so that
    /// times can be set beside theirs.
    Burst,
}

impl Pace {
    fn is_sustained(&self) -> bool {
        *self == Self::Sustained
    }
}

/// Times of one subject, one entry per round, in microseconds per launch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// By graph replay over warm caches.
    pub hot_us: Vec<f64>,
    /// With L2 flushed before each launch; empty unless asked for.
    pub cold_us: Vec<f64>,
    /// Rounds dropped because the GPU throttled.
    pub throttled: u32,
}

/// How far a subject's outputs are from fp64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correctness {
    /// Cases it passed: all that were asked.
    pub cases: u32,
    /// Largest absolute error of O over all of them.
    pub max_abs_error: f64,
    /// Largest share of its error budget that a case used; at most 1.
    pub budget_used: f64,
}

/// Why a subject is refused. One line each; the engine counts them by kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The variant does not fit the problem or the GPU.
    #[error("illegal: {0}")]
    Illegal(String),
    /// It did not compile, or no source has it.
    #[error("not built: {0}")]
    Build(String),
    /// The compiler's facts are not acceptable.
    #[error("refused by the compiler gate: {0}")]
    Gate(String),
    /// The outputs are wrong.
    #[error("wrong on {case}: {reason}")]
    Wrong {
        /// The case's name.
        case: String,
        /// What is wrong, with numbers.
        reason: String,
    },
    /// It could not be loaded or launched.
    #[error("not launched: {0}")]
    Launch(String),
    /// It broke its process or context (illegal address, deadlock, race).
    #[error("faulted: {0}")]
    Fault(String),
    /// It did not end in time.
    #[error("still running after {seconds} s")]
    Hang {
        /// The watchdog's patience.
        seconds: f64,
    },
    /// It is faster than the hardware can be.
    #[error("{measured_us:.3} us is below the floor of {floor_us:.3} us")]
    Impossible {
        /// The time it reported.
        measured_us: f64,
        /// The fewest microseconds its work can take.
        floor_us: f64,
    },
    /// The record has no measurement of it.
    #[error("not in the record")]
    Unrecorded,
    /// The device itself failed, through no fault of the subject. A device in a worker process answers the next request from
    /// a fresh one.
    #[error("device failed: {0}")]
    Device(String),
}

/// Somewhere to check and time subjects.
pub trait Device {
    /// What it is.
    fn description(&self) -> &Description;

    /// Runs the subject on every case, outputs poisoned and guarded, and compares with the oracle. A case's problem
    /// may differ from the subject's in lengths, batch, heads and mask: the launch geometry is worked out for each.
    fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure>;

    /// Times the subjects in turns; one entry per subject, in their order.
    fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure>;

    /// From `deadline` on, whatever is asked counts as [`Failure::Hang`], even if it has begun. A device that cannot give
    /// up a subject halfway ignores it.
    fn answer_by(&mut self, _deadline: Option<Instant>) {}
}

/// Whether a second launch, over the first one's outputs negated, gave the same bits; if not, `otherwise` says why that
/// may be, unless it just left things as they were.
fn same_again(first: &Outputs, second: &Outputs, otherwise: &str) -> Result<(), String> {
    match first.left_alone(second) {
        0 if first == second => Ok(()),
        0 => Err(otherwise.to_owned()),
        count => Err(format!("{count} elements were not written where an earlier launch had left a number")),
    }
}

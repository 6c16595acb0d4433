//! What a run found: everything a report says.

use serde::{Deserialize, Serialize};
use spec::Variant;

use super::{
    budget::Budget,
    claims::Claim,
    insight::{Effect, Rule},
    journal::Header,
    settings::Peers,
    trial::{Refusal, Trial},
};
use crate::{
    device::{Correctness, Description, Failure, Kind},
    measure::noise::NoiseFloor,
};

/// Version of the outcome's format.
pub const SCHEMA: u32 = 2;

/// What a run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was run, on what, with which code.
    pub run: Header,
    /// Where the times come from, for the reader.
    pub times: String,
    /// Members of the space.
    pub space_size: usize,
    /// The A/A test.
    pub noise: NoiseFloor,
    /// What was spent.
    pub budget: Budget,
    /// The trials, in the order they were made.
    pub trials: Vec<Trial>,
    /// The candidates that cost no trial.
    pub refusals: Vec<Refusal>,
    /// Number of the first incumbent.
    pub incumbent: usize,
    /// Number of the winner.
    pub winner: usize,
    /// What selection chose, where its claim showed it slower than the first incumbent, which then won instead.
    pub overturned: Option<Overturned>,
    /// Numbers of the last elites, the fastest first.
    pub elites: Vec<usize>,
    /// How the winner did on the whole suite in a fresh process.
    pub correctness: Correctness,
    /// Fresh hot times of the winner in microseconds.
    pub winner_hot_us: Vec<f64>,
    /// Fresh times of the winner with a flushed L2 in microseconds; may be empty.
    pub winner_cold_us: Vec<f64>,
    /// What can be claimed.
    pub claims: Vec<Claim>,
    /// What others take.
    pub peers: Peers,
    /// What each gene's values are worth.
    pub effects: Vec<Effect>,
    /// How far the earlier measurements that the run was given hold in its own, from 0 to 1; `None` if it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_weight: Option<f64>,
    /// What was learnt besides.
    pub rules: Vec<Rule>,
    /// What ran on the CPU machine besides, where the run itself only replayed a record.
    pub executed: Vec<Execution>,
    /// What the reader should know: what could not be done and why.
    pub notes: Vec<String>,
}

/// A choice that fresh samples did not bear out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overturned {
    /// Number of the trial that was chosen.
    pub number: usize,
    /// How it compares with the first incumbent.
    pub claim: Claim,
}

/// A kernel that really ran on the CPU machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Its variant.
    pub variant: Variant,
    /// How it did on the short gate.
    pub result: Result<Correctness, Failure>,
}

/// Where a device's times come from.
pub(super) fn times(device: &Description) -> String {
    let Description { kind, name, driver, .. } = device;
    match kind {
        Kind::Cuda => format!("measured on {name}, driver {driver}"),
        Kind::Replay => format!("replayed from a record of {name}, driver {driver}: measured then, not now"),
        Kind::Simt => "modelled, not measured: kernels ran on the CPU machine".to_owned(),
    }
}

impl Outcome {
    /// A trial by its number.
    pub fn trial(&self, number: usize) -> Option<&Trial> {
        self.trials.iter().find(|trial| trial.number == number)
    }
}

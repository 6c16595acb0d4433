//! How a run is started, and where its parts come from.

use serde::{Deserialize, Serialize};
use spec::Problem;

use super::strategy;
use crate::{
    cases::Case,
    device::{Device, Failure},
};

/// What decides a run's course, besides the measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How candidates are chosen.
    pub strategy: strategy::Kind,
    /// Seed of everything drawn.
    pub seed: u64,
    /// Distinct, valid, measured trials.
    pub trials: u32,
    /// Elites kept, and candidates of one generation.
    pub population: u32,
    /// Rounds in which a candidate is timed against the incumbent.
    pub rounds: u32,
    /// Rounds of the A/A test.
    pub noise_rounds: u32,
    /// Rounds behind a claim.
    pub claim_rounds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: strategy::Kind::Full,
            seed: 0,
            trials: 45,
            population: 5,
            rounds: 20,
            noise_rounds: 40,
            claim_rounds: 60,
        }
    }
}

/// What variants are checked on.
#[derive(Clone, Debug, PartialEq)]
pub struct Cases {
    /// Few and quick: before a variant is timed.
    pub gate: Vec<Case>,
    /// All: before a variant is an elite.
    pub suite: Vec<Case>,
}

/// What a library other than ours takes for the problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Library and backend.
    pub name: String,
    /// Hot times in microseconds.
    pub hot_us: Vec<f64>,
    /// Times with a flushed L2 in microseconds; may be empty.
    pub cold_us: Vec<f64>,
    /// Date and GPU of the record it is from; `None` if it was measured in this run, on this run's GPU.
    pub recorded: Option<String>,
}

/// Gives the devices of a run and what its winner is compared with.
pub trait Lab {
    /// A device in a process of its own.
    fn open(&mut self) -> Result<Box<dyn Device>, Failure>;

    /// The baselines, or the reason why there are none.
    fn baselines(&mut self, problem: &Problem) -> Result<Vec<Baseline>, String>;
}

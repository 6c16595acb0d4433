//! Correctness cases: data that every executor (oracle, CPU machine, GPU) reads.

use serde::{Deserialize, Serialize};
use spec::Problem;

/// How Q, K and V are filled. Every distribution is a function of the seed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Standard normal.
    Normal,
    /// Standard normal with one element in a thousand scaled by 10 (after FlashAttention-3's accuracy test).
    Outliers,
    /// Logits of magnitude several hundred, so that nearly one key takes all.
    LargeLogits,
    /// All keys equal: a uniform average of V.
    EqualLogits,
    /// Each row attends to one key.
    OneHot,
    /// V is all ones: the output must be one.
    ConstantV,
}

/// The inputs of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Inputs {
    /// How the tensors are filled.
    pub distribution: Distribution,
    /// Seed of the generator.
    pub seed: u64,
}

/// One problem with its inputs; what is expected follows from the oracle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Name in reports.
    pub name: String,
    /// What is asked.
    pub problem: Problem,
    /// With which inputs.
    pub inputs: Inputs,
}

//! Correctness cases: data that every executor (oracle, CPU machine, GPU) reads.

mod extras;
mod features;
mod field;
mod generate;
mod guarded;
mod layouts;
pub mod number;
mod random;
mod table;
mod tensor;

use serde::{Deserialize, Serialize};
use spec::Problem;

pub use extras::{Array, Extras, Sequence};
pub use guarded::{GUARD, Guarded};
pub use layouts::Layout;
pub use random::random;
pub use table::{Extent, gate, odd_addresses, odd_strides, suite};
pub use tensor::{Tensor, Tensors};

use crate::device::Failure;

/// How Q, K and V are filled. Every distribution is a function of the seed alone.
///
/// Unless it says otherwise, a tensor is standard normal. Whatever the strides, the element at one position of one head
/// has the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Standard normal.
    Normal,
    /// Standard normal with one element in a thousand scaled by 10 (after FlashAttention-3's accuracy test).
    Outliers,
    /// Logits of magnitude several hundred, so that nearly one key takes all.
    LargeLogits,
    /// Dot products of Q and K, before the scale, that fp16 cannot hold.
    HugeScores,
    /// All logits far below zero: a maximum that starts at zero hides them all.
    LowLogits,
    /// All keys equal: a uniform average of V.
    EqualLogits,
    /// Each row attends to one key.
    OneHot,
    /// V is all ones: the output must be one.
    ConstantV,
    /// V is 60000 or -60000, by column: sums in fp16 overflow.
    LargeV,
    /// The last query row of each head is NaN: so must its output be, and no other row's.
    NanQuery,
    /// Keys that every row is kept from seeing, by whatever hides them, are NaN in K and V, which must not leak.
    HiddenNan,
    /// Here and there V is NaN, infinity or -infinity: rows that see it have it in their sums, and no others. Kernels without
    /// features do not promise this.
    BrokenValues,
}

impl Distribution {
    /// All distributions, in the order of their declaration.
    pub const ALL: [Self; 12] = [
        Self::Normal,
        Self::Outliers,
        Self::LargeLogits,
        Self::HugeScores,
        Self::LowLogits,
        Self::EqualLogits,
        Self::OneHot,
        Self::ConstantV,
        Self::LargeV,
        Self::NanQuery,
        Self::HiddenNan,
        Self::BrokenValues,
    ];
}

/// The inputs of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Inputs {
    /// How the tensors are filled.
    pub distribution: Distribution,
    /// Seed of the generator.
    pub seed: u64,
    /// Elements of memory before the first of Q, K and V each: tensors may begin in the middle of another.
    #[serde(default)]
    pub lead: u32,
}

impl Inputs {
    /// Tensors that begin where memory does.
    pub const fn new(distribution: Distribution, seed: u64) -> Self {
        Self { distribution, seed, lead: 0 }
    }
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

impl Case {
    /// A case.
    pub fn new(name: impl Into<String>, problem: Problem, distribution: Distribution, seed: u64) -> Self {
        Self { name: name.into(), problem, inputs: Inputs::new(distribution, seed) }
    }
}

/// Why the tensors of a problem cannot be made on the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaseError {
    /// A stride is negative.
    #[error("the strides of {tensor} are {strides:?}; strides of at least 0 are allowed")]
    NegativeStride {
        /// Q, K, V or O.
        tensor: char,
        /// Of batch, sequence and head.
        strides: [i64; 3],
    },
    /// Two elements of the output lie at one place.
    #[error("the strides of O are {strides:?}; they put two elements at one place")]
    Overlap {
        /// Of batch, sequence and head.
        strides: [i64; 3],
    },
    /// More memory than there is.
    #[error("{tensor} takes {elements} elements, more than there is memory for")]
    Memory {
        /// Q, K, V or O, L for the LSE, or X for what features read.
        tensor: char,
        /// Elements from its first to its last.
        elements: u128,
    },
}

impl From<CaseError> for Failure {
    fn from(error: CaseError) -> Self {
        match error {
            CaseError::Memory { .. } => Self::Device(error.to_string()),
            CaseError::NegativeStride { .. } | CaseError::Overlap { .. } => Self::Illegal(error.to_string()),
        }
    }
}

//! What can be wrong with a request.

use builder::BuildError;
use spec::{Append, Illegal, Kernel, Problem, Variant};

use crate::driver::DriverError;
use crate::tensor::Layout;

/// Why attention cannot be planned or launched. Nothing is then launched or written.
#[derive(Debug, thiserror::Error)]
pub enum AttentionError {
    /// No variant can run the problem on the GPU.
    #[error("{problem} cannot be run: {reason}")]
    Problem {
        /// What was asked.
        problem: Box<Problem>,
        /// Why not.
        reason: Illegal,
    },
    /// New keys cannot be appended to a cache so.
    #[error("{append} cannot be appended: {reason}")]
    Append {
        /// What was asked.
        append: Box<Append>,
        /// Why not.
        reason: Illegal,
    },
    /// The variant does not fit the problem or the GPU.
    #[error("{variant} cannot run {problem}: {reason}")]
    Illegal {
        /// What was asked.
        problem: Box<Problem>,
        /// How it was to be done.
        variant: Box<Variant>,
        /// Why not.
        reason: Illegal,
    },
    /// A tensor whose size contradicts another's.
    #[error("the {dimension} of {tensor} is {found}; that of {other} is {expected}, and they must be equal")]
    Mismatch {
        /// The tensor.
        tensor: &'static str,
        /// Which of its dimensions.
        dimension: &'static str,
        /// Its size.
        found: u32,
        /// The tensor that it contradicts.
        other: &'static str,
        /// The size there.
        expected: u32,
    },
    /// A tensor whose elements are of another type than those of Q, or of one that no kernel takes.
    #[error("the elements of {tensor} are {found}; {allowed} is allowed")]
    Element {
        /// The tensor.
        tensor: &'static str,
        /// Their type.
        found: crate::tensor::Element,
        /// What they may be.
        allowed: &'static str,
    },
    /// Parts to merge whose number is not whole.
    #[error("the batch of the parts is {found}; a multiple of that of O, {batch}, is allowed")]
    Parts {
        /// Batch of the parts, stacked.
        found: u32,
        /// Batch of O.
        batch: u32,
    },
    /// Strides that are negative, or that span more bytes than there are addresses.
    #[error("{tensor} cannot lie in memory so: {layout:?}; strides of at least 0 are allowed")]
    Strides {
        /// The tensor.
        tensor: &'static str,
        /// Its layout.
        layout: Layout,
    },
    /// Rows of a tensor that is written share memory.
    #[error("rows of {tensor} overlap: {layout:?}; each stride must reach past what the smaller ones span")]
    Overlap {
        /// O, or K or V of a cache.
        tensor: &'static str,
        /// Its layout.
        layout: Layout,
    },
    /// The kernel's code cannot be had.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The kernel's code was made of other sources than this library.
    #[error(
        "the kernel {kernel} takes arguments of {found:?} B, this library passes {expected:?} B: one is of older sources"
    )]
    Interface {
        /// The kernel.
        kernel: Box<Kernel>,
        /// What it takes.
        found: Vec<usize>,
        /// What it would be given.
        expected: Vec<usize>,
    },
    /// A tensor does not start where the kernel's loads need it to.
    #[error("{tensor} is at address {address:#x}; a multiple of {needed} is needed, and not 0")]
    Misaligned {
        /// Q, K, V, O or LSE.
        tensor: &'static str,
        /// Its address.
        address: u64,
        /// What divides a good address.
        needed: u64,
    },
    /// A tensor has another layout than the problem says.
    #[error("{tensor} is {found:?}, the problem has {expected:?}")]
    Layout {
        /// Q, K, V, O or LSE.
        tensor: &'static str,
        /// What it is.
        found: Layout,
        /// What it should be.
        expected: Layout,
    },
    /// An array that a feature of the problem reads was not given.
    #[error("{what} are missing: {problem} needs them; give them to the launch as `Extras`")]
    Missing {
        /// The array.
        what: &'static str,
        /// The problem.
        problem: Box<Problem>,
    },
    /// An array was given that the problem does not read.
    #[error("{what} were given, but {problem} has none")]
    Unasked {
        /// The array.
        what: &'static str,
        /// The problem.
        problem: Box<Problem>,
    },
    /// An array is too small for the problem.
    #[error("{what} have {found} B; at least {needed} B are needed")]
    Short {
        /// The array.
        what: &'static str,
        /// Its size in bytes.
        found: u64,
        /// What a kernel may read, in bytes.
        needed: u64,
    },
    /// An array that is written shares memory with one that is read.
    #[error(
        "{what} overlap {other}; they must be an array of their own, since some blocks write while others still read"
    )]
    InPlace {
        /// What is written.
        what: &'static str,
        /// What is read.
        other: &'static str,
    },
    /// A stream or tensor belongs to another GPU than the plan.
    #[error("of another GPU than the plan: {what}, on {gpu}; the plan is on {plan}")]
    OtherGpu {
        /// The stream or tensor.
        what: &'static str,
        /// UUID of its GPU.
        gpu: String,
        /// UUID of the plan's GPU.
        plan: String,
    },
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

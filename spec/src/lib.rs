//! Plain data that the kernels and the host agree on.
//!
//! * [`Problem`] says *what* is asked: shapes, strides, dtype, mask.
//! * [`Variant`] says *how*: a kernel [`Family`] and a value for each of its genes.
//! * [`legal()`] is the only place that decides whether the two fit a GPU, and with which launch geometry.
//! * [`defaults()`] names the variants to take where nobody has searched.
//! * [`AttentionArgs`] is what every attention kernel receives.
//! * [`Append`] is what is asked of the one kernel that computes nothing, but fills a K/V cache.
//!
//! `no_std` and without allocation, so that the kernels can use it as it is.
#![no_std]

mod append;
mod args;
mod defaults;
mod device;
mod divisor;
mod dtype;
mod family;
mod features;
mod gene;
mod kernel;
pub mod layout;
mod legal;
mod map;
mod parse;
mod problem;
mod variant;

pub use append::{APPEND_ALIGNMENT, APPEND_LANES, APPEND_THREADS, Append, AppendAddresses, AppendArgs};
pub use args::{
    AttentionArgs, BlockOrder, BlockWalk, GroupDivisors, MapBoxes, MappedArgs, Strides, TensorMaps, TileOrder,
};
pub use defaults::defaults;
pub use device::{DeviceLimits, Sm};
pub use divisor::Divisor;
pub use dtype::Dtype;
pub use family::Family;
pub use features::{
    Band, Bias, Extra, ExtraAddresses, FeatureArgs, FeaturedArgs, Features, LARGEST_LOGIT, MatrixStrides, Pages, Window,
};
pub use gene::{Domain, Effect, Gene, Theme};
pub use kernel::{AttentionKernel, Kernel, LaunchBounds};
pub use legal::{FULL_DIAGONAL, Illegal, LaunchGeometry, MAX_SEQLEN, legal};
pub use map::PlainMap;
pub use parse::ParseError;
pub use problem::{Align, Mask, Problem, TensorStrides};
pub use variant::Variant;

//! The kernels: each file wires the parts of [`crate::attention`] into one algorithm.

pub mod decode;
pub mod mma;
pub mod tiled;
pub mod wgmma;
pub mod wgmma_split;

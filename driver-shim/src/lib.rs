//! The CUDA driver's symbols, resolved from `libcuda.so.1` at first use.
//!
//! A program that links the CUDA driver cannot start where there is none. This crate defines the symbols itself: each is
//! a jump through a slot that at first leads to the resolver and from then on to the driver's own function. One binary
//! so starts everywhere; without a driver every call returns `CUDA_ERROR_NO_DEVICE`, and [`available`] says why.
//!
//! A binary gets the symbols by depending on this crate and naming it once (`use driver_shim as _;` will do). Crates that
//! bind the driver often refuse to build where they see no CUDA installation: the folder `cuda/` next to this
//! crate's manifest looks like one (set `CUDA_LIBRARY_PATH` to it in `.cargo/config.toml`).

mod library;
mod symbols;
mod trampoline;

pub use library::{NoDriver, available};

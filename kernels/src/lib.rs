//! Attention kernels.
//!
//! * [`gpu`] is the machine: every file has one surface and two bodies, PTX and the CPU machine.
//! * [`tile`] maps rows, columns and lanes onto it.
//! * [`attention`] holds the steps of the algorithm, one concern per file.
//! * [`family`] wires them into kernels.
//! * [`append`] fills the K/V cache that attention reads.
//! * [`entry!`] stamps an exported entry point for a variant.
#![cfg_attr(feature = "probes", doc = "* [`probes`] tests every operation of [`gpu`] on its own.")]
#![cfg_attr(feature = "fixtures", doc = "* [`fixtures`] are hostile kernels, for tests of those who run kernels.")]
#![no_std]
#![cfg_attr(
    target_arch = "nvptx64",
    feature(abi_unadjusted, asm_experimental_arch, core_intrinsics, link_llvm_intrinsics, stdarch_nvptx),
    // The codegen's own surface: there is no stable name for it.
    allow(internal_features)
)]
#![cfg_attr(all(target_arch = "nvptx64", feature = "probes"), feature(abi_ptx))]

// What probes expect is worked out on the host.
#[cfg(all(feature = "probes", not(target_arch = "nvptx64")))]
extern crate std;

pub mod append;
pub mod attention;
mod entry;
pub mod family;
#[cfg(feature = "fixtures")]
pub mod fixtures;
pub mod gpu;
#[cfg(feature = "probes")]
pub mod probes;
pub mod tile;

#[cfg(not(target_arch = "nvptx64"))]
#[doc(hidden)]
pub use simt;
#[doc(hidden)]
pub use spec;
pub use spec::{AppendArgs, AttentionArgs, FeatureArgs, FeaturedArgs, MappedArgs, TensorMaps};

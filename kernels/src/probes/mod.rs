//! One tiny entry point per operation of [`gpu`](crate::gpu), and what it must give.
//!
//! On the GPU each probe is a kernel under its own name. Elsewhere it is a row of [`all`]: a function for the CPU machine,
//! its input, and the output that is expected of it on whatever ran it. Expectations are worked out anew, by the
//! definition of the operation, and not with the CPU machine's own arithmetic.

mod barrier;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
mod cluster;
mod copy;
mod element;
#[cfg(not(target_arch = "nvptx64"))]
mod expect;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
mod grid;
mod math;
mod matrix;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
mod mbarrier;
mod memory;
mod thread;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
mod tma;
mod warp;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
mod wgmma;

#[cfg(not(target_arch = "nvptx64"))]
pub use expect::{Agreement, POISON, Probe, all};

use crate::gpu::Global;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
use crate::gpu::TensorMap;

/// The one argument of every probe, passed by value.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Args {
    /// Address of the input.
    pub input: u64,
    /// Address of the output.
    pub output: u64,
    /// Address of the input's tensor map, a multiple of 64; 0 for probes that take none.
    pub map: u64,
}

impl Args {
    /// The 32-bit word `index` of the input.
    #[inline(always)]
    fn input(&self, index: u32) -> Global {
        Global::new(self.input).at(i64::from(index) * 4)
    }

    /// The 32-bit word `index` of the output.
    #[inline(always)]
    fn output(&self, index: u32) -> Global {
        Global::new(self.output).at(i64::from(index) * 4)
    }

    /// The input's tensor map.
    #[cfg(target_feature = "sm_90a")]
    #[inline(always)]
    fn map(&self) -> TensorMap {
        let [map, ..] = TensorMap::three_at(self.map);
        map
    }

    /// The input's tensor map, which the CPU machine has as a [`spec::PlainMap`].
    #[cfg(not(target_arch = "nvptx64"))]
    fn map(&self) -> TensorMap {
        let words = core::array::from_fn(|i| {
            let [low, high] = Global::new(self.map).at(i as i64 * 8).load_pair();
            u64::from(low) | u64::from(high) << 32
        });
        let [map, ..] = TensorMap::three_of(&spec::TensorMaps([words; 3]));
        map
    }

    /// The fp32 `index` of the input.
    #[inline(always)]
    fn load_f32(&self, index: u32) -> f32 {
        f32::from_bits(self.input(index).load_u32())
    }
}

/// Exports a function of [`Args`] as an entry point.
macro_rules! probe {
    ($name:ident, |$args:ident| $body:block) => {
        #[cfg(target_arch = "nvptx64")]
        #[unsafe(no_mangle)]
        extern "ptx-kernel" fn $name($args: $crate::probes::Args) $body

        #[cfg(not(target_arch = "nvptx64"))]
        pub(super) fn $name($args: $crate::probes::Args) $body
    };
}
use probe;

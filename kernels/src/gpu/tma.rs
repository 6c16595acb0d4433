//! The copy engine (TMA): boxes of a tensor to shared memory (sm_90).

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use super::{Mbarrier, Shared};

/// A tensor map of 128 bytes that the host made: `[batch, head, row, column]` with a box of one head's rows by 64 columns.
#[derive(Clone, Copy, Debug)]
pub struct TensorMap(#[cfg(target_arch = "nvptx64")] u64, #[cfg(not(target_arch = "nvptx64"))] simt::TensorMap);

impl TensorMap {
    /// The maps that lie one after the other from an address on: those of a kernel's [`spec::TensorMaps`].
    #[cfg(target_arch = "nvptx64")]
    #[inline(always)]
    pub fn three_at(address: u64) -> [Self; 3] {
        [0, 128, 256].map(|offset| Self(address + offset))
    }

    /// The maps of a kernel's argument.
    #[cfg(not(target_arch = "nvptx64"))]
    pub fn three_of(maps: &spec::TensorMaps) -> [Self; 3] {
        maps.0.map(|words| {
            let spec::PlainMap { address, extents, strides, box_rows } = spec::PlainMap::from_words(&words);
            Self(simt::TensorMap { address, extents, strides, rows: box_rows })
        })
    }

    /// Fetches the map itself, so that the first copy does not wait for it.
    #[inline(always)]
    pub fn prefetch(self) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: the host keeps the map alive during the launch; so for all accesses here.
        unsafe {
            asm!("prefetch.tensormap [{0}];", in(reg64) self.0, options(nostack));
        }
    }

    /// Starts copying the box at `[batch, head, row, column]` to shared memory, in the permutation of 128-byte rows that
    /// [`super::wgmma`] reads; `to` is aligned to 1024 bytes. What lies outside the tensor becomes zeros, and counts for
    /// the barrier all the same.
    #[inline(always)]
    pub fn load(self, to: Shared, barrier: Mbarrier, [batch, head, row, column]: [u32; 4]) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: layouts keep the box inside shared memory.
        unsafe {
            asm!("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes \
                    [{0}], [{1}, {{{2}, {3}, {4}, {5}}}], [{6}];",
                in(reg32) to.address(), in(reg64) self.0, in(reg32) column, in(reg32) row, in(reg32) head,
                in(reg32) batch, in(reg32) barrier.address(), options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::tma_load(to.address(), &self.0, barrier.address(), [column, row, head, batch]);
    }

    /// Like [`Self::load`], to every block of the cluster whose rank is a set bit of `blocks`; they have started and still
    /// run. The box lands at the same place in the shared memory of each, and counts for the barrier at the same place
    /// there.
    #[inline(always)]
    pub fn load_multicast(self, to: Shared, barrier: Mbarrier, [batch, head, row, column]: [u32; 4], blocks: u16) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: layouts keep the box inside shared memory, of each of the blocks.
        unsafe {
            asm!("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster \
                    [{0}], [{1}, {{{2}, {3}, {4}, {5}}}], [{6}], {7};",
                in(reg32) to.address(), in(reg64) self.0, in(reg32) column, in(reg32) row, in(reg32) head,
                in(reg32) batch, in(reg32) barrier.address(), in(reg16) blocks, options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::tma_load_multicast(to.address(), &self.0, barrier.address(), [column, row, head, batch], blocks);
    }
}

/// The tensor maps that are the second argument of the kernel `$symbol`, which stays where it is during the launch.
#[cfg(target_arch = "nvptx64")]
#[doc(hidden)]
#[macro_export]
macro_rules! tensor_maps {
    ($symbol:ident) => {{
        let address: u64;
        // SAFETY: takes an address.
        unsafe {
            core::arch::asm!(
                concat!("mov.b64 {0}, ", stringify!($symbol), "_param_1;"),
                "cvta.param.u64 {0}, {0};",
                out(reg64) address,
                options(pure, nomem, nostack)
            );
        }
        $crate::gpu::TensorMap::three_at(address)
    }};
}

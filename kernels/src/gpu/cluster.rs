//! Clusters: blocks that run together and write each other's shared memory (sm_90).

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use super::Shared;

#[cfg(target_arch = "nvptx64")]
unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.barrier.cluster.arrive.aligned"]
    fn cluster_arrive();
    #[link_name = "llvm.nvvm.barrier.cluster.wait.aligned"]
    fn cluster_wait();
}

/// Index of this block in its cluster.
#[inline(always)]
pub fn cluster_rank() -> u32 {
    #[cfg(target_arch = "nvptx64")]
    {
        let rank: u32;
        // SAFETY: reads a special register.
        unsafe { asm!("mov.u32 {0}, %cluster_ctarank;", out(reg32) rank, options(pure, nomem, nostack)) };
        rank
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::cluster_rank()
}

/// Says that this thread has come here; its writes before it are visible to those past [`wait_cluster`].
#[inline(always)]
pub fn arrive_cluster() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: all threads of the cluster arrive.
    unsafe {
        cluster_arrive();
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::cluster_arrive();
}

/// Waits until all threads of the cluster have arrived.
#[inline(always)]
pub fn wait_cluster() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: every thread has arrived before.
    unsafe {
        cluster_wait();
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::cluster_wait();
}

/// An address in the shared memory of a block of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct ClusterShared(u32);

impl ClusterShared {
    /// Where `address` lies in the block of this rank.
    #[inline(always)]
    pub fn of(rank: u32, address: Shared) -> Self {
        #[cfg(target_arch = "nvptx64")]
        {
            let mapped: u32;
            // SAFETY: computes an address.
            unsafe {
                asm!("mapa.shared::cluster.u32 {0}, {1}, {2};", out(reg32) mapped, in(reg32) address.address(),
                    in(reg32) rank, options(pure, nomem, nostack));
            }
            Self(mapped)
        }
        #[cfg(not(target_arch = "nvptx64"))]
        Self(simt::map_cluster(address.address(), rank))
    }

    /// The address as the instructions take it.
    #[inline(always)]
    pub(super) fn address(self) -> u32 {
        self.0
    }

    /// The address `bytes` further on in the same block.
    #[inline(always)]
    pub fn at(self, bytes: u32) -> Self {
        Self(self.0 + bytes)
    }

    /// Stores 8 bytes.
    #[inline(always)]
    pub fn store_pair(self, [a, b]: [u32; 2]) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: the layout keeps the address inside that block's shared memory, and the block is still there.
        unsafe {
            asm!("st.shared::cluster.v2.b32 [{0}], {{{1}, {2}}};", in(reg32) self.0, in(reg32) a, in(reg32) b,
                options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::store_cluster(self.0, (u64::from(a) | u64::from(b) << 32).to_le_bytes());
    }
}

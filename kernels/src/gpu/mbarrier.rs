//! `mbarrier`: barriers in shared memory that count arrivals and bytes of asynchronous copies (sm_90).

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use spec::layout::BARRIER;

use super::{ClusterShared, Shared};

/// A barrier of 8 bytes in shared memory. It goes through phases: a phase ends when all arrivals and all expected bytes
/// are there. Phases have parity 0, 1, 0, ...
#[derive(Clone, Copy, Debug)]
pub struct Mbarrier(Shared);

/// Tries until the barrier's phase of a parity is over.
#[cfg(target_arch = "nvptx64")]
macro_rules! wait_until {
    ($instruction:literal, $barrier:expr, $parity:expr) => {
        loop {
            let over: u32;
            // SAFETY: the layout keeps the barrier inside shared memory.
            unsafe {
                asm!(concat!("{{ .reg .pred p; ", $instruction, " p, [{1}], {2}; selp.u32 {0}, 1, 0, p; }}"),
                    out(reg32) over, in(reg32) $barrier.address(), in(reg32) $parity, options(nostack));
            }
            if over != 0 {
                break;
            }
        }
    };
}

impl Mbarrier {
    /// The barrier at an address.
    #[inline(always)]
    pub fn new(at: Shared) -> Self {
        Self(at)
    }

    /// The barrier `index` places further on.
    #[inline(always)]
    pub fn at(self, index: u32) -> Self {
        Self(self.0.at(index * BARRIER))
    }

    /// Its address as the instructions take it.
    #[inline(always)]
    pub(super) fn address(self) -> u32 {
        self.0.address()
    }

    /// Prepares the barrier for phases of `arrivals` arrivals. One thread does it, then calls [`publish_mbarriers`].
    #[inline(always)]
    pub fn init(self, arrivals: u32) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: the layout keeps the barrier inside shared memory; so for all accesses here.
        unsafe {
            asm!("mbarrier.init.shared::cta.b64 [{0}], {1};",
                in(reg32) self.address(), in(reg32) arrivals, options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::mbarrier_init(self.address(), arrivals);
    }

    /// Arrives, and lets the phase wait for `bytes` of copies too.
    #[inline(always)]
    pub fn arrive_expecting(self, bytes: u32) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `init`.
        unsafe {
            asm!("mbarrier.arrive.expect_tx.shared::cta.b64 _, [{0}], {1};",
                in(reg32) self.address(), in(reg32) bytes, options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::mbarrier_arrive_expecting(self.address(), bytes);
    }

    /// Arrives.
    #[inline(always)]
    pub fn arrive(self) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `init`.
        unsafe {
            asm!("mbarrier.arrive.shared::cta.b64 _, [{0}];", in(reg32) self.address(), options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::mbarrier_arrive(self.address());
    }

    /// Arrives at the barrier at the same place in the block of this rank in the cluster, which has started and still runs.
    /// Those that wait there with [`Self::wait_for_peers`] see what this thread did before. That takes a fence over the GPU:
    /// one thread had better arrive for many.
    #[inline(always)]
    pub fn arrive_at(self, rank: u32) {
        let remote = ClusterShared::of(rank, self.0);
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `init`, and the block is still there.
        unsafe {
            asm!("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [{0}];",
                in(reg32) remote.address(), options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::mbarrier_arrive_cluster(remote.address());
    }

    /// Waits until the phase of this parity is over, and sees what threads of this block did before they arrived, and what
    /// copies brought, whoever started them.
    #[inline(always)]
    pub fn wait(self, parity: u32) {
        #[cfg(target_arch = "nvptx64")]
        wait_until!("mbarrier.try_wait.parity.shared::cta.b64", self, parity);
        #[cfg(not(target_arch = "nvptx64"))]
        simt::mbarrier_wait(self.address(), parity);
    }

    /// The same where blocks of the cluster [arrive](Self::arrive_at), and sees what their threads did before, too.
    #[inline(always)]
    pub fn wait_for_peers(self, parity: u32) {
        // Without a scope PTX takes that of the block, which orders nothing that another block's thread did.
        #[cfg(target_arch = "nvptx64")]
        wait_until!("mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64", self, parity);
        #[cfg(not(target_arch = "nvptx64"))]
        simt::mbarrier_wait_cluster(self.address(), parity);
    }
}

/// Lets the copy engine, products and other blocks of the cluster see barriers that this thread initialised and whatever else
/// it stored to shared memory; threads of the block need a barrier after it.
#[inline(always)]
pub fn publish_mbarriers() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: orders memory, touches none.
    unsafe {
        asm!("fence.mbarrier_init.release.cluster;", options(nostack));
    }
    publish_shared();
}

/// Lets the copy engine and products see, and overwrite, whatever this thread stored to shared memory.
#[inline(always)]
pub fn publish_shared() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: orders memory, touches none.
    unsafe {
        asm!("fence.proxy.async.shared::cta;", options(nostack));
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::fence_proxy_async();
}

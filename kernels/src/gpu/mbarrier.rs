//! `mbarrier`: barriers in shared memory that count arrivals and bytes of asynchronous copies (sm_90).

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use spec::layout::BARRIER;

use super::Shared;

/// A barrier of 8 bytes in shared memory. It goes through phases: a phase ends when all arrivals and all expected bytes
/// are there. Phases have parity 0, 1, 0, ...
#[derive(Clone, Copy, Debug)]
pub struct Mbarrier(Shared);

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

    /// Waits until the phase of this parity is over.
    #[inline(always)]
    pub fn wait(self, parity: u32) {
        #[cfg(target_arch = "nvptx64")]
        loop {
            let over: u32;
            // SAFETY: as for `init`.
            unsafe {
                asm!("{{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [{1}], {2}; selp.u32 {0}, 1, 0, p; }}",
                    out(reg32) over, in(reg32) self.address(), in(reg32) parity, options(nostack));
            }
            if over != 0 {
                break;
            }
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::mbarrier_wait(self.address(), parity);
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

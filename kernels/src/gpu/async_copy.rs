//! `cp.async`: copies of 16 bytes from global to shared memory that run beside the thread that issued them.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use super::{Global, Shared};

/// What L2 is told about a copy's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheHint {
    /// Nothing.
    None,
    /// Evict it last: other blocks read it again.
    EvictLast,
    /// Fetch all 128 bytes round it.
    Fetch128,
}

impl CacheHint {
    /// The hint of a gene value.
    pub const fn from_gene(value: u32) -> Self {
        match value {
            0 => Self::None,
            1 => Self::EvictLast,
            _ => Self::Fetch128,
        }
    }
}

/// Starts a copy of 16 bytes; with `valid` false nothing is read and zeros are written.
#[inline(always)]
pub fn copy_chunk(to: Shared, from: Global, valid: bool, hint: CacheHint) {
    let bytes = if valid { 16u32 } else { 0 };
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: layouts keep `to` inside shared memory, callers keep `from` inside the tensor; bytes are read only if valid.
    unsafe {
        match hint {
            CacheHint::None => asm!("cp.async.cg.shared.global [{0}], [{1}], 16, {2};",
                in(reg32) to.address(), in(reg64) from.address(), in(reg32) bytes, options(nostack)),
            CacheHint::EvictLast => {
                let policy: u64;
                asm!("createpolicy.fractional.L2::evict_last.b64 {0}, 1.0;", out(reg64) policy,
                    options(pure, nomem, nostack));
                // The select is always taken. It keeps the assembler (13.0 and 13.5) from splitting the destination into
                // a register and a uniform register: with a policy it encodes that wrongly, and the GPU refuses it.
                asm!("{{ .reg .pred p; .reg .b32 to; setp.ne.u64 p, {1}, 0; selp.b32 to, {0}, 0, p;",
                    "cp.async.cg.shared.global.L2::cache_hint [to], [{1}], 16, {2}, {3}; }}",
                    in(reg32) to.address(), in(reg64) from.address(), in(reg32) bytes, in(reg64) policy,
                    options(nostack));
            }
            CacheHint::Fetch128 => asm!("cp.async.cg.shared.global.L2::128B [{0}], [{1}], 16, {2};",
                in(reg32) to.address(), in(reg64) from.address(), in(reg32) bytes, options(nostack)),
        }
    }
    #[cfg(not(target_arch = "nvptx64"))]
    {
        // The CPU machine has no L2 to advise.
        let _ = hint;
        simt::cp_async(to.address(), from.address(), 16, bytes);
    }
}

/// Closes the group of copies this thread has started since the last `commit`.
#[inline(always)]
pub fn commit() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: touches no memory.
    unsafe {
        asm!("cp.async.commit_group;", options(nostack));
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::cp_async_commit();
}

/// Waits until at most `pending` of this thread's groups are under way; `pending` must be known at compile time. Other
/// threads need a barrier after it.
#[inline(always)]
pub fn wait(pending: u32) {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: touches no memory but what the copies write.
    unsafe {
        match pending {
            1 => asm!("cp.async.wait_group 1;", options(nostack)),
            2 => asm!("cp.async.wait_group 2;", options(nostack)),
            3 => asm!("cp.async.wait_group 3;", options(nostack)),
            4 => asm!("cp.async.wait_group 4;", options(nostack)),
            5 => asm!("cp.async.wait_group 5;", options(nostack)),
            6 => asm!("cp.async.wait_group 6;", options(nostack)),
            // Waiting for more than was asked is never wrong.
            _ => asm!("cp.async.wait_group 0;", options(nostack)),
        }
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::cp_async_wait(pending);
}

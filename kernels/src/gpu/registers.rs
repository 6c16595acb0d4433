//! Moving registers between warpgroups (sm_90a).

/// Gives registers back: at most `COUNT` of them per thread from here on. The whole warpgroup runs it.
#[inline(always)]
pub fn shrink_registers<const COUNT: u32>() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: the compiler keeps to the count, or refuses.
    unsafe {
        core::arch::asm!("setmaxnreg.dec.sync.aligned.u32 {0};", const COUNT, options(nostack));
    }
}

/// Waits for registers that other warpgroups give back, then has `COUNT` of them per thread. The whole warpgroup runs it.
#[inline(always)]
pub fn grow_registers<const COUNT: u32>() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: as for `shrink_registers`.
    unsafe {
        core::arch::asm!("setmaxnreg.inc.sync.aligned.u32 {0};", const COUNT, options(nostack));
    }
}

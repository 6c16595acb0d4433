//! Grids of one stream that overlap (sm_90).

/// What a grid does first that may have been launched early: it lets the next one come, and waits for those before it.
#[inline(always)]
pub fn overlap_grids() {
    let_later_grids_start();
    await_earlier_grids();
}

/// Lets the next grid of the stream start once every block of this one has come here or ended, if it was launched so. Its
/// blocks take what room there is, and wait in [`await_earlier_grids`].
#[inline(always)]
fn let_later_grids_start() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: touches nothing.
    unsafe {
        core::arch::asm!("griddepcontrol.launch_dependents;", options(nostack));
    }
}

/// Waits until the grids before this one in the stream are over and their writes can be seen. A grid that was launched early
/// must not touch global memory before.
#[inline(always)]
fn await_earlier_grids() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: only waits.
    unsafe {
        core::arch::asm!("griddepcontrol.wait;", options(nostack));
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::await_earlier_grids();
}

//! Who this thread is. Grids and blocks have one dimension.

/// Index of this thread in its block.
#[inline(always)]
pub fn thread_index() -> u32 {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: reads a special register.
    unsafe {
        core::arch::nvptx::_thread_idx_x()
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::thread_idx()
}

/// Index of this block in the grid.
#[inline(always)]
pub fn block_index() -> u32 {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: reads a special register.
    unsafe {
        core::arch::nvptx::_block_idx_x()
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::block_idx()
}

/// Blocks of the grid.
#[inline(always)]
pub fn grid_blocks() -> u32 {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: reads a special register.
    unsafe {
        core::arch::nvptx::_grid_dim_x()
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::grid_dim()
}

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

/// The same value, of which neither compiler knows anything: a loop up to it stays a loop, and what follows from it is not
/// worked out ahead of a branch that may never need it.
#[inline(always)]
pub fn opaque(value: u32) -> u32 {
    #[cfg(target_arch = "nvptx64")]
    {
        let same: u32;
        // SAFETY: adds the block's second index, which is 0 in a grid of one dimension; the assembler cannot know that.
        unsafe {
            core::arch::asm!("{{ .reg .b32 zero; mov.u32 zero, %ctaid.y; add.u32 {0}, {1}, zero; }}",
                out(reg32) same, in(reg32) value, options(nostack));
        }
        same
    }
    #[cfg(not(target_arch = "nvptx64"))]
    value
}

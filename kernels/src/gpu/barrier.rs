//! Barriers. On the GPU they are LLVM intrinsics: inline assembly is not convergent, and two barriers in opposite arms
//! of a branch would be merged.

#[cfg(target_arch = "nvptx64")]
unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.barrier.cta.sync.aligned.all"]
    fn barrier_all(id: u32);
    #[link_name = "llvm.nvvm.barrier.cta.sync.aligned.count"]
    fn barrier_count(id: u32, threads: u32);
    #[link_name = "llvm.nvvm.barrier.cta.arrive.aligned.count"]
    fn barrier_arrive(id: u32, threads: u32);
    #[link_name = "llvm.nvvm.bar.warp.sync"]
    fn warp_sync(mask: u32);
}

/// Waits for all threads of the block; their memory accesses before it are visible to all after it.
#[inline(always)]
pub fn sync_block() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: all threads of the block arrive here.
    unsafe {
        barrier_all(0);
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::barrier_sync(0, simt::block_dim());
}

/// Waits for the `threads` threads (whole warps) that name barrier `id`, 1 to 15; orders memory among them.
#[inline(always)]
pub fn sync_group(id: u32, threads: u32) {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: whole warps arrive, as many as `threads` says.
    unsafe {
        barrier_count(id, threads);
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::barrier_sync(id, threads);
}

/// Arrives at barrier `id` as one of `threads`, without waiting.
#[inline(always)]
pub fn arrive_group(id: u32, threads: u32) {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: as for `sync_group`.
    unsafe {
        barrier_arrive(id, threads);
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::barrier_arrive(id, threads);
}

/// Waits for all lanes of the warp; orders memory among them.
#[inline(always)]
pub fn sync_warp() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: all lanes arrive here.
    unsafe {
        warp_sync(u32::MAX);
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::sync_warp(u32::MAX);
}

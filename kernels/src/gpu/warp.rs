//! Exchange among the lanes of a warp. All 32 lanes take part.

#[cfg(target_arch = "nvptx64")]
unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.shfl.sync.bfly.f32"]
    fn shfl_bfly(mask: u32, value: f32, lane_mask: u32, clamp: u32) -> f32;
    #[link_name = "llvm.nvvm.shfl.sync.idx.i32"]
    fn shfl_idx(mask: u32, value: u32, lane: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.vote.any.sync"]
    fn vote_any(mask: u32, predicate: bool) -> bool;
}

/// The value of the lane whose index differs in the bits of `lane_mask`.
#[inline(always)]
pub fn shuffle_xor(value: f32, lane_mask: u32) -> f32 {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: all lanes arrive here.
    unsafe {
        shfl_bfly(u32::MAX, value, lane_mask, 31)
    }
    #[cfg(not(target_arch = "nvptx64"))]
    f32::from_bits(simt::shuffle_xor(u32::MAX, value.to_bits(), lane_mask))
}

/// Lane 0's value in all lanes. What is the same in a warp anyway becomes known to be: the assembler then keeps it, and
/// what follows from it, in uniform registers.
#[inline(always)]
pub fn uniform(value: u32) -> u32 {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: all lanes arrive here.
    unsafe {
        shfl_idx(u32::MAX, value, 0, 31)
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::shuffle_idx(u32::MAX, value, 0)
}

/// Whether `predicate` holds in any lane; the same answer in all.
#[inline(always)]
pub fn any_lane(predicate: bool) -> bool {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: all lanes arrive here.
    unsafe {
        vote_any(u32::MAX, predicate)
    }
    #[cfg(not(target_arch = "nvptx64"))]
    {
        simt::ballot(u32::MAX, predicate) != 0
    }
}

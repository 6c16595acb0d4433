//! `ldmatrix` and `stmatrix`: 8 x 8 matrices of 16-bit elements between shared memory and the fragments of [`Half::mma`].
//!
//! [`Half::mma`]: super::Half::mma

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use super::Shared;

/// Loads four matrices. Lane `8 i + r` gives the address of row `r` of matrix `i`; lane `l` receives of each matrix the
/// elements `2 (l % 4)` and the next of row `l / 4`.
#[inline(always)]
pub fn load_matrices(row: Shared) -> [u32; 4] {
    #[cfg(target_arch = "nvptx64")]
    {
        let (a, b, c, d): (u32, u32, u32, u32);
        // SAFETY: layouts keep the rows inside shared memory; the whole warp runs it, in straight-line code.
        unsafe {
            asm!("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{{0}, {1}, {2}, {3}}}, [{4}];",
                out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg32) row.address(), options(nostack));
        }
        [a, b, c, d]
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::ldmatrix::<4>(row.address(), false)
}

/// Like [`load_matrices`], each matrix transposed: lane `l` receives of column `l / 4` the elements `2 (l % 4)` and the
/// next.
#[inline(always)]
pub fn load_matrices_transposed(row: Shared) -> [u32; 4] {
    #[cfg(target_arch = "nvptx64")]
    {
        let (a, b, c, d): (u32, u32, u32, u32);
        // SAFETY: as for `load_matrices`.
        unsafe {
            asm!("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {{{0}, {1}, {2}, {3}}}, [{4}];",
                out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg32) row.address(), options(nostack));
        }
        [a, b, c, d]
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::ldmatrix::<4>(row.address(), true)
}

/// Stores four matrices (sm_90): the reverse of [`load_matrices`].
#[inline(always)]
pub fn store_matrices(row: Shared, [a, b, c, d]: [u32; 4]) {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: as for `load_matrices`.
    unsafe {
        asm!("stmatrix.sync.aligned.m8n8.x4.shared.b16 [{0}], {{{1}, {2}, {3}, {4}}};", in(reg32) row.address(),
            in(reg32) a, in(reg32) b, in(reg32) c, in(reg32) d, options(nostack));
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::stmatrix(row.address(), [a, b, c, d]);
}

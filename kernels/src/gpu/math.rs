//! Arithmetic that the kernels choose by instruction.

/// `a * b + c`, rounded once. Rust never contracts, so that it must be asked for.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(target_arch = "nvptx64")]
    {
        core::intrinsics::fmaf32(a, b, c)
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::fma(a, b, c)
}

/// `2^x` on the special-function unit, within 2 ulp; subnormal results are flushed to zero.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    #[cfg(target_arch = "nvptx64")]
    {
        let y: f32;
        // SAFETY: touches no memory.
        unsafe {
            core::arch::asm!("ex2.approx.ftz.f32 {0}, {1};", out(reg32) y, in(reg32) x, options(pure, nomem, nostack));
        }
        y
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::exp2(x)
}

/// `log2(x)` on the special-function unit, within 2^-22 of the truth near 1 and 1 ulp elsewhere.
#[inline(always)]
pub fn log2(x: f32) -> f32 {
    #[cfg(target_arch = "nvptx64")]
    {
        let y: f32;
        // SAFETY: touches no memory.
        unsafe {
            core::arch::asm!("lg2.approx.f32 {0}, {1};", out(reg32) y, in(reg32) x, options(pure, nomem, nostack));
        }
        y
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::log2(x)
}

/// `2^x` for `x <= 1` on the FMA units, within 3e-6 relative; below -126 it is 2^-126, also for -inf.
///
/// The integer part goes to the exponent by adding its bits, the rest through a polynomial (minimax on ±1/2).
#[inline(always)]
pub fn exp2_polynomial(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the sum.
    const MAGIC: f32 = 12_582_912.0;
    let x = x.max(-126.0);
    let shifted = x + MAGIC;
    let fraction = x - (shifted - MAGIC);
    let p = fma(9.570_1e-3, fraction, 5.591_786e-2);
    let p = fma(p, fraction, 2.402_474_5e-1);
    let p = fma(p, fraction, 6.931_218e-1);
    let p = fma(p, fraction, 9.999_992_6e-1);
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

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

/// Quotient and rest of `a / b`; `b` must not be zero.
#[inline(always)]
pub fn divide(a: u32, b: u32) -> (u32, u32) {
    // A check would bring a call of the panic machinery into the kernel.
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: the caller's promise.
    unsafe {
        core::hint::assert_unchecked(b != 0);
    }
    (a / b, a % b)
}

/// Four bytes of the eight of `low` and `high`: digit `i` of `DIGITS` in hexadecimal, the lowest first, says by its number which
/// one becomes byte `i`.
#[inline(always)]
pub fn pick_bytes<const DIGITS: u32>(low: u32, high: u32) -> u32 {
    #[cfg(target_arch = "nvptx64")]
    {
        let picked: u32;
        // SAFETY: touches no memory.
        unsafe {
            core::arch::asm!("prmt.b32 {0}, {1}, {2}, {3};", out(reg32) picked, in(reg32) low, in(reg32) high,
                const DIGITS, options(pure, nomem, nostack));
        }
        picked
    }
    #[cfg(not(target_arch = "nvptx64"))]
    {
        let bytes = (u64::from(high) << 32 | u64::from(low)).to_le_bytes();
        u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[(DIGITS >> (4 * i) & 7) as usize]))
    }
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

/// The hyperbolic tangent, within 2e-6 relative.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    const LOG2_E_TWICE: f32 = 2.0 * core::f32::consts::LOG2_E;
    let (size, square) = (x.abs(), x * x);
    let far = 1.0 - 2.0 / (1.0 + exp2(size * LOG2_E_TWICE));
    // Near zero the difference above loses what the series has: the terms left out are below 1e-8 there.
    let p = fma(62.0 / 2835.0, square, -17.0 / 315.0);
    let p = fma(p, square, 2.0 / 15.0);
    let p = fma(p, square, -1.0 / 3.0);
    let near = fma(x * square, p, x);
    if size < 0.25 { near } else { far.copysign(x) }
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

/// The larger of two; NaN if either is.
#[inline(always)]
fn max_nan(a: f32, b: f32) -> f32 {
    #[cfg(target_arch = "nvptx64")]
    {
        let larger: f32;
        // SAFETY: touches no memory.
        unsafe {
            core::arch::asm!("max.NaN.f32 {0}, {1}, {2};", out(reg32) larger, in(reg32) a, in(reg32) b,
                options(pure, nomem, nostack));
        }
        larger
    }
    #[cfg(not(target_arch = "nvptx64"))]
    if a.is_nan() || a > b { a } else { b }
}

/// `2^x` for `x < 128` on the FMA units, within 3e-6 relative; results below 2^-126 are subnormal or zero, NaN stays
/// NaN.
///
/// The rounded integer part becomes the exponent of a factor; a polynomial (minimax on ±1/2) gives the rest.
#[inline(always)]
pub fn exp2_polynomial(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the sum, here with the exponent's bias.
    const MAGIC: f32 = 12_582_912.0 + 127.0;
    let x = max_nan(x, -127.0);
    let shifted = x + MAGIC;
    let fraction = x - (shifted - MAGIC);
    let p = fma(9.570_1e-3, fraction, 5.591_786e-2);
    let p = fma(p, fraction, 2.402_474_5e-1);
    let p = fma(p, fraction, 6.931_218e-1);
    let p = fma(p, fraction, 9.999_993e-1);
    p * f32::from_bits(shifted.to_bits() << 23)
}

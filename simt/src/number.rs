//! Arithmetic as the GPU does it.

use half::{bf16, f16};

/// NaN as the GPU's conversions to 16 bits give it.
const NAN_16: u16 = 0x7fff;

/// Rounds to nearest even; a NaN becomes the GPU's one NaN.
#[inline]
pub fn f16_from_f32(value: f32) -> u16 {
    if value.is_nan() { NAN_16 } else { f16::from_f32(value).to_bits() }
}

/// Rounds to nearest even; a NaN becomes the GPU's one NaN.
#[inline]
pub fn bf16_from_f32(value: f32) -> u16 {
    if value.is_nan() { NAN_16 } else { bf16::from_f32(value).to_bits() }
}

/// Widens an fp16, exactly.
#[inline]
pub fn f32_from_f16(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

/// Widens a bf16, exactly.
#[inline]
pub fn f32_from_bf16(bits: u16) -> f32 {
    bf16::from_bits(bits).to_f32()
}

/// `a * b + c`, rounded once.
#[inline]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// `2^x` with subnormal results flushed to zero, like `ex2.approx.ftz`.
#[inline]
pub fn exp2(x: f32) -> f32 {
    let y = x.exp2();
    if y < f32::MIN_POSITIVE { 0.0 } else { y }
}

/// `log2(x)`: -inf at zero, NaN below it.
#[inline]
pub fn log2(x: f32) -> f32 {
    x.log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_round_to_nearest_even() {
        // Halfway between 1 and the next fp16 or bf16: down to even; just above: up.
        assert_eq!(f16_from_f32(1.0 + f32::powi(2.0, -11)), 0x3c00);
        assert_eq!(f16_from_f32(1.0 + 3.0 * f32::powi(2.0, -11)), 0x3c02);
        assert_eq!(bf16_from_f32(1.0 + f32::powi(2.0, -8)), 0x3f80);
        assert_eq!(bf16_from_f32(1.0 + 3.0 * f32::powi(2.0, -8)), 0x3f82);
    }

    #[test]
    fn conversions_at_the_edges() {
        assert_eq!(f16_from_f32(f32::NAN), 0x7fff);
        assert_eq!(bf16_from_f32(-f32::NAN), 0x7fff);
        assert_eq!(f16_from_f32(-0.0), 0x8000);
        assert_eq!(f16_from_f32(65520.0), 0x7c00);
        assert_eq!(f16_from_f32(65519.0), 0x7bff);
        assert_eq!(f16_from_f32(f32::powi(2.0, -24)), 1);
        assert_eq!(f32_from_f16(1), f32::powi(2.0, -24));
        assert_eq!(bf16_from_f32(f32::MAX), 0x7f80);
        assert_eq!(f32_from_bf16(0xff80), f32::NEG_INFINITY);
    }

    #[test]
    fn exp2_flushes_and_log2_has_the_limits() {
        assert_eq!(exp2(-126.0), f32::MIN_POSITIVE);
        assert_eq!(exp2(-126.5), 0.0);
        assert_eq!(exp2(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp2(f32::INFINITY), f32::INFINITY);
        assert!(exp2(f32::NAN).is_nan());
        assert_eq!(log2(0.0), f32::NEG_INFINITY);
        assert!(log2(-1.0).is_nan());
    }

    #[test]
    fn fma_rounds_once() {
        let x = 1.0 + f32::EPSILON;
        assert_eq!(fma(x, x, -(1.0 + 2.0 * f32::EPSILON)), f32::EPSILON * f32::EPSILON);
    }
}

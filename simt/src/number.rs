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

/// The largest e4m3.
const E4M3_MAX: f32 = 448.0;
/// NaN as e4m3 has it, with either sign.
const E4M3_NAN: u8 = 0x7f;
/// The smallest e4m3 above zero, of which subnormal ones are multiples.
const E4M3_UNIT: f32 = 1.0 / 512.0;
/// What the exponents of fp32 and e4m3 differ by.
const E4M3_BIAS: u32 = 127 - 7;

/// Rounds to nearest even; what is larger than the largest, infinity too, becomes the largest, and a NaN the GPU's one NaN.
#[inline]
pub fn e4m3_from_f32(value: f32) -> u8 {
    if value.is_nan() {
        return E4M3_NAN;
    }
    let size = value.abs().min(E4M3_MAX);
    let magnitude = if size < 8.0 * E4M3_UNIT {
        (size / E4M3_UNIT).round_ties_even() as u8
    } else {
        // Of 23 fraction bits 3 stay; what is carried goes on to the exponent.
        let bits = size.to_bits();
        let rounded = (bits + 0x7_ffff + (bits >> 20 & 1)) >> 20;
        (rounded - (E4M3_BIAS << 3)) as u8
    };
    magnitude | u8::from(value.is_sign_negative()) << 7
}

/// Widens an e4m3, exactly.
#[inline]
pub fn f32_from_e4m3(bits: u8) -> f32 {
    let magnitude = bits & 0x7f;
    let size = match magnitude {
        E4M3_NAN => f32::NAN,
        0..8 => f32::from(magnitude) * E4M3_UNIT,
        _ => f32::from_bits((u32::from(magnitude) << 20) + (E4M3_BIAS << 23)),
    };
    if bits >> 7 == 1 { -size } else { size }
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

    /// The value by the format's definition.
    fn e4m3(bits: u8) -> f64 {
        let (sign, exponent, fraction) = (bits >> 7, i32::from(bits >> 3 & 15), f64::from(bits & 7));
        let size = match (exponent, bits & 7) {
            (15, 7) => f64::NAN,
            (0, _) => fraction / 8.0 * 2f64.powi(-6),
            _ => (1.0 + fraction / 8.0) * 2f64.powi(exponent - 7),
        };
        if sign == 1 { -size } else { size }
    }

    #[test]
    fn every_e4m3_is_widened_and_comes_back() {
        for bits in 0..=255 {
            let wide = f32_from_e4m3(bits);
            assert!(f64::from(wide) == e4m3(bits) || wide.is_nan() && e4m3(bits).is_nan(), "{bits:#x}");
            let back = if wide.is_nan() { 0x7f } else { bits };
            assert_eq!(e4m3_from_f32(wide), back, "{bits:#x}");
        }
    }

    #[test]
    fn e4m3_rounds_to_nearest_even_everywhere() {
        for (low, high) in (0..0x7e).map(|bits| (bits, bits + 1)) {
            let tie = ((e4m3(low) + e4m3(high)) / 2.0) as f32;
            let (below, above) = (f32::from_bits(tie.to_bits() - 1), f32::from_bits(tie.to_bits() + 1));
            let even = if low % 2 == 0 { low } else { high };
            for (value, expected) in [(below, low), (tie, even), (above, high)] {
                assert_eq!(e4m3_from_f32(value), expected, "{value}");
                assert_eq!(e4m3_from_f32(-value), expected | 0x80, "-{value}");
            }
        }
        for beyond in [448.0, 464.0, 1e10, f32::INFINITY] {
            assert_eq!((e4m3_from_f32(beyond), e4m3_from_f32(-beyond)), (0x7e, 0xfe));
        }
        assert_eq!(e4m3_from_f32(-f32::NAN), 0x7f);
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

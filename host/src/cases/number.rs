//! Elements on the host.

use half::{bf16, f16};
use spec::Dtype;

/// The smallest e4m3 above zero.
const E4M3_MIN_POSITIVE_SUBNORMAL: f64 = 1.0 / 512.0;
/// From one to the next e4m3.
const E4M3_EPSILON: f64 = 1.0 / 8.0;

/// The bits of the element nearest to `value`, ties to even, in the low half or quarter where it has but 16 or 8. What lies
/// beyond the largest e4m3 becomes that.
pub fn encode(dtype: Dtype, value: f32) -> u32 {
    match dtype {
        Dtype::F16 => f16::from_f32(value).to_bits().into(),
        Dtype::Bf16 => bf16::from_f32(value).to_bits().into(),
        Dtype::F32 => value.to_bits(),
        Dtype::E4m3 => simt::e4m3_from_f32(value).into(),
    }
}

/// The value of the element of these bits.
pub fn decode(dtype: Dtype, bits: u32) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_bits(bits as u16).to_f32(),
        Dtype::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        Dtype::F32 => f32::from_bits(bits),
        Dtype::E4m3 => simt::f32_from_e4m3(bits as u8),
    }
}

/// The lowest finite number.
pub fn lowest(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F16 => f16::MIN.to_f32(),
        Dtype::Bf16 => bf16::MIN.to_f32(),
        Dtype::F32 => f32::MIN,
        Dtype::E4m3 => simt::f32_from_e4m3(0xfe),
    }
}

/// Distance between neighbouring elements around a finite `value`, at most: `|value|` times the relative precision, without
/// the steps at powers of two.
pub fn ulp(dtype: Dtype, value: f64) -> f64 {
    let (epsilon, smallest) = match dtype {
        Dtype::F16 => (f16::EPSILON.to_f64(), f16::MIN_POSITIVE_SUBNORMAL.to_f64()),
        Dtype::Bf16 => (bf16::EPSILON.to_f64(), bf16::MIN_POSITIVE_SUBNORMAL.to_f64()),
        Dtype::F32 => (f32::EPSILON.into(), f32::from_bits(1).into()),
        Dtype::E4m3 => (E4M3_EPSILON, E4M3_MIN_POSITIVE_SUBNORMAL),
    };
    (value.abs() * epsilon).max(smallest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulp_covers_the_distance_to_the_next_element() {
        for dtype in Dtype::ALL {
            let large = -lowest(dtype) * 0.9;
            for value in [0.0, 1.0, 1.5, 3.9, 0.001, large.min(60_000.0), 3e-7] {
                let bits = encode(dtype, value);
                let (here, next) = (decode(dtype, bits), decode(dtype, bits + 1));
                let (distance, ulp) = (f64::from(next) - f64::from(here), ulp(dtype, f64::from(here)));
                assert!(distance <= ulp && ulp < 2.0 * distance, "{dtype:?} {value}");
            }
        }
    }
}

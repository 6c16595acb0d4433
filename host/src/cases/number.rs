//! 16-bit elements on the host.

use half::{bf16, f16};
use spec::Dtype;

/// The element nearest to `value`, ties to even.
pub fn encode(dtype: Dtype, value: f32) -> u16 {
    match dtype {
        Dtype::F16 => f16::from_f32(value).to_bits(),
        Dtype::Bf16 => bf16::from_f32(value).to_bits(),
    }
}

/// The value of an element.
pub fn decode(dtype: Dtype, bits: u16) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_bits(bits).to_f32(),
        Dtype::Bf16 => bf16::from_bits(bits).to_f32(),
    }
}

/// Distance between the elements next to a finite `value` (the smallest one if they are subnormal).
pub fn ulp(dtype: Dtype, value: f64) -> f64 {
    let (fraction_bits, smallest_exponent) = match dtype {
        Dtype::F16 => (10, -14),
        Dtype::Bf16 => (7, -126),
    };
    let exponent = if value == 0.0 { smallest_exponent } else { value.abs().log2().floor() as i32 };
    f64::from(exponent.max(smallest_exponent) - fraction_bits).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulp_is_the_distance_to_the_next_element() {
        for dtype in Dtype::ALL {
            for value in [0.0, 1.0, 1.5, 3.9, 0.001, 60_000.0, 3e-7] {
                let bits = encode(dtype, value);
                let (here, next) = (decode(dtype, bits), decode(dtype, bits + 1));
                assert_eq!(ulp(dtype, f64::from(here)), f64::from(next) - f64::from(here), "{dtype:?} {value}");
            }
        }
    }
}

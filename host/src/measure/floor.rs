//! The fewest microseconds a problem can take on a GPU. Whatever is faster did not do the work.
//!
//! Every figure is the highest that holds for its class, at the highest clock: a floor may be low, it must not be too high.

use spec::Problem;

use crate::driver::Rates;

/// Peaks of one multiprocessor in one clock cycle.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PerCycle {
    /// Dense 16-bit floating-point operations of the tensor cores, fp32 accumulation (a multiply-add is two).
    flops: f64,
    /// Exponentials: those of the special-function units, and polynomials on the FMA units beside them.
    exponentials: f64,
}

/// A polynomial exponential needs at least a range reduction, a cubic and an exponent shift: six instructions on
/// the FMA lanes.
const INSTRUCTIONS_PER_POLYNOMIAL: f64 = 6.0;

/// Special-function results per cycle, CUDA C++ Programming Guide, "Arithmetic Instructions": 16 on 8.x and later.
const SPECIAL_PER_CYCLE: f64 = 16.0;

impl PerCycle {
    const fn new(flops: f64, fp32_lanes: f64) -> Self {
        Self { flops, exponentials: SPECIAL_PER_CYCLE + fp32_lanes / INSTRUCTIONS_PER_POLYNOMIAL }
    }

    /// By compute capability; `None` for GPUs that are not in the table.
    ///
    /// fp32 lanes are from the Programming Guide's table of arithmetic throughput. Tensor FLOPs are the datasheet's dense
    /// peak over multiprocessors and boost clock:
    fn of(capability: (u32, u32)) -> Option<Self> {
        match capability {
            // A100 SXM: 312 TFLOP/s, 108 SMs, 1.41 GHz.
            (8, 0) => Some(Self::new(2048.0, 64.0)),
            // A10: 125 TFLOP/s, 72 SMs, 1.695 GHz. L4: 121 TFLOP/s, 58 SMs, 2.04 GHz. GeForce has half.
            (8, 6..=9) => Some(Self::new(1024.0, 128.0)),
            // H100 SXM: 989.4 TFLOP/s, 132 SMs, 1.83 GHz.
            (9, 0) => Some(Self::new(4096.0, 128.0)),
            // B200: 2250 TFLOP/s, 148 SMs, 1.85 GHz.
            (10, _) => Some(Self::new(8192.0, 128.0)),
            // RTX PRO 6000 (Blackwell): 503.8 TFLOP/s, 188 SMs, 2.617 GHz.
            (12, _) => Some(Self::new(1024.0, 128.0)),
            _ => None,
        }
    }
}

/// The fewest microseconds one launch of `problem` can take; with `cold`, also the time its bytes take from memory.
///
/// Parts that are not known count as zero, so an unknown GPU has a floor of zero.
pub fn floor_us(problem: &Problem, rates: &Rates, cold: bool) -> f64 {
    let cycles_per_us = f64::from(rates.multiprocessors) * rates.clock_hz / 1e6;
    let compute = match PerCycle::of(rates.capability) {
        Some(peak) if cycles_per_us > 0.0 => {
            let matrix = problem.flops() as f64 / peak.flops;
            let softmax = problem.visible_scores() as f64 / peak.exponentials;
            matrix.max(softmax) / cycles_per_us
        }
        _ => 0.0,
    };
    let memory = if cold && rates.memory_bytes_per_s > 0.0 {
        problem.bytes() as f64 / rates.memory_bytes_per_s * 1e6
    } else {
        0.0
    };
    compute.max(memory)
}

#[cfg(test)]
mod tests {
    use spec::{Align, Dtype, Mask};

    use super::*;

    const H100: Rates =
        Rates { capability: (9, 0), multiprocessors: 132, clock_hz: 1.98e9, memory_bytes_per_s: 3.35e12 };

    #[test]
    fn measured_times_are_above_the_floor() {
        // The fastest known on an H100: 4.2 us for the seed shape's parts, 747 TFLOP/s at d=256, 9.59 us causal.
        assert!(floor_us(&Problem::SEED, &H100, false) < 3.3);
        let long = Problem::new(2, 8, 8192, 256, Dtype::Bf16);
        assert!(floor_us(&long, &H100, false) < long.flops() as f64 / 817e6);
    }

    #[test]
    fn the_tighter_bound_wins() {
        // d=256: the tensor cores, 1.07 PFLOP/s at the highest clock.
        let wide = Problem::new(1, 16, 8192, 256, Dtype::F16);
        let expected = wide.flops() as f64 / (132.0 * 4096.0 * 1.98e3);
        assert!((floor_us(&wide, &H100, false) / expected - 1.0).abs() < 1e-9);
        // d=8: the exponentials.
        let narrow = Problem::new(1, 16, 8192, 8, Dtype::F16);
        assert!(floor_us(&narrow, &H100, false) > narrow.flops() as f64 / (132.0 * 4096.0 * 1.98e3) * 2.0);
        // One query: the bytes, when they are not in L2.
        let decode = Problem::new(64, 32, 8192, 128, Dtype::F16).with_seqlens(1, 8192);
        let bytes = decode.bytes() as f64 / 3.35e6;
        assert!((floor_us(&decode, &H100, true) / bytes - 1.0).abs() < 1e-9);
        assert!(floor_us(&decode, &H100, false) < bytes);
    }

    #[test]
    fn masked_work_does_not_count() {
        let full = Problem::new(1, 16, 4096, 128, Dtype::F16);
        let causal = full.with_mask(Mask::Causal(Align::BottomRight));
        let ratio = floor_us(&causal, &H100, false) / floor_us(&full, &H100, false);
        assert!((0.49..0.51).contains(&ratio), "{ratio}");
    }

    #[test]
    fn an_unknown_gpu_has_no_floor() {
        let unknown = Rates { capability: (13, 1), multiprocessors: 1, clock_hz: 0.0, memory_bytes_per_s: 0.0 };
        assert_eq!(floor_us(&Problem::SEED, &unknown, true), 0.0);
    }
}

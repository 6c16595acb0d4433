//! Where a time lies under the peaks of its GPU.

use spec::{Dtype, Problem};

/// What a GPU does at most, by its datasheet.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Peaks {
    /// Dense 16-bit floating-point operations per second, fp32 accumulation.
    flops: f64,
    /// Bytes from or to memory per second.
    bytes: f64,
}

impl Peaks {
    /// By the name that the driver gives; `None` for GPUs that are not in the table.
    ///
    /// From NVIDIA's datasheets of the H100, H200, A100 and L4, without sparsity.
    fn of(gpu: &str) -> Option<Self> {
        let (flops, bytes) = match gpu {
            "NVIDIA H100 80GB HBM3" => (989.4e12, 3.35e12),
            "NVIDIA H200" => (989.4e12, 4.8e12),
            "NVIDIA A100-SXM4-40GB" => (312e12, 1.555e12),
            "NVIDIA A100-SXM4-80GB" => (312e12, 2.039e12),
            "NVIDIA L4" => (121e12, 0.3e12),
            _ => return None,
        };
        Some(Self { flops, bytes })
    }
}

/// Shares of the peaks that a time makes use of, 1 for all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// Of the tensor cores' peak: the operations of the two matrix products.
    pub matrix: f64,
    /// Of memory bandwidth: every tensor's bytes once.
    pub memory: f64,
}

impl Position {
    /// Of a launch of `problem` that takes `us` microseconds; `None` if the GPU's peaks are not known.
    pub fn of(problem: &Problem, gpu: &str, us: f64) -> Option<Self> {
        let peaks = Peaks::of(gpu)?;
        let share = |work: u64, peak: f64| work as f64 / (us * 1e-6) / peak;
        // Elements of 8 bits are multiplied twice as fast, where they are.
        let flops = peaks.flops * if problem.dtype == Dtype::E4m3 { 2.0 } else { 1.0 };
        Some(Self { matrix: share(problem.flops(), flops), memory: share(problem.bytes(), peaks.bytes) })
    }

    /// Whether memory bounds the problem, not the matrix products: the one whose peak would be reached first.
    pub fn is_bound_by_memory(&self) -> bool {
        self.memory > self.matrix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_peaks_and_the_larger_bounds() {
        let h100 = |problem: &Problem, us| Position::of(problem, "NVIDIA H100 80GB HBM3", us).unwrap();
        let long = Problem::new(1, 16, 8192, 128, Dtype::F16);
        // At the peak itself.
        let least = long.flops() as f64 / 989.4e6;
        assert!((h100(&long, least).matrix - 1.0).abs() < 1e-9);
        let twice = h100(&long, 2.0 * least);
        assert!((twice.matrix - 0.5).abs() < 1e-9 && !twice.is_bound_by_memory());
        assert!((h100(&long.with_dtype(Dtype::E4m3), least / 2.0).matrix - 1.0).abs() < 1e-9);
        let decode = Problem::new(64, 32, 8192, 128, Dtype::F16).with_seqlens(1, 8192);
        let least = decode.bytes() as f64 / 3.35e6;
        assert!((h100(&decode, least).memory - 1.0).abs() < 1e-9);
        assert!(h100(&decode, least).is_bound_by_memory());
    }

    #[test]
    fn a_gpu_that_is_not_known_has_no_roof() {
        assert_eq!(Position::of(&Problem::SEED, "CPU machine (sm_90a)", 1.0), None);
    }
}

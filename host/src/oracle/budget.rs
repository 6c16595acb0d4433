//! How far from fp64 an output may be: see [`crate::oracle`].

use spec::{Dtype, Problem, layout::SUMMED_KEYS};

use super::Expected;
use crate::cases::{Case, Distribution, number};

/// Largest error of O allowed on the seed shape with normal inputs, in absolute terms.
pub const SEED_LIMIT: f64 = 2e-3;

/// How tensor cores add up products of a dtype.
struct TensorCore {
    /// Products of one step.
    depth: u32,
    /// What they keep of a sum, relative to it.
    unit: f64,
}

impl TensorCore {
    fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Self { depth: 16, unit: (-23f64).exp2() },
            // Hopper's keep 13 bits of fraction: arXiv 2411.10958 and 2412.19437.
            Dtype::E4m3 => Self { depth: 32, unit: (-13f64).exp2() },
        }
    }

    /// What a sum of so many products may be off by, relative to the largest that it can be: two units in the last place for the
    /// order of summation, and one more for each step, which adds products to the sum so far and cuts off what does not fit.
    fn error(&self, products: u32) -> f64 {
        f64::from(2 + products.div_ceil(self.depth)) * self.unit
    }

    /// What a long sum may lose besides, relative to the largest that it is on its way: each product is cut off to the unit of the sum so
    /// far, which is half of the largest on average, by half of it on average. Products of both signs lose to both sides.
    fn cut_off(&self, products: u32, one_sided: f64) -> f64 {
        self.error(products) + (one_sided / 4.0 + f64::from(products).sqrt()) * self.unit
    }
}

/// What one row may be off by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowBudget {
    /// Each element of O.
    pub o: f64,
    /// The LSE.
    pub lse: f64,
    /// Square of the row's share in the case's RMS budget that does not come from the reference.
    pub(super) slack: [f64; 2],
}

impl RowBudget {
    /// The budget of a row of a case.
    pub fn of(case: &Case, expected: &Expected) -> Self {
        if expected.exact_lse == f64::NEG_INFINITY {
            return Self { o: 0.0, lse: 0.0, slack: [0.0; 2] };
        }
        let largest = expected.exact.iter().fold(0f64, |largest, x| largest.max(x.abs()));
        let reference = errors(expected).fold(0f64, |largest, e| largest.max(e.abs()));
        let cores = TensorCore::of(case.problem.dtype);
        let scores = expected.score * cores.error(case.problem.head_dim_qk);
        let small = f64::from(f32::MIN_POSITIVE) * expected.values;
        let (rounding, sum) = match case.problem.dtype {
            // In these the reference's own roundings cover it.
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 => (0.0, 0.0),
            Dtype::E4m3 => {
                let keys = (case.problem.visible_keys(expected.row.row).len() as u32).min(SUMMED_KEYS);
                (
                    number::ulp(Dtype::E4m3, 1.0) * expected.spread,
                    cores.cut_off(keys, expected.one_sided) * expected.partial,
                )
            }
        };
        let weights = 2.0 * scores * expected.weight + small + sum;
        let ulp = number::ulp(case.problem.dtype.output(), largest);
        let o = 2.0 * reference + ulp + weights + rounding;
        let lse_reference = (f64::from(expected.rounded_lse) - expected.exact_lse).abs();
        Self {
            o: if has_seed_limit(case) { o.min(SEED_LIMIT) } else { o },
            lse: 2.0 * lse_reference + (-15f64).exp2() + scores,
            slack: [ulp / 4.0, weights + rounding / 4.0],
        }
    }
}

/// Errors of the same-precision reference.
pub(super) fn errors(expected: &Expected) -> impl Iterator<Item = f64> + '_ {
    expected.rounded.iter().zip(&expected.exact).map(|(rounded, exact)| f64::from(*rounded) - exact)
}

fn has_seed_limit(case: &Case) -> bool {
    let seed = Problem { strides: case.problem.strides, ..Problem::SEED };
    case.problem == seed && case.inputs.distribution == Distribution::Normal
}

//! How far from fp64 an output may be: see [`crate::oracle`].

use spec::Problem;

use super::Expected;
use crate::cases::{Case, Distribution, number};

/// Largest error of O allowed on the seed shape with normal inputs, in absolute terms.
pub const SEED_LIMIT: f64 = 2e-3;

/// Products that a tensor core adds up in one step, in 16 bit.
const MMA_K: u32 = 16;

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
        let scores = expected.score * score_error(case.problem.head_dim_qk);
        let weights = 2.0 * scores * expected.weight + f64::from(f32::MIN_POSITIVE) * expected.values;
        let ulp = number::ulp(case.problem.dtype, largest);
        let o = 2.0 * reference + ulp + weights;
        let lse_reference = (f64::from(expected.rounded_lse) - expected.exact_lse).abs();
        Self {
            o: if has_seed_limit(case) { o.min(SEED_LIMIT) } else { o },
            lse: 2.0 * lse_reference + (-15f64).exp2() + scores,
            slack: [ulp / 4.0, weights],
        }
    }
}

/// What a score may be off by, relative to `|scale| |q| |k|`: two units in the last place for the order of summation, and
/// one more for each step of a tensor core, which adds 16 products to the sum so far and cuts off what does not fit.
fn score_error(head_dim: u32) -> f64 {
    f64::from(2 + head_dim.div_ceil(MMA_K)) * (-23f64).exp2()
}

/// Errors of the same-precision reference.
pub(super) fn errors(expected: &Expected) -> impl Iterator<Item = f64> + '_ {
    expected.rounded.iter().zip(&expected.exact).map(|(rounded, exact)| f64::from(*rounded) - exact)
}

fn has_seed_limit(case: &Case) -> bool {
    let seed = Problem { strides: case.problem.strides, ..Problem::SEED };
    case.problem == seed && case.inputs.distribution == Distribution::Normal
}

//! How far from fp64 an output may be: see [`crate::oracle`].

use spec::Problem;

use super::Expected;
use crate::cases::{Case, Distribution, number};

/// Largest error of O allowed on the seed shape with normal inputs, in absolute terms.
pub const SEED_LIMIT: f64 = 2e-3;

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
        let dtype = case.problem.dtype;
        let largest = expected.exact.iter().fold(0f64, |largest, x| largest.max(x.abs()));
        let reference = errors(expected).fold(0f64, |largest, e| largest.max(e.abs()));
        let scores = expected.score * (-22f64).exp2();
        let weights = 2.0 * scores * expected.weight;
        let ulp = number::ulp(dtype, largest);
        let o = 2.0 * reference + ulp + weights;
        let lse_reference = (f64::from(expected.rounded_lse) - expected.exact_lse).abs();
        Self {
            o: if has_seed_limit(case) { o.min(SEED_LIMIT) } else { o },
            // Both are -inf where a row sees nothing.
            lse: if lse_reference.is_nan() { 0.0 } else { 2.0 * lse_reference + (-15f64).exp2() + scores },
            slack: [ulp / 4.0, weights],
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

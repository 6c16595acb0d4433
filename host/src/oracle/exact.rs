//! Attention in fp64, written to be read.

use spec::Problem;

use super::logits::Logits;
use super::reference::Head;

/// A row's results, and the scales its errors are measured by.
pub(super) struct Exact {
    pub(super) o: Vec<f64>,
    pub(super) lse: f64,
    pub(super) weight: f64,
    pub(super) values: f64,
    pub(super) spread: f64,
    pub(super) partial: f64,
    pub(super) one_sided: f64,
    pub(super) score: f64,
}

/// One row, of values that are finite; the others count as zero.
pub(super) fn row(problem: &Problem, head: &Head, q: &[f32], logits: &Logits<'_>) -> Exact {
    let (dim_qk, dim_v) = (problem.head_dim_qk as usize, problem.head_dim_v as usize);
    let keys: Vec<u32> = logits.keys().collect();
    let k = |key: u32| &head.k[key as usize * dim_qk..][..dim_qk];
    let v = |key: u32| &head.v[key as usize * dim_v..][..dim_v];

    let scores: Vec<f64> = keys.iter().map(|key| logits.exact(*key, dot(q, k(*key)))).collect();
    let sink = logits.sink().map_or(f64::NEG_INFINITY, f64::from);
    let max = scores.iter().copied().fold(sink, nan_max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let sum: f64 = weights.iter().sum::<f64>() + if sink == f64::NEG_INFINITY { 0.0 } else { (sink - max).exp() };

    let [mut o, mut magnitudes, mut values, mut squares, mut signs] = [(); 5].map(|()| vec![0f64; dim_v]);
    let mut partial = 0f64;
    for (weight, key) in weights.iter().zip(&keys) {
        let weight = weight / sum;
        for (d, v) in v(*key).iter().enumerate() {
            if v.is_finite() {
                o[d] += weight * f64::from(*v);
                magnitudes[d] += weight * f64::from(v.abs());
                values[d] += f64::from(v.abs());
                squares[d] += (weight * f64::from(*v)).powi(2);
                signs[d] += if *v == 0.0 { 0.0 } else { f64::from(v.signum()) };
                partial = partial.max(o[d].abs());
            }
        }
    }
    let largest_key = keys.iter().map(|key| dot(k(*key), k(*key))).fold(0.0, f64::max).sqrt();
    let scale = f64::from(problem.softmax_scale());
    Exact {
        o,
        lse: max + sum.ln(),
        weight: magnitudes.into_iter().fold(0.0, f64::max),
        values: values.into_iter().fold(0.0, f64::max),
        spread: squares.into_iter().fold(0.0, f64::max).sqrt(),
        partial,
        one_sided: signs.into_iter().fold(0.0, |most, sum| most.max(sum.abs())),
        score: scale.abs() * dot(q, q).sqrt() * largest_key + logits.magnitude(),
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The larger; NaN if either is.
fn nan_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use spec::{Align, Dtype, Mask};

    use super::*;
    use crate::cases::Extras;
    use crate::oracle::Row;

    fn logits<'a>(problem: &'a Problem, extras: &'a Extras, row: u32) -> Logits<'a> {
        Logits::of(problem, extras, Row { batch: 0, head: 0, row })
    }

    #[test]
    fn by_hand() {
        let problem = Problem { scale: Some(0.5), ..Problem::new(1, 1, 2, 8, Dtype::F16).with_seqlens(2, 3) };
        let problem = problem.with_mask(Mask::Causal(Align::TopLeft));
        let unit = |x: f32| [x, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let head =
            Head { k: [unit(0.0), unit(2.0), unit(9.0)].concat(), v: [unit(1.0), unit(-3.0), unit(7.0)].concat() };
        let none = Extras::default();
        let first = row(&problem, &head, &unit(2.0), &logits(&problem, &none, 0));
        assert_eq!((first.o[0], first.o[1], first.lse), (1.0, 0.0, 0.0));
        // Scores 0 and 2: weights 1 and e^2 over their sum.
        let second = row(&problem, &head, &unit(2.0), &logits(&problem, &none, 1));
        let e2 = 2f64.exp();
        assert!((second.o[0] - (1.0 - 3.0 * e2) / (1.0 + e2)).abs() < 1e-15);
        assert!((second.lse - (1.0 + e2).ln()).abs() < 1e-15);
        assert!((second.weight - (1.0 + 3.0 * e2) / (1.0 + e2)).abs() < 1e-15);
        assert_eq!(second.score, 2.0);
        assert!((second.partial - second.o[0].abs()).abs() < 1e-15);
        assert_eq!((first.one_sided, second.one_sided), (1.0, 0.0));
        assert!((second.spread - (1.0 + 9.0 * e2 * e2).sqrt() / (1.0 + e2)).abs() < 1e-15);
    }

    #[test]
    fn a_row_that_sees_nothing_is_zero() {
        let problem =
            Problem::new(1, 1, 1, 8, Dtype::F16).with_seqlens(3, 1).with_mask(Mask::Causal(Align::BottomRight));
        let head = Head { k: vec![f32::NAN; 8], v: vec![f32::NAN; 8] };
        let blind = row(&problem, &head, &[1.0; 8], &logits(&problem, &Extras::default(), 1));
        assert_eq!((blind.o, blind.lse), (vec![0.0; 8], f64::NEG_INFINITY));
    }
}

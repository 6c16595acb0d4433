//! Attention in fp64, written to be read.

use spec::{Problem, layout::SUMMED_KEYS};

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

/// A sum over so many keys as are summed at a time.
#[derive(Clone, Copy, Default)]
struct Span {
    sum: f64,
    /// The largest that its magnitude has been.
    largest: f64,
    /// Sum of the terms' signs.
    signs: f64,
}

impl Span {
    /// Adds a term. Says by how much the largest has grown.
    fn add(&mut self, term: f64) -> f64 {
        self.sum += term;
        self.signs += if term == 0.0 { 0.0 } else { term.signum() };
        let before = self.largest;
        self.largest = before.max(self.sum.abs());
        self.largest - before
    }
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

    let [mut o, mut magnitudes, mut values, mut squares] = [(); 4].map(|()| vec![0f64; dim_v]);
    let (mut spans, mut partials) = (vec![Span::default(); dim_v], vec![0f64; dim_v]);
    let mut one_sided = 0f64;
    for (n, (weight, key)) in weights.iter().zip(&keys).enumerate() {
        let weight = weight / sum;
        if n % SUMMED_KEYS as usize == 0 {
            spans.fill(Span::default());
        }
        for (d, v) in v(*key).iter().enumerate() {
            if v.is_finite() {
                o[d] += weight * f64::from(*v);
                magnitudes[d] += weight * f64::from(v.abs());
                values[d] += f64::from(v.abs());
                squares[d] += (weight * f64::from(*v)).powi(2);
                partials[d] += spans[d].add(weight * f64::from(*v));
                one_sided = one_sided.max(spans[d].signs.abs());
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
        partial: partials.into_iter().fold(0.0, f64::max),
        one_sided,
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
        assert_eq!((first.one_sided, second.one_sided), (1.0, 1.0));
        assert!((second.spread - (1.0 + 9.0 * e2 * e2).sqrt() / (1.0 + e2)).abs() < 1e-15);
    }

    #[test]
    fn sums_are_followed_by_spans() {
        let keys = 2 * SUMMED_KEYS;
        let problem = Problem::new(1, 1, 1, 8, Dtype::E4m3).with_seqlens(1, keys);
        let of = |v: fn(u32) -> f32| {
            let head = Head { k: vec![0.0; 8 * keys as usize], v: (0..8 * keys).map(|i| v(i / 8)).collect() };
            row(&problem, &head, &[0.0; 8], &logits(&problem, &Extras::default(), 0))
        };
        let equal = of(|_| 3.0);
        assert_eq!(equal.one_sided, f64::from(SUMMED_KEYS));
        assert!((equal.partial - 3.0).abs() < 1e-9);
        // What one span adds the next takes away.
        let opposed = of(|key| if key < SUMMED_KEYS { 3.0 } else { -3.0 });
        assert!(opposed.o[0].abs() < 1e-9 && (opposed.partial - 3.0).abs() < 1e-9);
        let alternating = of(|key| if key % 2 == 0 { 3.0 } else { -3.0 });
        assert_eq!(alternating.one_sided, 1.0);
        assert!((alternating.partial - 2.0 * 3.0 / f64::from(keys)).abs() < 1e-9);
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

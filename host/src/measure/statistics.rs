//! Medians, and exact rank intervals of the ratio of two times.
//!
//! Times are compared as logarithms, so that an interval of the difference is one of the ratio. The estimates are those
//! of Hodges and Lehmann; the intervals invert Wilcoxon's tests with their exact null distributions, so they depend on
//! no variance estimate and one wild sample moves them little.
//!
//! * [`paired`] inverts the signed-rank test over the pairs' log-ratios. Its coverage is at least the level asked for
//!   whenever the log-ratios are independent and symmetric about their centre, which holds for the difference of two
//!   equally distributed noises. Rounds of one sitting are not independent, see [`super::sittings`].
//! * [`unpaired`] inverts the rank-sum test; its coverage holds when both sides' noises are equally distributed.

use serde::{Deserialize, Serialize};

/// An estimate and the interval around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// The estimate.
    pub estimate: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { low: f(self.low), estimate: f(self.estimate), high: f(self.high) }
    }

    /// The interval with its ends moved apart by a factor of `e^by`.
    pub fn widened(self, by: f64) -> Self {
        Self { low: self.low * (-by).exp(), high: self.high * by.exp(), ..self }
    }

    /// Whether a value lies within it.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// Why there is no interval.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum NoInterval {
    /// A pair lacks its partner.
    #[error("{left} samples cannot be paired with {right}")]
    Unpaired {
        /// Samples of the numerator.
        left: usize,
        /// Samples of the denominator.
        right: usize,
    },
    /// So few samples bound nothing at this level.
    #[error("{samples} samples are too few for an interval at level {level}")]
    TooFew {
        /// What there is.
        samples: usize,
        /// What was asked.
        level: f64,
    },
    /// A time is not a positive number.
    #[error("a time of {0} us is none")]
    NotATime(f64),
}

/// The median; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    middle(&sorted)
}

/// Median absolute deviation from the median, scaled to the standard deviation of a normal distribution.
pub fn deviation(values: &[f64]) -> f64 {
    let centre = median(values);
    let distances: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    1.4826 * median(&distances)
}

/// Interval of the ratio `left / right` of times that were taken in pairs, at a level such as 0.95.
pub fn paired(left: &[f64], right: &[f64], level: f64) -> Result<Interval, NoInterval> {
    if left.len() != right.len() {
        return Err(NoInterval::Unpaired { left: left.len(), right: right.len() });
    }
    let (left, right) = (logarithms(left)?, logarithms(right)?);
    let differences: Vec<f64> = left.iter().zip(&right).map(|(l, r)| l - r).collect();
    let n = differences.len();
    let mut averages = Vec::with_capacity(n * (n + 1) / 2);
    for (i, a) in differences.iter().enumerate() {
        averages.extend(differences[i..].iter().map(|b| (a + b) / 2.0));
    }
    between_ranks(averages, &signed_rank_distribution(n), level).ok_or(NoInterval::TooFew { samples: n, level })
}

/// Interval of the ratio `left / right` of times that were taken apart, at a level such as 0.95.
pub fn unpaired(left: &[f64], right: &[f64], level: f64) -> Result<Interval, NoInterval> {
    let (left, right) = (logarithms(left)?, logarithms(right)?);
    let differences = left.iter().flat_map(|l| right.iter().map(move |r| l - r)).collect();
    between_ranks(differences, &rank_sum_distribution(left.len(), right.len()), level)
        .ok_or(NoInterval::TooFew { samples: left.len().min(right.len()), level })
}

fn logarithms(times: &[f64]) -> Result<Vec<f64>, NoInterval> {
    times
        .iter()
        .map(|&time| if time.is_finite() && time > 0.0 { Ok(time.ln()) } else { Err(NoInterval::NotATime(time)) })
        .collect()
}

/// The differences between which the test does not reject, given the distribution of its statistic.
fn between_ranks(mut differences: Vec<f64>, distribution: &[f64], level: f64) -> Option<Interval> {
    let tail = (1.0 - level) / 2.0;
    let mut below = 0.0;
    let cut = distribution
        .iter()
        .take_while(|&probability| {
            below += probability;
            below <= tail
        })
        .count();
    differences.sort_by(f64::total_cmp);
    let low = *differences.get(cut.checked_sub(1)?)?;
    let high = *differences.get(differences.len().checked_sub(cut)?)?;
    Some(Interval { low, estimate: middle(&differences), high }.map(f64::exp))
}

fn middle(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Probability of each value of Wilcoxon's signed-rank statistic of `n` values.
fn signed_rank_distribution(n: usize) -> Vec<f64> {
    let mut probabilities = vec![0.0; n * (n + 1) / 2 + 1];
    probabilities[0] = 1.0;
    for rank in 1..=n {
        for sum in (0..probabilities.len()).rev() {
            let with = if sum >= rank { probabilities[sum - rank] } else { 0.0 };
            probabilities[sum] = (probabilities[sum] + with) / 2.0;
        }
    }
    probabilities
}

/// Probability of each value of the Mann-Whitney statistic of `m` and `n` values.
fn rank_sum_distribution(m: usize, n: usize) -> Vec<f64> {
    // The statistic's generating function is the Gaussian binomial: a product over i of (1 - x^(n+i)) / (1 - x^i), each
    // factor divided by (n + i) / i so that the probabilities stay near one.
    let mut probabilities = vec![0.0; m * n + 1];
    probabilities[0] = 1.0;
    for i in 1..=m {
        for sum in (n + i..probabilities.len()).rev() {
            probabilities[sum] -= probabilities[sum - n - i];
        }
        for sum in i..probabilities.len() {
            probabilities[sum] += probabilities[sum - i];
        }
        let share = i as f64 / (n + i) as f64;
        probabilities.iter_mut().for_each(|probability| *probability *= share);
    }
    probabilities
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StudentT};

    use super::*;

    #[test]
    fn medians_resist_one_wild_value() {
        assert_eq!(median(&[3.0, 1.0, 1e9]), 3.0);
        assert_eq!(median(&[4.0, 2.0]), 3.0);
        assert_eq!(deviation(&[1.0, 2.0, 3.0, 4.0, 1e9]), 1.4826);
    }

    #[test]
    fn distributions_match_published_counts() {
        // Four values: 16 sign patterns; 0, 1 and 2 come from one each, 3 from two.
        let four = signed_rank_distribution(4);
        assert_eq!(&four[..4], &[1.0 / 16.0, 1.0 / 16.0, 1.0 / 16.0, 2.0 / 16.0]);
        // Two against three values: 10 arrangements, 1 1 2 2 2 1 1.
        let expected = [1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0].map(|count| count / 10.0);
        for (got, expected) in rank_sum_distribution(2, 3).iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12);
        }
        let large = rank_sum_distribution(40, 60);
        assert!((large.iter().sum::<f64>() - 1.0).abs() < 1e-9 && large.iter().all(|p| *p > -1e-9));
    }

    #[test]
    fn impossible_requests_are_refused() {
        assert_eq!(paired(&[1.0; 5], &[1.0; 5], 0.95), Err(NoInterval::TooFew { samples: 5, level: 0.95 }));
        assert!(paired(&[1.0; 6], &[1.0; 6], 0.95).is_ok());
        assert_eq!(paired(&[1.0], &[], 0.95), Err(NoInterval::Unpaired { left: 1, right: 0 }));
        assert_eq!(paired(&[0.0; 9], &[1.0; 9], 0.95), Err(NoInterval::NotATime(0.0)));
        assert!(matches!(unpaired(&[f64::NAN; 9], &[1.0; 9], 0.95), Err(NoInterval::NotATime(_))));
    }

    /// Nominal 5 %: with 1,000 runs a method that errs in exactly 5 % stays under 6.6 % in 99 % of all seeds
    /// (binomial). Noise is heavy-tailed (Student's t, 3 degrees) and shared drift runs through each pair.
    #[test]
    fn intervals_miss_the_truth_as_rarely_as_they_say() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let noise = StudentT::new(3.0).unwrap();
        let truth = 0.97;
        let (mut paired_misses, mut unpaired_misses) = (0, 0);
        for _ in 0..1000 {
            let drift = rng.random_range(-0.02..0.02);
            let mut draw = |scale: f64, drift: f64| -> Vec<f64> {
                (0..30)
                    .map(|round| scale * (0.01 * noise.sample(&mut rng) + drift * f64::from(round) / 30.0).exp())
                    .collect()
            };
            let (left, right) = (draw(10.0 * truth, drift), draw(10.0, drift));
            paired_misses += usize::from(!paired(&left, &right, 0.95).unwrap().contains(truth));
            let (left, right) = (draw(10.0 * truth, 0.0), draw(10.0, 0.0));
            unpaired_misses += usize::from(!unpaired(&left, &right, 0.95).unwrap().contains(truth));
        }
        assert!(paired_misses <= 66, "{paired_misses} of 1000");
        assert!(unpaired_misses <= 66, "{unpaired_misses} of 1000");
        // An interval that never misses would be useless.
        assert!(paired_misses >= 30 && unpaired_misses >= 30, "{paired_misses}, {unpaired_misses}");
    }
}

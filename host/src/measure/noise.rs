//! The noise floor: what the same kernel against itself looks like.

use serde::{Deserialize, Serialize};

use super::{
    sittings::Sittings,
    statistics::{self, Interval, NoInterval},
};

/// What an A/A test found: one kernel timed against itself under two labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoiseFloor {
    /// Interval of the ratio of the two labels over all sittings; 1 is the truth.
    pub ratio: Interval,
    /// Root mean square of a sitting's log-ratio: how far off one sitting is.
    pub sitting: f64,
    /// The largest log-ratio of a sitting, without its sign.
    pub worst_sitting: f64,
    /// Robust standard deviation of one sample, relative to the median.
    pub spread: f64,
    /// Median of the later half of the samples over that of the earlier half.
    pub drift: f64,
}

impl NoiseFloor {
    /// The floor that sittings of the two labels give.
    pub fn of(a: &Sittings, b: &Sittings) -> Result<Self, NoInterval> {
        let (left, right) = (a.hot_medians(), b.hot_medians());
        let ratio = statistics::paired(&left, &right, 0.95)?;
        let off: Vec<f64> = left.iter().zip(&right).map(|(a, b)| (a / b).ln()).collect();
        let (a, b) = (a.hot_us(), b.hot_us());
        let (early, late): (Vec<f64>, Vec<f64>) = {
            let ((early_a, late_a), (early_b, late_b)) = (a.split_at(a.len() / 2), b.split_at(b.len() / 2));
            ([early_a, early_b].concat(), [late_a, late_b].concat())
        };
        let all = [a, b].concat();
        Ok(Self {
            ratio,
            sitting: (off.iter().map(|off| off * off).sum::<f64>() / off.len() as f64).sqrt(),
            worst_sitting: off.iter().map(|off| off.abs()).fold(0.0, f64::max),
            spread: statistics::deviation(&all) / statistics::median(&all),
            drift: statistics::median(&late) / statistics::median(&early),
        })
    }

    /// The largest ratio below 1 that can be claimed: a kernel seemed this much faster than itself, or might have.
    pub fn claimable(&self) -> f64 {
        self.ratio.low.min(1.0 / self.ratio.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Samples;

    #[test]
    fn the_floor_is_the_worse_side_and_sees_drift() {
        let sittings = |us: &[f64]| {
            let of = |us: &f64| Samples { hot_us: vec![*us; 3], ..Samples::default() };
            Sittings(us.iter().map(of).collect())
        };
        let a: Vec<f64> = (0..20).map(|i| if i < 10 { 10.0 } else { 11.0 }).collect();
        let b: Vec<f64> = a.iter().enumerate().map(|(i, a)| a * if i % 2 == 0 { 1.02 } else { 0.99 }).collect();
        let floor = NoiseFloor::of(&sittings(&a), &sittings(&b)).unwrap();
        assert!((1.05..1.15).contains(&floor.drift), "{}", floor.drift);
        assert!(floor.claimable() <= 1.0 / 1.0101 && floor.claimable() < floor.ratio.estimate);
        assert!((floor.worst_sitting - 1.02f64.ln()).abs() < 1e-12 && floor.sitting < floor.worst_sitting);
    }

    #[test]
    fn a_label_that_lies_badly_in_one_sitting_is_no_evidence() {
        // Sixty rounds of one sitting that agree with each other say no more than one.
        let one = |us: f64| Sittings(vec![Samples { hot_us: vec![us; 60], ..Samples::default() }]);
        assert!(matches!(NoiseFloor::of(&one(9.83), &one(9.77)), Err(NoInterval::TooFew { samples: 1, .. })));
    }
}

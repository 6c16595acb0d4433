//! The noise floor: what the same kernel against itself looks like.

use serde::{Deserialize, Serialize};

use super::statistics::{self, Interval, NoInterval};

/// What an A/A test found: one kernel timed against itself under two labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoiseFloor {
    /// Interval of the ratio of the two labels; 1 is the truth.
    pub ratio: Interval,
    /// Robust standard deviation of one sample, relative to the median.
    pub spread: f64,
    /// Median of the later half of the samples over that of the earlier half.
    pub drift: f64,
}

impl NoiseFloor {
    /// The floor that paired samples of the two labels give.
    pub fn of(a: &[f64], b: &[f64]) -> Result<Self, NoInterval> {
        let ratio = statistics::paired(a, b, 0.95)?;
        let (early, late): (Vec<f64>, Vec<f64>) = {
            let half = a.len() / 2;
            ([&a[..half], &b[..half]].concat(), [&a[half..], &b[half..]].concat())
        };
        let all = [a, b].concat();
        Ok(Self {
            ratio,
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

    #[test]
    fn the_floor_is_the_worse_side_and_sees_drift() {
        let a: Vec<f64> = (0..20).map(|i| if i < 10 { 10.0 } else { 11.0 }).collect();
        let b: Vec<f64> = a.iter().enumerate().map(|(i, a)| a * if i % 2 == 0 { 1.02 } else { 0.99 }).collect();
        let floor = NoiseFloor::of(&a, &b).unwrap();
        assert!((1.05..1.15).contains(&floor.drift), "{}", floor.drift);
        assert!(floor.claimable() <= 1.0 / 1.0101 && floor.claimable() < floor.ratio.estimate);
    }
}

//! Times of one subject from several sittings.
//!
//! In a sitting a subject is prepared anew, in a fresh process: memory is allocated, code loaded, a graph recorded. Where
//! they come to lie moves a kernel's time by some tenths of a percent for as long as the process lives, far more than the
//! rounds of a sitting scatter. Rounds are therefore no independent samples of what a kernel takes; sittings are.

use super::statistics;
use crate::device::Samples;

/// One subject's samples, a set per sitting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sittings(pub Vec<Samples>);

impl Sittings {
    /// Median hot time of each sitting in microseconds.
    pub fn hot_medians(&self) -> Vec<f64> {
        self.0.iter().map(|samples| statistics::median(&samples.hot_us)).collect()
    }

    /// Median time with a flushed L2 of each sitting in microseconds; NaN for a sitting that took none.
    pub fn cold_medians(&self) -> Vec<f64> {
        self.0.iter().map(|samples| statistics::median(&samples.cold_us)).collect()
    }

    /// All hot times in microseconds, in the order they were taken.
    pub fn hot_us(&self) -> Vec<f64> {
        self.0.iter().flat_map(|samples| samples.hot_us.iter().copied()).collect()
    }

    /// All times with a flushed L2 in microseconds, in the order they were taken.
    pub fn cold_us(&self) -> Vec<f64> {
        self.0.iter().flat_map(|samples| samples.cold_us.iter().copied()).collect()
    }
}

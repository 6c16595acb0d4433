//! From scores to logits, as [`spec::Features`] defines them.

use spec::{Band, LARGEST_LOGIT, Problem};

use super::Row;
use crate::cases::{Extras, Sequence};

/// The logits of one query row.
pub(super) struct Logits<'a> {
    problem: &'a Problem,
    extras: &'a Extras,
    row: Row,
    sequence: Sequence,
    /// Position of the row among those of its batch entry.
    position: u32,
    band: Band,
}

impl<'a> Logits<'a> {
    pub(super) fn of(problem: &'a Problem, extras: &'a Extras, row: Row) -> Self {
        let (sequence, position) = extras.position(problem, row.batch, row.row);
        Self { problem, extras, row, sequence, position, band: Band::of(problem, sequence.rows, sequence.keys) }
    }

    /// The keys that the row sees.
    pub(super) fn keys(&self) -> impl Iterator<Item = u32> {
        self.extras.seen_by(self.problem, &self.sequence, self.row.head, self.position)
    }

    fn place(&self, key: u32) -> [u32; 4] {
        [self.sequence.entry, self.row.head, self.position, key]
    }

    /// The logit of a key's dot product.
    pub(super) fn exact(&self, key: u32, product: f64) -> f64 {
        let mut logit = f64::from(self.problem.softmax_scale()) * product;
        if let Some(softcap) = self.problem.features.softcap.map(f64::from) {
            logit = softcap * (logit / softcap).tanh();
        }
        logit += self.added(key);
        // NaN stays NaN.
        if self.extras.bias(self.problem, self.place(key)).is_some() {
            let largest = f64::from(LARGEST_LOGIT);
            logit = logit.clamp(-largest, largest);
        }
        logit
    }

    /// The same in fp32, times log2(e).
    pub(super) fn rounded(&self, key: u32, product: f32) -> f32 {
        if !self.problem.needs_features() {
            return product * (self.problem.softmax_scale() * std::f32::consts::LOG2_E);
        }
        let mut logit = product * self.problem.softmax_scale();
        if let Some(softcap) = self.problem.features.softcap {
            logit = softcap * (logit / softcap).tanh();
        }
        if let Some(slope) = self.extras.slope(self.row.head) {
            logit -= slope * self.distance(key) as f32;
        }
        if let Some(bias) = self.extras.bias(self.problem, self.place(key)) {
            logit = (logit + bias).clamp(-LARGEST_LOGIT, LARGEST_LOGIT);
        }
        logit * std::f32::consts::LOG2_E
    }

    fn distance(&self, key: u32) -> f64 {
        (self.band.diagonal() as f64 + f64::from(self.position) - f64::from(key)).abs()
    }

    /// What is added to the score of a key.
    fn added(&self, key: u32) -> f64 {
        let alibi = self.extras.slope(self.row.head).map_or(0.0, |slope| f64::from(slope) * self.distance(key));
        let bias = self.extras.bias(self.problem, self.place(key)).map_or(0.0, f64::from);
        bias - alibi
    }

    /// The logit of the row's sink.
    pub(super) fn sink(&self) -> Option<f32> {
        self.extras.sink(self.row.head)
    }

    /// How large the terms of the logits are beside the scores: their sums round in proportion. Logits that are held to a
    /// bound do not round.
    pub(super) fn magnitude(&self) -> f64 {
        let added = self.keys().map(|key| self.added(key).abs()).filter(|added| *added < f64::from(LARGEST_LOGIT));
        let sink = self.sink().filter(|sink| sink.is_finite()).map_or(0.0, |sink| f64::from(sink.abs()));
        added.fold(sink, f64::max) + self.problem.features.softcap.map_or(0.0, f64::from)
    }
}

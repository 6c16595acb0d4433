//! Online softmax, row by row (Milakov and Gimelshein, arXiv 1805.02867).

use crate::gpu::{exp2, log2};

/// The factor on the scores, made positive: the softmax then needs the maximum of the raw scores only.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Positive factor from raw scores to exponents of two.
    pub factor: f32,
    /// What raw scores are multiplied by first: 1, or -1 or 0 for a negative or zero scale.
    sign: f32,
}

impl Scale {
    /// The scale of a launch, which includes log2(e).
    #[inline(always)]
    pub fn new(scale_log2: f32) -> Self {
        if scale_log2 > 0.0 {
            Self { factor: scale_log2, sign: 1.0 }
        } else if scale_log2 < 0.0 {
            Self { factor: -scale_log2, sign: -1.0 }
        } else {
            Self { factor: 1.0, sign: 0.0 }
        }
    }

    /// Whether raw scores must pass through [`Scale::turn`].
    #[inline(always)]
    pub fn turns(&self) -> bool {
        self.sign != 1.0
    }

    /// A raw score for which the factor is positive.
    #[inline(always)]
    pub fn turn(&self, score: f32) -> f32 {
        score * self.sign
    }
}

/// What is known of a row so far: its largest raw score and the sum of its exponentials.
///
/// A sum of zero means that no key was seen: the largest one seen adds 1.
#[derive(Clone, Copy, Debug)]
pub struct RowState {
    /// Largest raw score; -inf before the first visible key.
    pub max: f32,
    /// Sum of `2^(factor (score - max))`.
    pub sum: f32,
}

/// How a row goes on after a tile's maximum is known.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What the row's output and sum so far are multiplied by.
    pub correction: f32,
    /// The exponential of a score is `2^(factor * score - base)`.
    pub base: f32,
}

impl RowState {
    /// A row that has seen no key.
    pub const EMPTY: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Takes up a tile's largest raw score and corrects the sum.
    #[inline(always)]
    pub fn advance(&mut self, tile_max: f32, scale: &Scale) -> Step {
        let max = self.max.max(tile_max);
        let base = base(max, scale);
        let correction = exp2(self.max * scale.factor - base);
        self.max = max;
        self.sum *= correction;
        Step { correction, base }
    }

    /// What is relative to the maximum that was known `before` is multiplied by this.
    #[inline(always)]
    pub fn correction(&self, before: f32, scale: &Scale) -> f32 {
        exp2(before * scale.factor - base(self.max, scale))
    }

    /// Maximum and sum as they are kept in memory.
    #[inline(always)]
    pub fn to_bits(self) -> [u32; 2] {
        [self.max.to_bits(), self.sum.to_bits()]
    }

    /// What the output is multiplied by in the end; 0 for a row that saw no key.
    #[inline(always)]
    pub fn normaliser(&self) -> f32 {
        if self.sum == 0.0 { 0.0 } else { 1.0 / self.sum }
    }

    /// Natural log of the sum of `e^(scale * score)`; -inf for a row that saw no key.
    #[inline(always)]
    pub fn lse(&self, scale: &Scale) -> f32 {
        if self.sum == 0.0 {
            f32::NEG_INFINITY
        } else {
            (self.max * scale.factor + log2(self.sum)) * core::f32::consts::LN_2
        }
    }
}

/// The exponent of a row's largest score. A row that sees nothing yet must not subtract -inf from -inf.
#[inline(always)]
fn base(max: f32, scale: &Scale) -> f32 {
    if max == f32::NEG_INFINITY { 0.0 } else { max * scale.factor }
}

/// When the output so far is multiplied for new maxima.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescale {
    /// In every step.
    Always,
    /// If some row of the warp found a new maximum.
    WhenNew,
    /// If some probability, relative to the maxima known before, is large; else maxima are not even looked for.
    WhenLarge,
}

impl Rescale {
    /// The rule that a value of [`spec::Gene::LazyRescale`] stands for.
    pub const fn from_gene(value: u32) -> Self {
        match value {
            0 => Self::Always,
            1 => Self::WhenNew,
            _ => Self::WhenLarge,
        }
    }
}

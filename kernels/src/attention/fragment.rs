//! Softmax on accumulator fragments of 16 rows per warp: `mma.sync` and `wgmma` share their layout.
//!
//! Element `[n][e]` of a lane's fragment is in row `lane / 4 + 8 (e / 2)` and column `8 n + 2 (lane % 4) + e % 2`.

use super::{Mask, RowState, Scale, Scores, exponential};
use crate::gpu::{Half, any_lane, fma, shuffle_xor};
use crate::tile::Lane;

/// Makes raw scores ready for the softmax: turns them for a scale that is not positive, and hides what the rows do not
/// see. `first_row` and `first_key` are those of the fragment.
#[inline(always)]
pub fn finish_scores<const N: usize>(
    scores: &mut [[f32; 4]; N],
    scale: &Scale,
    mask: &Mask,
    first_row: u32,
    first_key: u32,
    lane: Lane,
) {
    if scale.turns() {
        each(scores, |x, _, _| scale.turn(x));
    }
    if mask.hides_any(first_row, first_key + N as u32 * 8) {
        let row = first_row + lane.row();
        hide(scores, [mask.visible(row), mask.visible(row + 8)], first_key, lane);
    }
}

/// Like [`finish_scores`] for a lane's rows that see so many keys each, if their tile does not see all keys of the fragment.
#[inline(always)]
pub fn finish_rows<const N: usize>(
    scores: &mut [[f32; 4]; N],
    scale: &Scale,
    visible: Option<[u32; 2]>,
    first_key: u32,
    lane: Lane,
) {
    if scale.turns() {
        each(scores, |x, _, _| scale.turn(x));
    }
    if let Some(visible) = visible {
        hide(scores, visible, first_key, lane);
    }
}

/// Hides the keys that a lane's two rows do not see.
#[inline(always)]
fn hide<const N: usize>(scores: &mut [[f32; 4]; N], visible: [u32; 2], first_key: u32, lane: Lane) {
    let key = first_key + lane.column();
    each(scores, |x, half, column| if key + column >= visible[half] { f32::NEG_INFINITY } else { x });
}

/// The scores of 16 rows in a warp's fragment.
#[derive(Debug)]
pub struct FragmentScores<'a, const N: usize> {
    /// The fragment.
    pub scores: &'a mut [[f32; 4]; N],
    /// Its first row.
    pub first_row: u32,
    /// Its first key.
    pub first_key: u32,
    /// This lane.
    pub lane: Lane,
}

impl<const N: usize> Scores for FragmentScores<'_, N> {
    #[inline(always)]
    fn rows(&self) -> [u32; 2] {
        [self.first_row, self.first_row + 16]
    }

    #[inline(always)]
    fn keys(&self) -> [u32; 2] {
        [self.first_key, self.first_key + N as u32 * 8]
    }

    #[inline(always)]
    fn map(&mut self, f: impl Fn(f32, u32, u32) -> f32) {
        let (row, key) = (self.first_row + self.lane.row(), self.first_key + self.lane.column());
        each(self.scores, |x, half, column| f(x, row + half as u32 * 8, key + column));
    }
}

/// Turns scores into probabilities relative to the rows' maxima so far. What came before must be multiplied by the two
/// rows' corrections, which are returned.
#[inline(always)]
pub fn softmax<const N: usize>(
    scores: &mut [[f32; 4]; N],
    states: &mut [RowState; 2],
    scale: &Scale,
    exp_poly: u32,
) -> [f32; 2] {
    softmax_raised(scores, states, scale, exp_poly, 0)
}

/// Like [`softmax`], probabilities and sums multiplied by `2^raised`.
#[inline(always)]
pub fn softmax_raised<const N: usize>(
    scores: &mut [[f32; 4]; N],
    states: &mut [RowState; 2],
    scale: &Scale,
    exp_poly: u32,
    raised: u8,
) -> [f32; 2] {
    let mut maxima = begun(scores);
    let mut n = 2;
    while n < N {
        let mut e = 0;
        while e < 4 {
            let chain = &mut maxima[e / 2][n % 2][e % 2];
            *chain = chain.max(scores[n][e]);
            e += 1;
        }
        n += 1;
    }
    let steps = [0, 1].map(|half: usize| {
        let [[a, b], [c, d]] = maxima[half];
        states[half].advance(across_quad(a.max(b).max(c.max(d)), f32::max), scale)
    });
    let sums = exponentials(scores, steps.map(|step| step.base - f32::from(raised)), scale, exp_poly);
    [0, 1].map(|half: usize| {
        states[half].sum += sums[half];
        steps[half].correction
    })
}

/// A sum of a lane's probabilities of a row up to which they need no new maximum: half precision holds them with room to
/// spare, and a row must have grown by as much before its output is multiplied at all.
const LARGE: f32 = 4096.0;

/// Like [`softmax`], but relative to the maxima that the rows have, whatever the scores are. Says whether that went well for
/// the whole warp; where some probability is large, or a row has no maximum yet, the scores are lost and nothing else has
/// changed.
///
/// Any reference will do for a softmax as long as nothing overflows; without a search for the maximum, and a wait for other
/// lanes, a third of the instructions are left.
#[inline(always)]
pub fn softmax_against<const N: usize>(
    scores: &mut [[f32; 4]; N],
    states: &mut [RowState; 2],
    scale: &Scale,
    exp_poly: u32,
) -> bool {
    let sums = exponentials(scores, states.map(|state| state.max * scale.factor), scale, exp_poly);
    // Without a maximum the reference is -inf, and the sum inf or NaN.
    let fits = sums[0] <= LARGE && sums[1] <= LARGE;
    if any_lane(!fits) {
        return false;
    }
    states[0].sum += sums[0];
    states[1].sum += sums[1];
    true
}

/// Turns scores into `2^(factor * score - base)`, by the bases of the two rows; returns the lane's sums.
#[inline(always)]
fn exponentials<const N: usize>(scores: &mut [[f32; 4]; N], bases: [f32; 2], scale: &Scale, exp_poly: u32) -> [f32; 2] {
    let mut n = 0;
    while n < N {
        let mut e = 0;
        while e < 4 {
            let x = fma(scores[n][e], scale.factor, -bases[e / 2]);
            scores[n][e] = exponential(x, n * 2 + e % 2, exp_poly);
            e += 1;
        }
        n += 1;
    }
    let mut sums = begun(scores);
    let mut n = 2;
    while n < N {
        let mut e = 0;
        while e < 4 {
            sums[e / 2][n % 2][e % 2] += scores[n][e];
            e += 1;
        }
        n += 1;
    }
    sums.map(|[[a, b], [c, d]]| (a + b) + (c + d))
}

/// Four chains of maxima or sums per row, since one would wait for itself: the first two blocks begin them.
#[inline(always)]
fn begun<const N: usize>(scores: &[[f32; 4]; N]) -> [[[f32; 2]; 2]; 2] {
    [0, 2].map(|e| [0, 1].map(|n: usize| [scores[n][e], scores[n][e + 1]]))
}

/// Multiplies the fragment's two rows by the two factors.
#[inline(always)]
pub fn rescale<const N: usize>(fragment: &mut [[f32; 4]; N], factors: [f32; 2]) {
    each(fragment, |x, half, _| x * factors[half]);
}

/// Rounds and packs the accumulators of two neighbouring blocks of 8 columns to an operand `a` of 16 columns.
#[inline(always)]
pub fn pack_operand<E: Half>(left: [f32; 4], right: [f32; 4]) -> [u32; 4] {
    [E::pack(left[0], left[1]), E::pack(left[2], left[3]), E::pack(right[0], right[1]), E::pack(right[2], right[3])]
}

/// Combines a value over the four lanes that share a row.
#[inline(always)]
pub fn across_quad(value: f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let value = combine(value, shuffle_xor(value, 1));
    combine(value, shuffle_xor(value, 2))
}

/// Maps each element; `f` gets it with its half (0 for the lane's first row, 1 for its second) and its column's distance
/// from the lane's first.
#[inline(always)]
fn each<const N: usize>(fragment: &mut [[f32; 4]; N], f: impl Fn(f32, usize, u32) -> f32) {
    let mut n = 0;
    while n < N {
        let mut e = 0;
        while e < 4 {
            fragment[n][e] = f(fragment[n][e], e / 2, (n * 8 + e % 2) as u32);
            e += 1;
        }
        n += 1;
    }
}

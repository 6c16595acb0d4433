//! Softmax on accumulator fragments of 16 rows per warp: `mma.sync` and `wgmma` share their layout.
//!
//! Element `[n][e]` of a lane's fragment is in row `lane / 4 + 8 (e / 2)` and column `8 n + 2 (lane % 4) + e % 2`.

use super::{Mask, RowState, Scale, exponential};
use crate::gpu::{Element, fma, shuffle_xor};
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
        let visible = [mask.visible(row), mask.visible(row + 8)];
        let key = first_key + lane.column();
        each(scores, |x, half, column| if key + column >= visible[half] { f32::NEG_INFINITY } else { x });
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
    // Four chains of maxima per row, then of sums: one would wait for itself.
    let mut maxima = [[[f32::NEG_INFINITY; 2]; 2]; 2];
    let mut n = 0;
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
    let mut sums = [[[0.0; 2]; 2]; 2];
    let mut n = 0;
    while n < N {
        let mut e = 0;
        while e < 4 {
            let x = fma(scores[n][e], scale.factor, -steps[e / 2].base);
            scores[n][e] = exponential(x, n * 2 + e % 2, exp_poly);
            sums[e / 2][n % 2][e % 2] += scores[n][e];
            e += 1;
        }
        n += 1;
    }
    [0, 1].map(|half: usize| {
        let [[a, b], [c, d]] = sums[half];
        states[half].sum += (a + b) + (c + d);
        steps[half].correction
    })
}

/// Multiplies the fragment's two rows by the two factors.
#[inline(always)]
pub fn rescale<const N: usize>(fragment: &mut [[f32; 4]; N], factors: [f32; 2]) {
    each(fragment, |x, half, _| x * factors[half]);
}

/// Rounds and packs the accumulators of two neighbouring blocks of 8 columns to an operand `a` of 16 columns.
#[inline(always)]
pub fn pack_operand<E: Element>(left: [f32; 4], right: [f32; 4]) -> [u32; 4] {
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

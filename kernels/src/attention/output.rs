//! Writing a fragment of the output straight from registers.

use super::{RowState, Scale, Work, across_quad};
use crate::gpu::{Element, shuffle_xor};
use crate::tile::Lane;

/// Completes the sums of a fragment's two rows over the lanes that share them.
#[inline(always)]
pub fn complete(states: [RowState; 2]) -> [RowState; 2] {
    states.map(|state| RowState { sum: across_quad(state.sum, |a, b| a + b), ..state })
}

/// Normalises and writes a fragment of 16 rows from `first_row` of the tile on, and its rows' LSE.
#[inline(always)]
pub fn store_output<E: Element, const N: usize>(
    output: &[[f32; 4]; N],
    states: [RowState; 2],
    scale: &Scale,
    work: &Work,
    first_row: u32,
    head_dim_v: u32,
    lane: Lane,
) {
    let mut half = 0;
    while half < 2 {
        let row = first_row + half as u32 * 8 + lane.row();
        let inverse = states[half].normaliser();
        let to = work.o.row(work.first_row + row);
        let columns = if row < work.rows { head_dim_v } else { 0 };
        let pair = |n: usize| E::pack(output[n][2 * half] * inverse, output[n][2 * half + 1] * inverse);
        let mut n = 0;
        while n + 4 <= N {
            let chunk = transpose_quad([pair(n), pair(n + 1), pair(n + 2), pair(n + 3)], lane);
            store_if(columns, n as u32 * 8 + lane.column() * 4, |at| to.at(at).store_chunk(chunk));
            n += 4;
        }
        while n < N {
            let pair = pair(n);
            store_if(columns, n as u32 * 8 + lane.column(), |at| to.at(at).store_u32(pair));
            n += 1;
        }
        if lane.leads_row() {
            work.store_lse(row, states[half].lse(scale));
        }
        half += 1;
    }
}

/// Stores what begins at a column, given as its offset in bytes, if there are more columns than that.
#[inline(always)]
fn store_if(columns: u32, column: u32, store: impl FnOnce(i64)) {
    if column < columns {
        store(i64::from(column * 2));
    }
}

/// Each of the four lanes that share a row holds a pair of columns of four groups of eight; afterwards each holds the eight
/// columns of one group, so that it can store them at once.
#[inline(always)]
fn transpose_quad(mut pairs: [u32; 4], lane: Lane) -> [u32; 4] {
    let column = lane.column() / 2;
    let mut bit = 1;
    while bit < 4 {
        let high = column & bit as u32 != 0;
        let mut low = 0;
        while low < 4 {
            if low & bit == 0 {
                // Constant indices, so that the pairs stay in registers.
                let taken = exchange(if high { pairs[low] } else { pairs[low + bit] }, bit as u32);
                if high {
                    pairs[low] = taken;
                } else {
                    pairs[low + bit] = taken;
                }
            }
            low += 1;
        }
        bit *= 2;
    }
    pairs
}

#[inline(always)]
fn exchange(value: u32, lane_mask: u32) -> u32 {
    shuffle_xor(f32::from_bits(value), lane_mask).to_bits()
}

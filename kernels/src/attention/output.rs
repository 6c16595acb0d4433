//! Writing a fragment of the output straight from registers.

use super::{RowState, Scale, Work, across_quad};
use crate::gpu::Element;
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
        let to = work.o.row(work.first_row + row).at(i64::from(lane.column() * 2));
        let mut n = 0;
        while n < N {
            if row < work.rows && (n as u32) * 8 < head_dim_v {
                let [left, right] = [output[n][2 * half], output[n][2 * half + 1]];
                to.at(n as i64 * 16).store_u32(E::pack(left * inverse, right * inverse));
            }
            n += 1;
        }
        if lane.leads_row() {
            work.store_lse(row, states[half].lse(scale));
        }
        half += 1;
    }
}

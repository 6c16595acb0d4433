//! Writing a fragment of the output: straight from registers, or through shared memory in whole rows.

use spec::layout::{CHUNK, panels};

use super::{Destination, Loader, RowState, Scale, across_quad, pack_operand};
use crate::gpu::{Half, Shared, opaque, store_matrices, sync_warp};
use crate::tile::{Lane, SharedTile, matrix_row_a};

/// Completes the sums of a fragment's two rows over the lanes that share them.
#[inline(always)]
pub fn complete(states: [RowState; 2]) -> [RowState; 2] {
    states.map(|state| RowState { sum: across_quad(state.sum, |a, b| a + b), ..state })
}

/// Normalises and writes a fragment of 16 rows from `first_row` of the tile on, and its rows' LSE.
#[inline(always)]
pub fn store_output<E: Half, const N: usize>(
    output: &[[f32; 4]; N],
    states: [RowState; 2],
    scale: &Scale,
    to: &Destination,
    first_row: u32,
    head_dim_v: u32,
    lane: Lane,
) {
    let mut half = 0;
    while half < 2 {
        let row = first_row + half as u32 * 8 + lane.row();
        let inverse = states[half].normaliser();
        let at = to.o.row(row).at(i64::from(lane.column() * 2));
        let mut n = 0;
        while n < N {
            if row < to.rows && (n as u32) * 8 < head_dim_v {
                let [left, right] = [output[n][2 * half], output[n][2 * half + 1]];
                at.at(n as i64 * 16).store_u32(E::pack(left * inverse, right * inverse));
            }
            n += 1;
        }
        if lane.leads_row() {
            to.store_lse(row, states[half].lse(scale));
        }
        half += 1;
    }
}

/// Normalises a fragment of 16 rows and leaves it at `staging`, which belongs to the warp, for [`send_output`].
#[inline(always)]
pub fn stage_output<E: Half, const N: usize>(
    output: &[[f32; 4]; N],
    states: [RowState; 2],
    head_dim_v: u32,
    staging: Shared,
    lane: Lane,
) {
    let (lane, tile) = staged(head_dim_v, staging, lane);
    let [upper, lower] = states.map(|state| state.normaliser());
    // Of a row that saw no key, V may have made anything.
    let [seen_upper, seen_lower] = states.map(|state| if state.sum == 0.0 { 0 } else { u32::MAX });
    let normalised = |[a, b, c, d]: [f32; 4]| [a * upper, b * upper, c * lower, d * lower];
    let (row, chunk) = matrix_row_a(lane);
    let mut v16 = 0;
    while v16 < N / 2 {
        let [a, b, c, d] = pack_operand::<E>(normalised(output[2 * v16]), normalised(output[2 * v16 + 1]));
        let rows = [a & seen_upper, b & seen_lower, c & seen_upper, d & seen_lower];
        store_matrices(tile.chunk(row, v16 as u32 * 2 + chunk), rows);
        v16 += 1;
    }
    sync_warp();
}

/// Writes the 16 rows that [`stage_output`] left, from `first_row` of the tile on, in whole rows of 16-byte stores, and their
/// LSE.
#[inline(always)]
pub fn send_output(
    states: [RowState; 2],
    scale: &Scale,
    to: &Destination,
    first_row: u32,
    head_dim_v: u32,
    staging: Shared,
    lane: Lane,
) {
    let (lane, tile) = staged(head_dim_v, staging, lane);
    let chunks = head_dim_v * 2 / CHUNK;
    Loader { thread: lane.index(), threads: 32 }.share(16 * chunks, |index| {
        let (row, chunk) = (index / chunks, index % chunks);
        let place = to.o.row(first_row + row).at(i64::from(chunk * CHUNK));
        place.store_chunk_if(first_row + row < to.rows, tile.chunk(row, chunk).load_chunk());
    });
    if lane.leads_row() {
        to.store_lse(first_row + lane.row(), states[0].lse(scale));
        to.store_lse(first_row + 8 + lane.row(), states[1].lse(scale));
    }
}

/// The staged rows. The lane is made opaque, or addresses would take up registers from one tile to the next.
#[inline(always)]
fn staged(head_dim_v: u32, staging: Shared, lane: Lane) -> (Lane, SharedTile) {
    (Lane::of(opaque(lane.index())), SharedTile::new(staging, panels(1, head_dim_v), true))
}

//! Turning V: tiles as the copy engine brings them, `[key][column]`, to tiles `[column][key]`.
//!
//! Products of elements of one byte read both operands along their depth, which for V is the keys. Matrices of 8 x 8 pairs
//! of bytes are loaded transposed, the two columns of their pairs are taken apart, and rows of 16 keys are stored.
//!
//! Of each 32 keys a row holds, for `i` from 0 to 3, first 2i, 2i+1, 8+2i, 8+2i+1, and then the same 16 keys further on. In
//! that order a lane's probabilities are the operand that it holds of the product.

use spec::AttentionArgs;

use super::{Block, Genes, Tile, Tiles};
use crate::attention::Work;
use crate::gpu::{load_matrices_transposed, pick_bytes, publish_shared, store_matrices, sync_warp};
use crate::tile::SharedTile;

/// Warps that turn V: all of the producer's warpgroup but the first, which copies.
pub(super) const WARPS: u32 = 3;

/// Turns the tiles of all steps: this warp its share of their columns. A tile has `STEPS` x 32 keys.
#[inline(always)]
pub(super) fn turn<G: Genes, const STEPS: usize>(args: &AttentionArgs, block: &Block, warp: u32, lane: u32) {
    let lead = lane == 0;
    let mut tiles = Tiles::of_this_block::<G>(args);
    loop {
        let work = Work::of(tiles.next, args, G::TILE_Q, G::ELEMENT_BYTES);
        let Tile { steps, mut slot, mut copied_slot, .. } = tiles.take::<G>(args, |_| work.coordinates());
        let mut step = 0;
        while step < steps {
            let from = SharedTile::panels(block.copied_v.wait_full(copied_slot), G::TILE_KV);
            // The phase before the first is over from the start.
            block.v.empty.at(slot.stage).wait(slot.parity ^ 1);
            let to = SharedTile::panels(block.v.at(slot), G::HEAD_DIM_V);
            let mut chunk = warp;
            while chunk < G::HEAD_DIM_V / 16 {
                turn_columns::<STEPS>(from, to, chunk, lane);
                chunk += WARPS;
            }
            publish_shared();
            sync_warp();
            block.copied_v.release(copied_slot, lead);
            if lead {
                block.v.full.at(slot.stage).arrive();
            }
            slot = slot.next(G::STAGES);
            copied_slot = copied_slot.next(G::LAYOUT.copied_stages);
            step += 1;
        }
        if !tiles.more::<G>(args) {
            break;
        }
    }
}

/// Turns the 16 columns of a chunk.
#[inline(always)]
fn turn_columns<const STEPS: usize>(from: SharedTile, to: SharedTile, chunk: u32, lane: u32) {
    let mut loaded = [[0; 4]; STEPS];
    let mut step = 0;
    while step < STEPS {
        loaded[step] = load_matrices_transposed(from.chunk(step as u32 * 32 + lane, chunk));
        step += 1;
    }
    // A lane's registers are of columns `2 (lane / 4)` and the next. Rows that one matrix stores are two apart, and the first
    // and the fifth of them in the same banks: so the last four go to the other half of the 32 keys.
    let crossed = lane >= 16;
    let (matrix, row) = (lane / 8, lane % 8);
    let (column, half) = (chunk * 16 + row * 2 + matrix / 2, (matrix % 2) ^ (row / 4));
    let mut step = 0;
    while step < STEPS {
        let [a, b, c, d] = loaded[step];
        let first = [pick_bytes::<0x6420>(a, b), pick_bytes::<0x7531>(a, b)];
        let second = [pick_bytes::<0x6420>(c, d), pick_bytes::<0x7531>(c, d)];
        let [[near_even, near_odd], [far_even, far_odd]] = if crossed { [second, first] } else { [first, second] };
        store_matrices(to.chunk(column, step as u32 * 2 + half), [near_even, far_even, near_odd, far_odd]);
        step += 1;
    }
}

//! Attention of a few query rows over many keys, on the tensor cores by `mma.sync` (sm_80 and later).
//!
//! The query heads that share K and V are rows of one tile, so that K and V are read once. Every warp of a block, and of
//! all blocks of a cluster, takes every so many-th key tile through a ring of its own: what bounds this is how fast keys arrive, and no warp
//! waits for another. In the end each block merges its warps' results, and each block of a cluster those of its share of the rows.

use spec::{AttentionArgs, layout::DecodeLayout};

use super::mma::{self, Accumulator, Ring, add_output, add_scores, load_q};
use crate::attention::{
    Loader, PackedTile, Partials, Plain, RowState, Scale, complete, finish_rows, merge, merge_for_cluster, rescale,
    softmax,
};
use crate::gpu::{
    HALF_BYTES, Half, Shared, TensorMap, arrive_cluster, block_index, cluster_rank, overlap_grids, sync_block,
    thread_index, uniform, wait_cluster,
};
use crate::tile::Lane;

/// The family's genes for one entry point, beside those that it has in common with `mma`; see [`spec::Gene`].
pub trait Genes: mma::Genes<Features = Plain> {
    /// Blocks of a cluster, which share the keys.
    const CLUSTER: u32;
    /// Where things are in shared memory, what arrives from a cluster included.
    const PLACES: DecodeLayout = DecodeLayout::new(
        Self::TILE_Q,
        Self::TILE_KV,
        Self::HEAD_DIM_QK,
        Self::HEAD_DIM_V,
        Self::WARPS,
        Self::STAGES,
        Self::CLUSTER,
        Self::COPY_ENGINE,
    );
}

/// One block's attention. The tile has `R` x 16 rows; head_dim_qk fills `QK16` x 16 columns, head_dim_v `V8` x 8, a key
/// tile `KV8` x 8. The copy engine, if it copies, takes the tensor maps of K and V, the last two.
#[inline(always)]
pub fn attention<E: Half, G: Genes, const R: usize, const QK16: usize, const KV8: usize, const V8: usize>(
    args: &AttentionArgs,
    maps: Option<[TensorMap; 3]>,
) {
    let thread = thread_index();
    let lane = Lane::of(thread);
    let warp = uniform(thread / 32);
    let rank = if G::CLUSTER > 1 { cluster_rank() } else { 0 };
    let tile = PackedTile::of(block_index() / G::CLUSTER, args, G::TILE_Q, HALF_BYTES);
    let block = Loader { thread, threads: 32 * G::WARPS };
    let ring = Ring::<G>::new(warp, rank * G::WARPS + warp, thread % 32, &tile.work, maps);
    ring.prepare(block);
    if G::CLUSTER > 1 {
        // Before anyone writes to another block's shared memory, that block must have started.
        arrive_cluster();
    }
    if G::EARLY_LAUNCH {
        overlap_grids();
    }
    ring.copy_q(&tile.q(args, HALF_BYTES), [0, tile.rows], block);
    ring.start_keys(Plain);
    let q = ring.copied_q();

    let mut q_fragments = [[[0; 4]; QK16]; R];
    if G::Q_IN_REGISTERS {
        let mut k16 = 0;
        while k16 < QK16 {
            load_q(q, 0, k16, lane, &mut q_fragments);
            k16 += 1;
        }
    }
    let scale = Scale::new(args.scale_log2);
    let mask = &tile.work.mask;
    let mut states = [[RowState::EMPTY; 2]; R];
    let mut output: Accumulator<R, V8> = [[[0.0; 4]; V8]; R];
    let mut step = 0;
    while step < ring.steps {
        let k = ring.next_k(step, Plain);
        let mut scores: Accumulator<R, KV8> = [[[0.0; 4]; KV8]; R];
        let mut k16 = 0;
        while k16 < QK16 {
            if !G::Q_IN_REGISTERS {
                load_q(q, 0, k16, lane, &mut q_fragments);
            }
            add_scores::<E, R, QK16, KV8>(&mut scores, &q_fragments, k, k16, lane);
            k16 += 1;
        }
        let first_key = ring.first_key(step);
        let hidden = mask.hides_any(tile.work.first_row, first_key + G::TILE_KV);
        let mut r = 0;
        while r < R {
            let row = r as u32 * 16 + lane.row();
            let visible = hidden.then(|| [row, row + 8].map(|row| mask.visible(tile.query_row(row))));
            finish_rows(&mut scores[r], &scale, visible, first_key, lane);
            let corrections = softmax(&mut scores[r], &mut states[r], &scale, 0);
            rescale(&mut output[r], corrections);
            r += 1;
        }
        add_output::<E, R, KV8, V8>(&mut output, &scores, ring.next_v(step), lane);
        ring.release(step);
        step += 1;
    }

    // A warp's partial result takes the place of its ring.
    ring.drain();
    let shared = Shared::base();
    let partials = Partials::new(shared.at(G::LAYOUT.rings), G::LAYOUT.partial, G::LAYOUT.ring, G::TILE_Q);
    let mut r = 0;
    while r < R {
        partials.store(&output[r], complete(states[r]), warp, r as u32 * 16, lane);
        r += 1;
    }
    sync_block();
    let to = tile.destination(args, HALF_BYTES);
    if G::CLUSTER == 1 {
        merge::<E, Plain>(&partials, G::WARPS, 0, G::HEAD_DIM_V, &to, &scale, block);
        return;
    }
    let (rows, arrived) = (G::TILE_Q / G::CLUSTER, G::PLACES.arrived);
    let inbox = Partials::new(shared.at(G::PLACES.inbox), arrived, arrived.bytes, rows);
    wait_cluster();
    merge_for_cluster(&partials, G::WARPS, &inbox, rank, G::HEAD_DIM_V, &scale, block);
    arrive_cluster();
    wait_cluster();
    merge::<E, Plain>(&inbox, G::CLUSTER, rank * rows, G::HEAD_DIM_V, &to, &scale, block);
}

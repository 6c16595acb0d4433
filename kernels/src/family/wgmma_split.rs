//! Attention on Hopper's warpgroup tensor cores (sm_90a), for sequences too short to fill the GPU with query tiles.
//!
//! A cluster holds one query tile of 64 rows. Every warpgroup of its blocks takes every so many-th key tile through a
//! ring of its own that is filled before anything is computed. Each block then gathers the partial results of its share
//! of the rows from the whole cluster and merges them.

use spec::{AttentionArgs, layout::WgmmaSplitLayout};

use crate::attention::{
    Destination, Loader, Partials, Plain, RowState, Scale, Work, complete, copy_panels, finish_scores, issue_output,
    issue_scores, merge, pack_probabilities, rescale, softmax,
};
use crate::gpu::wgmma::{Accumulator, InFlight, Product, commit_products, pin};
use crate::gpu::{
    HALF_BYTES, Half, Mbarrier, Shared, TensorMap, any_lane, arrive_cluster, block_index, cluster_rank, overlap_grids,
    publish_mbarriers, sync_block, sync_group, thread_index, uniform, wait_cluster,
};
use crate::tile::Lane;

/// The family's genes for one entry point; see [`spec::Gene`].
pub trait Genes {
    /// Columns of Q and K.
    const HEAD_DIM_QK: u32;
    /// Columns of V and O.
    const HEAD_DIM_V: u32;
    /// Query rows of a cluster.
    const TILE_Q: u32;
    /// Keys of one step of a warpgroup.
    const TILE_KV: u32;
    /// Warpgroups of a block.
    const GROUPS: u32;
    /// Blocks of a cluster.
    const CLUSTER: u32;
    /// K/V tiles a warpgroup's ring holds.
    const STAGES: u32;
    /// One in so many exponentials by a polynomial; 0 for none.
    const EXP_POLY: u32;
    /// Whether the output is rescaled only if some row of the warp found a new maximum.
    const LAZY_RESCALE: bool;
    /// Whether blocks start while the kernel before them ends.
    const EARLY_LAUNCH: bool;
    /// Where things are in shared memory.
    const LAYOUT: WgmmaSplitLayout = WgmmaSplitLayout::new(
        Self::TILE_Q,
        Self::TILE_KV,
        Self::HEAD_DIM_QK,
        Self::HEAD_DIM_V,
        Self::STAGES,
        Self::GROUPS,
        Self::CLUSTER,
    );
    /// Warpgroups that share the keys.
    const SHARES: u32 = Self::GROUPS * Self::CLUSTER;
}

/// One warpgroup's ring: K and V of a stage have a barrier each.
#[derive(Clone, Copy)]
struct Ring {
    start: Shared,
    full: Mbarrier,
    share: u32,
}

impl Ring {
    #[inline(always)]
    fn new<G: Genes>(shared: Shared, group: u32, rank: u32) -> Self {
        Self {
            start: shared.at(G::LAYOUT.rings + group * G::LAYOUT.ring),
            full: Mbarrier::new(shared).at(1 + group * 2 * G::STAGES),
            share: rank * G::GROUPS + group,
        }
    }

    /// First key of a step's tile.
    #[inline(always)]
    fn first_key<G: Genes>(&self, step: u32) -> u32 {
        (step * G::SHARES + self.share) * G::TILE_KV
    }

    /// Starts the copies of a step.
    #[inline(always)]
    fn fill<G: Genes>(&self, step: u32, work: &Work, [k, v]: [TensorMap; 2]) {
        let stage = step % G::STAGES;
        let from = [work.batch, work.head_kv, self.first_key::<G>(step)];
        let (to, full) = (self.start.at(stage * G::LAYOUT.stage), self.full.at(2 * stage));
        copy_panels(k, to, full, from, G::TILE_KV, G::HEAD_DIM_QK);
        copy_panels(v, to.at(G::LAYOUT.v_in_stage), full.at(1), from, G::TILE_KV, G::HEAD_DIM_V);
    }
}

/// One block's attention. A key tile fills `KV8` x 8 columns of scores and `KV16` x 16 rows of V, head_dim_v `V8` x 8.
/// The three tensor maps are Q's, K's and V's.
#[inline(always)]
pub fn attention<E: Half, G: Genes, const KV8: usize, const KV16: usize, const V8: usize>(
    args: &AttentionArgs,
    [q_map, k_map, v_map]: [TensorMap; 3],
) where
    InFlight<E, KV8>: Product<KV8>,
    InFlight<E, V8>: Product<V8>,
{
    let thread = thread_index();
    let group = uniform(thread / 128);
    let lane = Lane::of(thread);
    let rank = if G::CLUSTER > 1 { cluster_rank() } else { 0 };
    let shared = Shared::base();
    let q = shared.at(G::LAYOUT.q);
    let q_full = Mbarrier::new(shared);
    let work = Work::of(block_index() / G::CLUSTER, args, G::TILE_Q, HALF_BYTES);
    let tiles = work.keys().div_ceil(G::TILE_KV);
    let ring = Ring::new::<G>(shared, group, rank);
    let steps = (tiles + G::SHARES - 1 - ring.share) / G::SHARES;

    let to = Destination::of(work.coordinates(), work.rows, args, HALF_BYTES);
    if thread == 0 {
        let mut barrier = 0;
        while barrier < 1 + 2 * G::STAGES * G::GROUPS {
            q_full.at(barrier).init(1);
            barrier += 1;
        }
        publish_mbarriers();
    }
    sync_block();
    if G::CLUSTER > 1 {
        // Before anyone writes to another block's shared memory, that block must have started.
        arrive_cluster();
    }
    if G::EARLY_LAUNCH {
        overlap_grids();
    }
    let lead = thread.is_multiple_of(128);
    // The same thread as above in other words: for the same ones the compiler would copy the barrier into both arms of a branch.
    if lead && group == 0 {
        copy_panels(q_map, q, q_full, [work.batch, work.head, work.first_row], G::TILE_Q, G::HEAD_DIM_QK);
    }
    if lead {
        let mut step = 0;
        while step < steps.min(G::STAGES) {
            ring.fill::<G>(step, &work, [k_map, v_map]);
            step += 1;
        }
    }

    let scale = Scale::new(args.scale_log2);
    let first_row = thread % 128 / 32 * 16;
    let mut states = [RowState::EMPTY; 2];
    let mut output = Accumulator::<V8>::ZERO;
    q_full.wait(0);
    let mut step = 0;
    while step < steps {
        let (stage, parity) = (step % G::STAGES, step / G::STAGES % 2);
        let k = ring.start.at(stage * G::LAYOUT.stage);
        let mut scores = Accumulator::<KV8>::ZERO.begin::<E>();
        ring.full.at(2 * stage).wait(parity);
        issue_scores(&mut scores, q, k, G::HEAD_DIM_QK);
        commit_products();
        let mut scores = scores.wait(0);
        let row = work.first_row + first_row;
        finish_scores(&mut scores.values, &scale, &work.mask, row, ring.first_key::<G>(step), lane);
        let corrections = softmax(&mut scores.values, &mut states, &scale, G::EXP_POLY);
        if !G::LAZY_RESCALE || any_lane(corrections != [1.0; 2]) {
            rescale(&mut output.values, corrections);
        }
        let mut probabilities = pack_probabilities::<E, KV8, KV16>(&scores.values);
        ring.full.at(2 * stage + 1).wait(parity);
        pin(&mut probabilities);
        let mut products = output.begin::<E>();
        issue_output(&mut products, &probabilities, k.at(G::LAYOUT.v_in_stage));
        commit_products();
        output = products.wait(0);
        if step + G::STAGES < steps {
            // All four warps have read the stage.
            sync_group(1 + group, 128);
            if lead {
                ring.fill::<G>(step + G::STAGES, &work, [k_map, v_map]);
            }
        }
        step += 1;
    }

    let rows = G::TILE_Q / G::CLUSTER;
    let partials = Partials::new(shared.at(G::LAYOUT.partials), G::LAYOUT.partial, G::LAYOUT.partial.bytes, rows);
    let states = complete(states);
    if G::CLUSTER > 1 {
        wait_cluster();
        partials.store_to_cluster(&output.values, states, ring.share, first_row, lane);
        arrive_cluster();
        wait_cluster();
    } else {
        partials.store(&output.values, states, ring.share, first_row, lane);
        sync_block();
    }
    let block = Loader { thread, threads: 128 * G::GROUPS };
    merge::<E, Plain>(&partials, G::SHARES, rank * rows, G::HEAD_DIM_V, &to, &scale, block);
}

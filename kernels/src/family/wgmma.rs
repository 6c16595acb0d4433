//! Attention on Hopper's warpgroup tensor cores (sm_90a), for sequences that fill the GPU with query tiles.
//!
//! One warpgroup brings K and V tiles through the copy engine into two rings; the others hold 64 query rows each. With
//! `OVERLAP` a consumer issues the scores of the next step before this step's softmax; with `PING_PONG` two consumers
//! take turns, so that one's softmax runs beside the other's products.

use spec::{AttentionArgs, layout::WgmmaLayout, layout::panels};

use crate::attention::{
    RowState, Scale, Work, complete, copy_panels, finish_scores, issue_output, issue_scores, pack_probabilities,
    rescale, softmax, store_output,
};
use crate::gpu::wgmma::{Accumulator, InFlight, Product, commit_products, pin};
use crate::gpu::{
    Element, Mbarrier, Shared, TensorMap, any_lane, arrive_group, grow_registers, publish_mbarriers, shrink_registers,
    sync_block, sync_group, thread_index, uniform,
};
use crate::tile::Lane;

/// The family's genes for one entry point; see [`spec::Gene`].
pub trait Genes {
    /// Columns of Q and K.
    const HEAD_DIM_QK: u32;
    /// Columns of V and O.
    const HEAD_DIM_V: u32;
    /// Query rows of a block, 64 for each consumer.
    const TILE_Q: u32;
    /// Keys of one step.
    const TILE_KV: u32;
    /// Tiles of each ring.
    const STAGES: u32;
    /// One in so many exponentials by a polynomial; 0 for none.
    const EXP_POLY: u32;
    /// Whether the next step's scores are computed beside this step's softmax.
    const OVERLAP: bool;
    /// Whether two consumers take turns.
    const PING_PONG: bool;
    /// Whether the output is rescaled only if some row of the warp found a new maximum.
    const LAZY_RESCALE: bool;
    /// Where things are in shared memory.
    const LAYOUT: WgmmaLayout =
        WgmmaLayout::new(Self::TILE_Q, Self::TILE_KV, Self::HEAD_DIM_QK, Self::HEAD_DIM_V, Self::STAGES);
    /// Warpgroups that compute.
    const CONSUMERS: u32 = Self::TILE_Q / 64;
}

/// A place in a ring and how often it was filled.
#[derive(Clone, Copy)]
struct Slot {
    stage: u32,
    parity: u32,
}

impl Slot {
    const FIRST: Self = Self { stage: 0, parity: 0 };

    #[inline(always)]
    fn next(self, stages: u32) -> Self {
        if self.stage + 1 == stages {
            Self { stage: 0, parity: self.parity ^ 1 }
        } else {
            Self { stage: self.stage + 1, ..self }
        }
    }
}

/// A ring of tiles: filled by the producer, emptied by all consumers.
#[derive(Clone, Copy)]
struct Ring {
    tiles: Shared,
    tile: u32,
    full: Mbarrier,
    empty: Mbarrier,
}

impl Ring {
    #[inline(always)]
    fn at(&self, slot: Slot) -> Shared {
        self.tiles.at(slot.stage * self.tile)
    }

    #[inline(always)]
    fn wait_full(&self, slot: Slot) -> Shared {
        self.full.at(slot.stage).wait(slot.parity);
        self.at(slot)
    }

    #[inline(always)]
    fn release(&self, slot: Slot, lead: bool) {
        if lead {
            self.empty.at(slot.stage).arrive();
        }
    }
}

/// Shared memory by name.
struct Block {
    q: Shared,
    q_full: Mbarrier,
    k: Ring,
    v: Ring,
}

impl Block {
    #[inline(always)]
    fn new<G: Genes>(shared: Shared) -> Self {
        let barrier = Mbarrier::new(shared);
        let ring = |tiles, tile, first| Ring {
            tiles: shared.at(tiles),
            tile,
            full: barrier.at(first),
            empty: barrier.at(first + G::STAGES),
        };
        Self {
            q: shared.at(G::LAYOUT.q),
            q_full: barrier,
            k: ring(G::LAYOUT.k, G::LAYOUT.k_tile, 1),
            v: ring(G::LAYOUT.v, G::LAYOUT.v_tile, 1 + 2 * G::STAGES),
        }
    }

    #[inline(always)]
    fn init<G: Genes>(&self) {
        self.q_full.init(1);
        let mut stage = 0;
        while stage < G::STAGES {
            self.k.full.at(stage).init(1);
            self.v.full.at(stage).init(1);
            self.k.empty.at(stage).init(G::CONSUMERS);
            self.v.empty.at(stage).init(G::CONSUMERS);
            stage += 1;
        }
        publish_mbarriers();
    }
}

/// One block's attention. A key tile fills `KV8` x 8 columns of scores and `KV16` x 16 rows of V, head_dim_v `V8` x 8.
/// The three tensor maps are Q's, K's and V's.
#[inline(always)]
pub fn attention<E: Element, G: Genes, const KV8: usize, const KV16: usize, const V8: usize>(
    args: &AttentionArgs,
    maps: [TensorMap; 3],
) where
    InFlight<E, KV8>: Product<KV8>,
    InFlight<E, V8>: Product<V8>,
{
    let thread = thread_index();
    let warpgroup = uniform(thread / 128);
    let block = Block::new::<G>(Shared::base());
    if thread == 0 {
        block.init::<G>();
    }
    if thread == G::CONSUMERS * 128 {
        maps.map(TensorMap::prefetch);
    }
    sync_block();
    let work = Work::of_this_block(args, G::TILE_Q);
    let steps = work.keys().div_ceil(G::TILE_KV);
    if warpgroup == G::CONSUMERS {
        match G::CONSUMERS {
            1 => shrink_registers::<56>(),
            2 => shrink_registers::<24>(),
            _ => shrink_registers::<32>(),
        }
        if thread == G::CONSUMERS * 128 {
            produce::<G>(&block, &work, maps, steps);
        }
    } else {
        match G::CONSUMERS {
            1 | 2 => grow_registers::<240>(),
            _ => grow_registers::<160>(),
        }
        consume::<E, G, KV8, KV16, V8>(args, &block, &work, steps, warpgroup, thread % 128);
    }
}

/// The producer: one thread that keeps the rings full.
#[inline(always)]
fn produce<G: Genes>(block: &Block, work: &Work, [q, k, v]: [TensorMap; 3], steps: u32) {
    block.q_full.arrive_expecting(panels(G::TILE_Q, G::HEAD_DIM_QK));
    let mut consumer = 0;
    while consumer < G::CONSUMERS {
        let to = block.q.at(consumer * panels(64, G::HEAD_DIM_QK));
        let row = work.first_row + consumer * 64;
        copy_panels(q, to, block.q_full, [work.batch, work.head, row], 64, G::HEAD_DIM_QK);
        consumer += 1;
    }
    let mut slot = Slot::FIRST;
    let mut step = 0;
    while step < steps {
        let from = [work.batch, work.head_kv, step * G::TILE_KV];
        for (ring, map, head_dim) in [(&block.k, k, G::HEAD_DIM_QK), (&block.v, v, G::HEAD_DIM_V)] {
            // The phase before the first is over from the start.
            ring.empty.at(slot.stage).wait(slot.parity ^ 1);
            let full = ring.full.at(slot.stage);
            full.arrive_expecting(ring.tile);
            copy_panels(map, ring.at(slot), full, from, G::TILE_KV, head_dim);
        }
        slot = slot.next(G::STAGES);
        step += 1;
    }
}

/// A consumer: 64 query rows.
#[inline(always)]
fn consume<E: Element, G: Genes, const KV8: usize, const KV16: usize, const V8: usize>(
    args: &AttentionArgs,
    block: &Block,
    work: &Work,
    steps: u32,
    consumer: u32,
    thread: u32,
) where
    InFlight<E, KV8>: Product<KV8>,
    InFlight<E, V8>: Product<V8>,
{
    let lane = Lane::of(thread);
    let lead = thread == 0;
    let first_row = consumer * 64 + thread / 32 * 16;
    let scale = Scale::new(args.scale_log2);
    let q = block.q.at(consumer * panels(64, G::HEAD_DIM_QK));
    let finish = |scores: &mut [[f32; 4]; KV8], step: u32| {
        finish_scores(scores, &scale, &work.mask, work.first_row + first_row, step * G::TILE_KV, lane);
    };
    let mut states = [RowState::EMPTY; 2];
    let mut output = Accumulator::<V8>::ZERO;
    let mut slot = Slot::FIRST;
    block.q_full.wait(0);

    if !G::OVERLAP {
        let mut step = 0;
        while step < steps {
            let mut scores = Accumulator::<KV8>::ZERO.begin::<E>();
            issue_scores(&mut scores, q, block.k.wait_full(slot), G::HEAD_DIM_QK);
            commit_products();
            let mut scores = scores.wait(0);
            block.k.release(slot, lead);
            finish(&mut scores.values, step);
            let corrections = softmax(&mut scores.values, &mut states, &scale, G::EXP_POLY);
            rescale_if_needed::<G, V8>(&mut output, corrections);
            let mut probabilities = pack_probabilities::<E, KV8, KV16>(&scores.values);
            let v = block.v.wait_full(slot);
            pin(&mut probabilities);
            let mut products = output.begin::<E>();
            issue_output(&mut products, &probabilities, v);
            commit_products();
            output = products.wait(0);
            block.v.release(slot, lead);
            slot = slot.next(G::STAGES);
            step += 1;
        }
    } else if steps > 0 {
        let mut scores = Accumulator::<KV8>::ZERO.begin::<E>();
        issue_scores(&mut scores, q, block.k.wait_full(slot), G::HEAD_DIM_QK);
        commit_products();
        let mut scores = scores.wait(0);
        block.k.release(slot, lead);
        finish(&mut scores.values, 0);
        softmax(&mut scores.values, &mut states, &scale, G::EXP_POLY);
        let mut probabilities = pack_probabilities::<E, KV8, KV16>(&scores.values);
        if G::PING_PONG && consumer == 1 {
            arrive_group(1, 256);
        }
        let mut step = 1;
        while step < steps {
            let last = slot;
            slot = slot.next(G::STAGES);
            let k = block.k.wait_full(slot);
            if G::PING_PONG {
                sync_group(1 + consumer, 256);
            }
            pin(&mut probabilities);
            let mut products = output.begin::<E>();
            let mut scores = Accumulator::<KV8>::ZERO.begin::<E>();
            issue_scores(&mut scores, q, k, G::HEAD_DIM_QK);
            commit_products();
            issue_output(&mut products, &probabilities, block.v.wait_full(last));
            commit_products();
            if G::PING_PONG {
                arrive_group(2 - consumer, 256);
            }
            let mut scores = scores.wait(1);
            block.k.release(slot, lead);
            finish(&mut scores.values, step);
            let corrections = softmax(&mut scores.values, &mut states, &scale, G::EXP_POLY);
            output = products.wait(0);
            block.v.release(last, lead);
            // Packing before the wait would define operands while products that read them are under way.
            pin(&mut scores.values);
            probabilities = pack_probabilities::<E, KV8, KV16>(&scores.values);
            rescale_if_needed::<G, V8>(&mut output, corrections);
            step += 1;
        }
        let v = block.v.wait_full(slot);
        pin(&mut probabilities);
        let mut products = output.begin::<E>();
        issue_output(&mut products, &probabilities, v);
        commit_products();
        output = products.wait(0);
    }
    let states = complete(states);
    store_output::<E, V8>(&output.values, states, &scale, work, first_row, G::HEAD_DIM_V, lane);
}

#[inline(always)]
fn rescale_if_needed<G: Genes, const V8: usize>(output: &mut Accumulator<V8>, corrections: [f32; 2]) {
    if !G::LAZY_RESCALE || any_lane(corrections != [1.0; 2]) {
        rescale(&mut output.values, corrections);
    }
}

//! Copies of Q, K and V ahead of the steps that read them: by the threads themselves (`cp.async`), or by the copy engine.

use core::marker::PhantomData;

use super::Genes;
use crate::attention::{Features, Loader, Operand, Source, Span, Work, copy_panels, copy_tile};
use crate::gpu::{
    CacheHint, HALF_BYTES, Mbarrier, Shared, TensorMap, commit, publish_mbarriers, sync_block, sync_group, wait,
};
use crate::tile::SharedTile;

/// The query tile of a block and the K/V tiles of a group of its warps.
///
/// Threads copy `STAGES - 1` steps ahead. Each of their tiles is two groups of copies, K, then V; Q is one before all of them.
/// The copy engine fills every stage at once; for Q and each K and V tile there is a barrier.
pub(in crate::family) struct Ring<'a, G: Genes> {
    q: SharedTile,
    k: SharedTile,
    v: SharedTile,
    group: u32,
    share: u32,
    pub(in crate::family) loader: Loader,
    pub(in crate::family) work: &'a Work,
    /// Keys that some row of the block sees.
    keys: u32,
    /// Key tiles of this group.
    pub(in crate::family) steps: u32,
    /// Where the copy engine finds Q, K and V, if it is to copy.
    maps: Option<[TensorMap; 3]>,
    genes: PhantomData<G>,
}

impl<'a, G: Genes> Ring<'a, G> {
    /// That of the `group` of which a thread is number `thread`, and which has number `share` among all that share the keys.
    #[inline(always)]
    pub(in crate::family) fn new(
        group: u32,
        share: u32,
        thread: u32,
        work: &'a Work,
        maps: Option<[TensorMap; 3]>,
    ) -> Self {
        let start = Self::ring(group);
        let tile = |start, pitch, rows| {
            if maps.is_some() {
                SharedTile::panels(start, rows)
            } else {
                SharedTile::new(start, pitch, G::SHARED_PAD == 0)
            }
        };
        let keys = work.keys();
        let tiles = keys.div_ceil(G::TILE_KV);
        Self {
            q: tile(Shared::base(), G::LAYOUT.qk_pitch, G::TILE_Q),
            k: tile(start, G::LAYOUT.qk_pitch, G::TILE_KV),
            v: tile(start.at(G::STAGES * G::LAYOUT.k_tile), G::LAYOUT.v_pitch, G::TILE_KV),
            group,
            share,
            loader: Loader { thread, threads: G::GROUP_THREADS },
            work,
            keys,
            steps: (tiles + G::SHARES - 1 - share) / G::SHARES,
            maps,
            genes: PhantomData,
        }
    }

    /// First key of a step's tile, and the one after its last that some row of the block sees.
    #[inline(always)]
    pub(in crate::family) fn keys_of(&self, step: u32) -> [u32; 2] {
        let first = self.first_key(step);
        [first, (first + G::TILE_KV).min(self.keys)]
    }

    /// First key of a step's tile.
    #[inline(always)]
    pub(in crate::family) fn first_key(&self, step: u32) -> u32 {
        (step * G::SHARES + self.share) * G::TILE_KV
    }

    /// Prepares the copies; nothing is read yet.
    #[inline(always)]
    pub(in crate::family) fn prepare(&self, block: Loader) {
        if self.maps.is_some() {
            if block.thread == 0 {
                // One thread: for several at once these instructions are taken one by one, and take longer.
                let mut barrier = 0;
                while barrier < 1 + 2 * G::KV_SPLIT * G::STAGES {
                    Self::q_full().at(barrier).init(1);
                    barrier += 1;
                }
                publish_mbarriers();
            }
            sync_block();
        }
    }

    /// Starts copying Q, by all threads of the `block`, and K and V of the first steps.
    #[inline(always)]
    pub(in crate::family) fn start(&self, features: G::Features, block: Loader) {
        if let Some([q, ..]) = self.maps {
            // By a warp that has no other copies to ask for, if there is one: K is asked for meanwhile.
            if block.thread == block.threads - 32 {
                let Work { batch, head, first_row, .. } = *self.work;
                let from = [batch, head, first_row];
                copy_panels(q, Shared::base(), Self::q_full(), from, G::TILE_Q, G::HEAD_DIM_QK);
            }
        } else {
            let rows = [self.work.first_row, self.work.first_row + self.work.rows];
            self.copy_q(&self.work.q, rows, block);
        }
        self.start_keys(features);
    }

    /// Starts copying Q from its `first` row to before its `end`, by all threads of the `block`.
    #[inline(always)]
    pub(in crate::family) fn copy_q(&self, source: &impl Source, [first, end]: [u32; 2], block: Loader) {
        let span = Span { first, end, rows: G::TILE_Q, row_bytes: G::HEAD_DIM_QK * 2 };
        copy_tile(self.q, source, span, CacheHint::None, block);
        commit();
    }

    /// Starts copying K and V of the first steps.
    #[inline(always)]
    pub(in crate::family) fn start_keys(&self, features: G::Features) {
        if self.maps.is_some() {
            if self.leads() {
                let mut step = 0;
                while step < G::STAGES {
                    self.ask_for(step);
                    step += 1;
                }
            }
            return;
        }
        let mut step = 0;
        while step < G::AHEAD {
            self.copy(step, features);
            step += 1;
        }
    }

    /// Waits for Q.
    #[inline(always)]
    pub(in crate::family) fn q(&self) -> SharedTile {
        if self.maps.is_some() {
            Self::q_full().wait(0);
        } else {
            // Q is the oldest group of copies; every thread of the block brought some of it.
            wait(2 * G::AHEAD);
            sync_block();
        }
        self.q
    }

    /// Waits for Q where threads copied it, whatever copies K and V.
    #[inline(always)]
    pub(in crate::family) fn copied_q(&self) -> SharedTile {
        wait(if self.maps.is_some() { 0 } else { 2 * G::AHEAD });
        sync_block();
        self.q
    }

    /// Waits for a step's K and starts the copies of the step that takes the oldest stage.
    #[inline(always)]
    pub(in crate::family) fn next_k(&self, step: u32, features: G::Features) -> SharedTile {
        if self.maps.is_some() {
            self.k_full(step).wait(step / G::STAGES % 2);
        } else if G::STAGES == 1 {
            if step > 0 {
                // The only stage is free once all warps are past the step before.
                self.sync();
                self.copy(step, features);
            }
            wait(1);
            self.sync();
        } else {
            wait(2 * G::STAGES - 3);
            // Also says that all warps are past the step before, whose stage the next copies take.
            self.sync();
            self.copy(step + G::STAGES - 1, features);
        }
        self.k.at(Self::k_place(step))
    }

    /// Waits for a step's V.
    #[inline(always)]
    pub(in crate::family) fn next_v(&self, step: u32) -> SharedTile {
        if self.maps.is_some() {
            self.v_full(step).wait(step / G::STAGES % 2);
        } else {
            wait(2 * G::STAGES - 2);
            self.sync();
        }
        self.v.at(Self::v_place(step))
    }

    /// Lets the copy engine have the tiles of a step that this warp is past.
    #[inline(always)]
    pub(in crate::family) fn release(&self, step: u32) {
        if self.maps.is_some() && step + G::STAGES < self.steps {
            self.sync();
            if self.leads() {
                self.ask_for(step + G::STAGES);
            }
        }
    }

    /// Waits until the group is past its last step and nothing is copied to the ring any more, so that it can be put to other use.
    #[inline(always)]
    pub(in crate::family) fn drain(&self) {
        // The copy engine brings nothing that the group has not waited for.
        if self.maps.is_none() {
            wait(0);
        }
        self.sync();
    }

    /// Starts the copies of a step; beyond the last step the groups of copies are empty, so that counting them goes on.
    #[inline(always)]
    fn copy(&self, step: u32, features: G::Features) {
        let span =
            |head_dim| Span { first: self.first_key(step), end: self.keys, rows: G::TILE_KV, row_bytes: head_dim * 2 };
        if step < self.steps {
            let (tile, span) = (self.k.at(Self::k_place(step)), span(G::HEAD_DIM_QK));
            if G::Features::ON {
                copy_tile(tile, &features.source(self.work, Operand::K, HALF_BYTES), span, G::CACHE_HINT, self.loader);
            } else {
                copy_tile(tile, &self.work.k, span, G::CACHE_HINT, self.loader);
            }
        }
        commit();
        if step < self.steps {
            let (tile, span) = (self.v.at(Self::v_place(step)), span(G::HEAD_DIM_V));
            if G::Features::ON {
                copy_tile(tile, &features.source(self.work, Operand::V, HALF_BYTES), span, G::CACHE_HINT, self.loader);
            } else {
                copy_tile(tile, &self.work.v, span, G::CACHE_HINT, self.loader);
            }
        }
        commit();
    }

    /// Lets the copy engine copy K and V of a step, if there is such a step.
    #[inline(always)]
    fn ask_for(&self, step: u32) {
        if let Some([_, k, v]) = self.maps
            && step < self.steps
        {
            let from = [self.work.batch, self.work.head_kv, self.first_key(step)];
            let first = Self::ring(self.group);
            let (k_to, v_to) =
                (first.at(Self::k_place(step)), first.at(G::STAGES * G::LAYOUT.k_tile + Self::v_place(step)));
            copy_panels(k, k_to, self.k_full(step), from, G::TILE_KV, G::HEAD_DIM_QK);
            copy_panels(v, v_to, self.v_full(step), from, G::TILE_KV, G::HEAD_DIM_V);
        }
    }

    /// Start of a group's ring.
    #[inline(always)]
    fn ring(group: u32) -> Shared {
        Shared::base().at(G::LAYOUT.rings + group * G::LAYOUT.ring)
    }

    /// Where a step's K is from the ring's first K tile on.
    #[inline(always)]
    fn k_place(step: u32) -> u32 {
        step % G::STAGES * G::LAYOUT.k_tile
    }

    /// Where its V is from the ring's first V tile on.
    #[inline(always)]
    fn v_place(step: u32) -> u32 {
        step % G::STAGES * G::LAYOUT.v_tile
    }

    /// The barrier of Q; those of the rings follow.
    #[inline(always)]
    fn q_full() -> Mbarrier {
        Mbarrier::new(Shared::base().at(G::LAYOUT.barriers))
    }

    /// The barrier of a step's K.
    #[inline(always)]
    fn k_full(&self, step: u32) -> Mbarrier {
        Self::q_full().at(1 + self.group * 2 * G::STAGES + step % G::STAGES)
    }

    /// The barrier of a step's V.
    #[inline(always)]
    fn v_full(&self, step: u32) -> Mbarrier {
        Self::q_full().at(1 + self.group * 2 * G::STAGES + G::STAGES + step % G::STAGES)
    }

    /// Whether this thread speaks to the copy engine for the group.
    #[inline(always)]
    fn leads(&self) -> bool {
        self.loader.thread == 0
    }

    #[inline(always)]
    fn sync(&self) {
        sync_group(1 + self.group, G::GROUP_THREADS);
    }
}

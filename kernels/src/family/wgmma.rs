//! Attention on Hopper's warpgroup tensor cores (sm_90a), for sequences that fill the GPU with query tiles.
//!
//! One warpgroup brings K and V tiles through the copy engine into two rings; the others hold 64 query rows each. With
//! `OVERLAP` a consumer issues the scores of the next step before this step's softmax; with `PING_PONG` two consumers
//! take turns, so that one's softmax runs beside the other's products. With `PERSISTENT` a block takes one query tile after
//! another, and the producer is ahead by the first keys of the next.
//!
//! Where elements have one byte, other warps of the producer's warpgroup [turn](turn::turn) V on its way from one ring to
//! another, and consumers put what tensor cores add up [aside](aside) before it is long.

mod aside;
mod turn;

use core::marker::PhantomData;

use spec::{
    AttentionArgs,
    layout::{
        BARRIER, BARRIERS, CHUNK, POSTED, SUMMED_KEYS, WGMMA_REGISTERS as REGISTERS,
        WGMMA_TURNING_REGISTERS as TURNING_REGISTERS, WgmmaLayout, panels, words,
    },
};

use crate::attention::{
    Coordinates, Destination, Mask, Multiplied, Rescale, RowState, Scale, Work, complete, copy_panels, finish_scores,
    issue_output, issue_scores, pack_probabilities, rescale, scores_by_warp, send_output, softmax_against,
    softmax_raised, stage_output,
};
use crate::gpu::wgmma::{Accumulator, InFlight, Operand, Product, commit_products, pin, settle};
use crate::gpu::{
    HALF_BYTES, Mbarrier, Shared, TensorMap, any_lane, arrive_group, block_index, grid_blocks, grow_registers, opaque,
    overlap_grids, publish_mbarriers, publish_shared, shrink_registers, sync_block, sync_group, sync_warp,
    thread_index, uniform,
};
use crate::tile::Lane;

/// The family's genes for one entry point; see [`spec::Gene`].
pub trait Genes {
    /// Bytes of an element of Q, K and V.
    const ELEMENT_BYTES: u32;
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
    /// When the output is rescaled.
    const RESCALE: Rescale;
    /// Whether a block takes one query tile after another.
    const PERSISTENT: bool;
    /// Whether blocks start while the kernel before them ends.
    const EARLY_LAUNCH: bool;
    /// Where things are in shared memory.
    const LAYOUT: WgmmaLayout = WgmmaLayout::new(
        Self::TILE_Q,
        Self::TILE_KV,
        Self::HEAD_DIM_QK,
        Self::HEAD_DIM_V,
        Self::STAGES,
        Self::PERSISTENT,
        Self::ELEMENT_BYTES,
    );
    /// Words of 16 bits in a row of Q and K.
    const WORDS_QK: u32 = words(Self::HEAD_DIM_QK, Self::ELEMENT_BYTES);
    /// Words of 16 bits in a row of V.
    const WORDS_V: u32 = words(Self::HEAD_DIM_V, Self::ELEMENT_BYTES);
    /// Whether V is turned before it is multiplied, and sums are put aside.
    const TURNED: bool = Self::ELEMENT_BYTES == 1;
    /// Steps after which sums are put aside.
    const SUMMED_STEPS: u32 = SUMMED_KEYS.div_ceil(Self::TILE_KV);
    /// Warpgroups that compute.
    const CONSUMERS: u32 = Self::TILE_Q / 64;
    /// How many arrivals say that something is no longer needed: each warp of the consumers speaks for itself.
    const CONSUMER_WARPS: u32 = Self::CONSUMERS * 4;
}

/// A place in a ring and how often it was filled.
#[derive(Clone, Copy)]
struct Slot {
    stage: u32,
    parity: u32,
}

impl Slot {
    /// The slot of step `count`, counted over all tiles of the block.
    #[inline(always)]
    fn of(count: u32, stages: u32) -> Self {
        Self { stage: count % stages, parity: count / stages % 2 }
    }

    #[inline(always)]
    fn next(self, stages: u32) -> Self {
        if self.stage + 1 == stages {
            Self { stage: 0, parity: self.parity ^ 1 }
        } else {
            Self { stage: self.stage + 1, ..self }
        }
    }
}

/// A ring of tiles: filled by the producer, emptied by the warps of all consumers.
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

/// Shared memory by name. Each consumer's rows of Q come, and those of O go, by themselves, so that none waits for the
/// others.
struct Block {
    rows: Shared,
    posted: Shared,
    sums: Shared,
    rows_full: Mbarrier,
    rows_empty: Mbarrier,
    k: Ring,
    v: Ring,
    /// V as it is copied: the same ring, unless it is turned.
    copied_v: Ring,
}

impl Block {
    #[inline(always)]
    fn new<G: Genes>(shared: Shared) -> Self {
        const { assert!((4 * G::CONSUMERS + 6 * G::STAGES) * BARRIER <= POSTED) };
        let barrier = Mbarrier::new(shared);
        let ring = |tiles, tile, first, stages| Ring {
            tiles: shared.at(tiles),
            tile,
            full: barrier.at(first),
            empty: barrier.at(first + stages),
        };
        let (of_k, of_v) = (4 * G::CONSUMERS, 4 * G::CONSUMERS + 2 * G::STAGES);
        let of_copied_v = if G::TURNED { of_v + 2 * G::STAGES } else { of_v };
        Self {
            rows: shared.at(BARRIERS),
            posted: shared.at(POSTED),
            sums: shared.at(G::LAYOUT.sums),
            rows_full: barrier,
            rows_empty: barrier.at(2 * G::CONSUMERS),
            k: ring(G::LAYOUT.k, G::LAYOUT.k_tile, of_k, G::STAGES),
            v: ring(G::LAYOUT.v, G::LAYOUT.v_tile, of_v, G::STAGES),
            copied_v: ring(G::LAYOUT.copied_v, G::LAYOUT.copied_v_tile, of_copied_v, G::LAYOUT.copied_stages),
        }
    }

    #[inline(always)]
    fn init<G: Genes>(&self) {
        let mut place = 0;
        while place < 2 * G::CONSUMERS {
            self.rows_full.at(place).init(1);
            self.rows_empty.at(place).init(4);
            place += 1;
        }
        let mut stage = 0;
        while stage < G::STAGES {
            self.k.full.at(stage).init(1);
            self.v.full.at(stage).init(if G::TURNED { turn::WARPS } else { 1 });
            self.k.empty.at(stage).init(G::CONSUMER_WARPS);
            self.v.empty.at(stage).init(G::CONSUMER_WARPS);
            stage += 1;
        }
        let mut stage = 0;
        while G::TURNED && stage < G::LAYOUT.copied_stages {
            self.copied_v.full.at(stage).init(1);
            self.copied_v.empty.at(stage).init(turn::WARPS);
            stage += 1;
        }
        publish_mbarriers();
    }

    /// Says which tile a consumer's rows are of, before they come.
    #[inline(always)]
    fn post<G: Genes>(&self, place: Slot, consumer: u32, tile: Coordinates) {
        self.posted_at::<G>(place, consumer).store_chunk(tile.to_words());
    }

    /// Waits for a consumer's rows of Q. Says which tile they are of.
    #[inline(always)]
    fn take_rows<G: Genes>(&self, place: Slot, consumer: u32) -> Coordinates {
        self.rows_full.at(place.stage * G::CONSUMERS + consumer).wait(place.parity);
        let tile = self.posted::<G>(place, consumer);
        Coordinates { first_row: uniform(tile.first_row), ..tile }
    }

    /// Which tile a consumer's rows are of, once they are there and until it lets them go.
    #[inline(always)]
    fn posted<G: Genes>(&self, place: Slot, consumer: u32) -> Coordinates {
        Coordinates::from_words(self.posted_at::<G>(place, consumer).load_chunk())
    }

    #[inline(always)]
    fn posted_at<G: Genes>(&self, place: Slot, consumer: u32) -> Shared {
        self.posted.at((place.stage * G::CONSUMERS + consumer) * CHUNK)
    }

    /// The place of a consumer's rows.
    #[inline(always)]
    fn rows_of<G: Genes>(&self, place: Slot, consumer: u32) -> Shared {
        let first = if G::PERSISTENT { place.stage * G::LAYOUT.tile } else { 0 };
        self.rows.at(first + consumer * G::LAYOUT.rows)
    }
}

// A wait for more registers than the block was launched with, less what the producer keeps, would never end.
const fn check_registers(registers: &[(u32, u32)]) {
    let mut consumers = 1;
    while consumers <= registers.len() as u32 {
        let (producer, consumer) = registers[consumers as usize - 1];
        let warpgroups = consumers + 1;
        let launched = 64 * 1024 / (warpgroups * 128) / 8 * 8;
        assert!(producer + consumers * consumer <= warpgroups * launched);
        consumers += 1;
    }
}
const _: () = check_registers(&REGISTERS);
const _: () = check_registers(&TURNING_REGISTERS);

/// Shrinks or grows to the number of registers that goes with the consumers: the producer's, `.0`, or a consumer's, `.1`.
macro_rules! for_consumers {
    ($genes:ident, $change:ident, $whose:tt) => {
        match ($genes::CONSUMERS, $genes::TURNED) {
            (1, false) => $change::<{ REGISTERS[0].$whose }>(),
            (2, false) => $change::<{ REGISTERS[1].$whose }>(),
            (3, false) => $change::<{ REGISTERS[2].$whose }>(),
            (_, false) => $change::<{ REGISTERS[3].$whose }>(),
            (1, true) => $change::<{ TURNING_REGISTERS[0].$whose }>(),
            (2, true) => $change::<{ TURNING_REGISTERS[1].$whose }>(),
            (_, true) => $change::<{ TURNING_REGISTERS[2].$whose }>(),
        }
    };
}

/// One block's attention. A key tile fills `KV8` x 8 columns of scores and `STEPS` x 32 bytes of the second product's depth,
/// head_dim_v `V8` x 8. The three tensor maps are Q's, K's and V's.
#[inline(always)]
pub fn attention<E: Multiplied, G: Genes, const KV8: usize, const STEPS: usize, const V8: usize>(
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
        maps.iter().for_each(|map| map.prefetch());
    }
    sync_block();
    if G::EARLY_LAUNCH {
        overlap_grids();
    }
    if warpgroup == G::CONSUMERS {
        for_consumers!(G, shrink_registers, 0);
        if thread == G::CONSUMERS * 128 {
            produce::<G>(args, &block, maps);
        }
        if G::TURNED {
            let warp = uniform(thread / 32 % 4);
            if warp > 0 {
                turn::turn::<G, STEPS>(args, &block, warp - 1, thread % 32);
            }
        }
    } else {
        for_consumers!(G, grow_registers, 1);
        consume::<E, G, KV8, STEPS, V8>(args, &block, warpgroup, thread % 128);
    }
}

/// The query tiles of this block, one after the other.
#[derive(Clone, Copy)]
struct Tiles {
    next: u32,
    /// Tiles so far.
    count: u32,
    /// Steps of all tiles so far.
    steps: u32,
}

/// A query tile and its place in the rings.
#[derive(Clone, Copy)]
struct Tile {
    at: Coordinates,
    /// Query rows that exist.
    rows: u32,
    mask: Mask,
    /// Key tiles, at least one: if no row sees a key, one of zeros that the mask hides.
    steps: u32,
    /// Where the first of them is. Counted, not carried over from the last tile's steps: there the assembler loses sight of
    /// its being the same in a warp, and serialises the products.
    slot: Slot,
    /// The same in the ring of V as it is copied.
    copied_slot: Slot,
    /// Which of the places for rows it has, and how often that was filled.
    place: Slot,
    /// Whether the first consumer has the last rows. Every second tile is turned: under a causal mask the last rows are the
    /// most work, and a consumer runs ahead of the others by as much as the rings hold.
    turned: bool,
}

impl Tile {
    /// The first of a consumer's rows in the tile.
    #[inline(always)]
    fn first_row<G: Genes>(&self, consumer: u32) -> u32 {
        64 * if self.turned { G::CONSUMERS - 1 - consumer } else { consumer }
    }
}

impl Tiles {
    #[inline(always)]
    fn of_this_block<G: Genes>(args: &AttentionArgs) -> Self {
        let run = if G::PERSISTENT { args.walk.run() } else { 1 };
        Self { next: block_index() * run, count: 0, steps: 0 }
    }

    /// The next tile. `coordinates` says by its place for rows which it is.
    #[inline(always)]
    fn take<G: Genes>(&mut self, args: &AttentionArgs, coordinates: impl FnOnce(Slot) -> Coordinates) -> Tile {
        let (slot, place) = (Slot::of(self.steps, G::STAGES), Slot::of(self.count, G::LAYOUT.places));
        let copied_slot = Slot::of(self.steps, G::LAYOUT.copied_stages);
        let at = coordinates(place);
        let (rows, mask) = (at.rows(args, G::TILE_Q), Mask::new(args));
        let steps = mask.visible(at.first_row + rows - 1).div_ceil(G::TILE_KV).max(1);
        if G::PERSISTENT {
            let run = args.walk.run();
            self.next += 1;
            if self.next.is_multiple_of(run) {
                self.next += (grid_blocks() - 1) * run;
            }
        }
        let turned = G::PERSISTENT && self.count % 2 == 1;
        self.count += 1;
        self.steps += steps;
        Tile { at, rows, mask, steps, slot, copied_slot, place, turned }
    }

    #[inline(always)]
    fn more<G: Genes>(&self, args: &AttentionArgs) -> bool {
        G::PERSISTENT && self.next < args.tiles_total
    }
}

/// The producer: one thread that keeps the rings full.
#[inline(always)]
fn produce<G: Genes>(args: &AttentionArgs, block: &Block, [q, k, v]: [TensorMap; 3]) {
    let mut tiles = Tiles::of_this_block::<G>(args);
    loop {
        let work = Work::of(tiles.next, args, G::TILE_Q, G::ELEMENT_BYTES);
        let tile = tiles.take::<G>(args, |_| work.coordinates());
        let Tile { steps, mut slot, mut copied_slot, place, .. } = tile;
        let mut consumer = 0;
        while consumer < G::CONSUMERS {
            let barrier = place.stage * G::CONSUMERS + consumer;
            if G::PERSISTENT {
                // The phase before the first is over from the start.
                block.rows_empty.at(barrier).wait(place.parity ^ 1);
            }
            block.post::<G>(place, consumer, tile.at);
            let full = block.rows_full.at(barrier);
            let to = block.rows_of::<G>(place, consumer);
            let row = work.first_row + tile.first_row::<G>(consumer);
            copy_panels(q, to, full, [work.batch, work.head, row], 64, G::WORDS_QK);
            consumer += 1;
        }
        let mut step = 0;
        while step < steps {
            fill::<G>(block, &work, k, v, slot, copied_slot, step);
            slot = slot.next(G::STAGES);
            copied_slot = copied_slot.next(G::LAYOUT.copied_stages);
            step += 1;
        }
        if !tiles.more::<G>(args) {
            break;
        }
    }
}

/// A row that no tensor has.
const NO_ROW: u32 = i32::MAX as u32 / 2;

/// Starts the copies of a step once the slots are empty: the ring's of K and V, or of V as it is copied where that is another.
#[inline(always)]
fn fill<G: Genes>(block: &Block, work: &Work, k: TensorMap, v: TensorMap, slot: Slot, copied_slot: Slot, step: u32) {
    // Beyond all rows, what arrives is zeros, and no memory is touched.
    let row = if work.keys() == 0 { NO_ROW } else { step * G::TILE_KV };
    let from = [work.batch, work.head_kv, row];
    for (ring, map, words, copied) in [(&block.k, k, G::WORDS_QK, false), (&block.copied_v, v, G::WORDS_V, true)] {
        let slot = if G::TURNED && copied { copied_slot } else { slot };
        // The phase before the first is over from the start.
        ring.empty.at(slot.stage).wait(slot.parity ^ 1);
        let full = ring.full.at(slot.stage);
        copy_panels(map, ring.at(slot), full, from, G::TILE_KV, words);
    }
}

/// A consumer: 64 query rows of each tile.
#[inline(always)]
fn consume<E: Multiplied, G: Genes, const KV8: usize, const STEPS: usize, const V8: usize>(
    args: &AttentionArgs,
    block: &Block,
    consumer: u32,
    thread: u32,
) where
    InFlight<E, KV8>: Product<KV8>,
    InFlight<E, V8>: Product<V8>,
{
    if G::PING_PONG && consumer == 1 {
        // The first turn is the other's.
        arrive_group(1, 256);
    }
    let posted = |place| block.take_rows::<G>(place, consumer);
    let mut tiles = Tiles::of_this_block::<G>(args);
    let mut rows = Consumer::<G, STEPS, V8>::new(args, block, consumer, thread, tiles.take::<G>(args, posted));
    if G::OVERLAP {
        let scores = rows.issue_scores::<E, KV8>();
        rows.first_softmax::<E, KV8>(scores.wait(0));
    }
    loop {
        rows.all_steps::<E, KV8>();
        // The output goes where Q was, which another warp may still read.
        sync_group(3 + consumer, 128);
        let done = rows.done::<E>();
        if !tiles.more::<G>(args) {
            rows.send(args, done);
            break;
        }
        if G::OVERLAP && G::LAYOUT.places == 2 {
            // The next tile's first scores are under way while this one's output leaves.
            rows.take_up(tiles.take::<G>(args, posted));
            let scores = rows.issue_scores::<E, KV8>();
            rows.send(args, done);
            rows.first_softmax::<E, KV8>(scores.wait(0));
        } else {
            // The next Q comes where this output is.
            rows.send(args, done);
            rows.take_up(tiles.take::<G>(args, posted));
            if G::OVERLAP {
                let scores = rows.issue_scores::<E, KV8>();
                rows.first_softmax::<E, KV8>(scores.wait(0));
            }
        }
    }
}

/// A consumer's rows whose output is on its way out, in shared memory.
struct Done {
    place: Slot,
    first_row: u32,
    states: [RowState; 2],
}

/// What a consumer carries through the steps.
struct Consumer<'a, G, const STEPS: usize, const V8: usize> {
    block: &'a Block,
    tile: Tile,
    consumer: u32,
    lane: Lane,
    /// Whether this thread speaks for its warp.
    lead: bool,
    /// First row of this warp among the consumer's.
    warp_row: u32,
    scale: Scale,
    states: [RowState; 2],
    output: Accumulator<V8>,
    /// With `OVERLAP`, those of the last step, whose product is still to come.
    probabilities: [Operand; STEPS],
    slot: Slot,
    genes: PhantomData<G>,
}

impl<'a, G: Genes, const STEPS: usize, const V8: usize> Consumer<'a, G, STEPS, V8> {
    /// Steps whose scores are there before the loops begin.
    const AHEAD: u32 = if G::OVERLAP { 1 } else { 0 };

    #[inline(always)]
    fn new(args: &AttentionArgs, block: &'a Block, consumer: u32, thread: u32, tile: Tile) -> Self {
        Self {
            block,
            tile,
            consumer,
            lane: Lane::of(thread),
            lead: thread.is_multiple_of(32),
            warp_row: thread / 32 * 16,
            scale: Scale::new(args.scale_log2),
            states: [RowState::EMPTY; 2],
            output: Accumulator::ZERO,
            probabilities: [[0; 4]; STEPS],
            slot: tile.slot,
            genes: PhantomData,
        }
    }

    /// Goes on with another tile.
    #[inline(always)]
    fn take_up(&mut self, tile: Tile) {
        (self.tile, self.slot) = (tile, tile.slot);
        (self.states, self.output) = ([RowState::EMPTY; 2], Accumulator::ZERO);
    }

    /// Leaves what the steps came to in shared memory.
    #[inline(always)]
    fn done<E: Multiplied>(&self) -> Done {
        let (place, states) = (self.tile.place, complete(self.states));
        stage_output::<E::Output, V8>(&self.output.values, states, G::HEAD_DIM_V, self.staging(place), self.lane);
        let lowered = 1.0 / (1u32 << E::RAISED) as f32;
        let states = states.map(|state| RowState { sum: state.sum * lowered, ..state });
        Done { place, first_row: self.first_row(), states }
    }

    #[inline(always)]
    fn send(&self, args: &AttentionArgs, Done { place, first_row, states }: Done) {
        // Read anew: where the output goes would take registers from the steps.
        let at = self.block.posted::<G>(place, self.consumer);
        let to = Destination::of(at, at.rows(args, G::TILE_Q), args, HALF_BYTES);
        send_output(states, &self.scale, &to, first_row, G::HEAD_DIM_V, self.staging(place), self.lane);
        if G::PERSISTENT {
            publish_shared();
            sync_warp();
            if self.lead {
                self.block.rows_empty.at(place.stage * G::CONSUMERS + self.consumer).arrive();
            }
        }
    }

    /// First row of this warp in the tile.
    #[inline(always)]
    fn first_row(&self) -> u32 {
        self.tile.first_row::<G>(self.consumer) + self.warp_row
    }

    /// Where Q is.
    #[inline(always)]
    fn q(&self) -> Shared {
        self.block.rows_of::<G>(self.tile.place, self.consumer)
    }

    /// Where the output of this warp's rows leaves from.
    #[inline(always)]
    fn staging(&self, place: Slot) -> Shared {
        if G::TURNED {
            return self.sums();
        }
        self.block.rows_of::<G>(place, self.consumer).at(self.warp_row * panels(1, G::HEAD_DIM_V))
    }

    /// Where this warp's sums are put aside.
    #[inline(always)]
    fn sums(&self) -> Shared {
        self.block.sums.at((self.consumer * 4 + self.warp_row / 16) * (G::LAYOUT.sums_rows / 4))
    }

    /// The tile's steps. This consumer's rows may see nothing in the last ones, which it passes over.
    #[inline(always)]
    fn all_steps<E: Multiplied, const KV8: usize>(&mut self)
    where
        InFlight<E, KV8>: Product<KV8>,
        InFlight<E, V8>: Product<V8>,
    {
        let Tile { at, rows, mask, steps, .. } = self.tile;
        let first_row = self.tile.first_row::<G>(self.consumer);
        let own = if first_row < rows {
            let last_row = (first_row + 63).min(rows - 1);
            mask.visible(at.first_row + last_row).div_ceil(G::TILE_KV).max(1)
        } else {
            1
        };
        // The first steps need no mask: a loop of their own keeps its branches out of them.
        let visible = mask.visible(at.first_row + first_row);
        let unmasked = if self.scale.turns() { 0 } else { (visible / G::TILE_KV).min(own) };
        // The same in a warp; the assembler had better know.
        let (own, unmasked) = (uniform(own), uniform(unmasked));
        let mut step = Self::AHEAD;
        self.steps_until::<E, KV8, false>(&mut step, unmasked);
        self.steps_until::<E, KV8, true>(&mut step, own);
        if G::OVERLAP {
            self.add_output::<E>();
            self.slot = self.slot.next(G::STAGES);
        }
        if G::TURNED && own - Self::AHEAD >= G::SUMMED_STEPS {
            self.add_aside();
        }
        while step < steps {
            self.pass_over();
            step += 1;
        }
    }

    /// Takes steps up to `end`. Sums are put aside between loops and not in them: a branch there would have their registers moved
    /// about in every step.
    #[inline(always)]
    fn steps_until<E: Multiplied, const KV8: usize, const MASKED: bool>(&mut self, step: &mut u32, end: u32)
    where
        InFlight<E, KV8>: Product<KV8>,
        InFlight<E, V8>: Product<V8>,
    {
        if !G::TURNED {
            self.steps::<E, KV8, MASKED>(step, end);
            return;
        }
        while *step < end {
            let summed = (*step - Self::AHEAD) % G::SUMMED_STEPS;
            self.steps::<E, KV8, MASKED>(step, end.min(*step + G::SUMMED_STEPS - summed));
            let products = *step - Self::AHEAD;
            if products.is_multiple_of(G::SUMMED_STEPS) {
                self.put_aside(products);
            }
        }
    }

    /// Takes steps up to `end` in one loop.
    #[inline(always)]
    fn steps<E: Multiplied, const KV8: usize, const MASKED: bool>(&mut self, step: &mut u32, end: u32)
    where
        InFlight<E, KV8>: Product<KV8>,
        InFlight<E, V8>: Product<V8>,
    {
        while *step < end {
            if G::OVERLAP {
                self.overlapped_step::<E, KV8, MASKED>(*step);
            } else {
                self.plain_step::<E, KV8, MASKED>(*step);
            }
            *step += 1;
        }
    }

    /// Releases a step's tiles unread, and lets the other consumer have its turn.
    #[inline(always)]
    fn pass_over(&mut self) {
        if G::PING_PONG {
            sync_group(1 + self.consumer, 256);
            arrive_group(2 - self.consumer, 256);
        }
        self.block.k.wait_full(self.slot);
        self.block.v.wait_full(self.slot);
        // A lane still waiting could miss the phase: it may come round again once the warp has spoken.
        sync_warp();
        self.block.k.release(self.slot, self.lead);
        self.block.v.release(self.slot, self.lead);
        self.slot = self.slot.next(G::STAGES);
    }

    /// Softmax of a step's scores, and the release of `slot`, which holds the step's K. Returns what the output so far must
    /// be multiplied by.
    #[inline(always)]
    fn softmax<E: Multiplied, const KV8: usize, const MASKED: bool>(
        &mut self,
        scores: &mut [[f32; 4]; KV8],
        step: u32,
        slot: Slot,
    ) -> Option<[f32; 2]> {
        let again = matches!(G::RESCALE, Rescale::WhenLarge) && step > 0;
        if !again {
            self.block.k.release(slot, self.lead);
        }
        self.finish_scores::<KV8, MASKED>(scores, step);
        let corrections = if again && softmax_against(scores, &mut self.states, &self.scale, G::EXP_POLY) {
            None
        } else {
            if again {
                let k = self.block.k.at(slot);
                *scores = scores_by_warp::<E, KV8>(self.q(), k, self.warp_row, G::WORDS_QK, self.lane);
                // All lanes have read before one of them lets K go.
                sync_warp();
                self.finish_scores::<KV8, MASKED>(scores, step);
            }
            let corrections = softmax_raised(scores, &mut self.states, &self.scale, G::EXP_POLY, E::RAISED);
            let needed = !matches!(G::RESCALE, Rescale::WhenNew) || any_lane(corrections != [1.0; 2]);
            if needed { Some(corrections) } else { None }
        };
        if again {
            self.block.k.release(slot, self.lead);
        }
        corrections
    }

    #[inline(always)]
    fn finish_scores<const KV8: usize, const MASKED: bool>(&self, scores: &mut [[f32; 4]; KV8], step: u32) {
        if MASKED {
            let row = self.tile.at.first_row + self.first_row();
            // Or the first step's columns, the same in every tile, would take up a register each.
            let key = opaque(step * G::TILE_KV);
            finish_scores(scores, &self.scale, &self.tile.mask, row, key, self.lane);
        }
    }

    #[inline(always)]
    fn rescale(&mut self, corrections: Option<[f32; 2]>) {
        if let Some(corrections) = corrections {
            rescale(&mut self.output.values, corrections);
        }
    }

    /// Puts the sums aside after so many steps' products.
    #[inline(always)]
    fn put_aside(&mut self, products: u32) {
        if products > G::SUMMED_STEPS {
            self.add_aside();
        }
        aside::put(&self.output.values, &self.states, self.sums(), self.lane);
        self.output = Accumulator::ZERO;
    }

    /// Adds what was put aside.
    #[inline(always)]
    fn add_aside(&mut self) {
        let from = self.sums();
        aside::add(&mut self.output.values, &self.states, &self.scale, from, self.lane);
    }

    /// Scores, softmax, output, one after the other.
    #[inline(always)]
    fn plain_step<E: Multiplied, const KV8: usize, const MASKED: bool>(&mut self, step: u32)
    where
        InFlight<E, KV8>: Product<KV8>,
        InFlight<E, V8>: Product<V8>,
    {
        let mut scores = self.issue_scores::<E, KV8>().wait(0);
        let corrections = self.softmax::<E, KV8, MASKED>(&mut scores.values, step, self.slot);
        self.rescale(corrections);
        self.probabilities = pack_probabilities::<E, KV8, STEPS>(&scores.values);
        self.add_output::<E>();
        self.slot = self.slot.next(G::STAGES);
    }

    /// Issues the current slot's scores.
    #[inline(always)]
    fn issue_scores<E: Multiplied, const KV8: usize>(&self) -> InFlight<E, KV8>
    where
        InFlight<E, KV8>: Product<KV8>,
    {
        let k = self.block.k.wait_full(self.slot);
        let mut scores = Accumulator::<KV8>::ZERO.begin::<E>();
        issue_scores(&mut scores, self.q(), k, G::WORDS_QK);
        commit_products();
        scores
    }

    /// The softmax of the first step.
    #[inline(always)]
    fn first_softmax<E: Multiplied, const KV8: usize>(&mut self, mut scores: Accumulator<KV8>) {
        self.softmax::<E, KV8, true>(&mut scores.values, 0, self.slot);
        self.probabilities = pack_probabilities::<E, KV8, STEPS>(&scores.values);
    }

    /// Adds the product of the probabilities and the current slot's V.
    #[inline(always)]
    fn add_output<E: Multiplied>(&mut self)
    where
        InFlight<E, V8>: Product<V8>,
    {
        let v = self.block.v.wait_full(self.slot);
        pin(&mut self.probabilities);
        let mut products = self.output.begin::<E>();
        issue_output(&mut products, &self.probabilities, v);
        commit_products();
        self.output = products.wait(0);
        self.block.v.release(self.slot, self.lead);
    }

    /// Issues this step's scores and the last step's output, then runs this step's softmax beside the latter.
    #[inline(always)]
    fn overlapped_step<E: Multiplied, const KV8: usize, const MASKED: bool>(&mut self, step: u32)
    where
        InFlight<E, KV8>: Product<KV8>,
        InFlight<E, V8>: Product<V8>,
    {
        let last = self.slot;
        self.slot = last.next(G::STAGES);
        let k = self.block.k.wait_full(self.slot);
        if G::PING_PONG {
            sync_group(1 + self.consumer, 256);
        }
        pin(&mut self.probabilities);
        let mut products = self.output.begin::<E>();
        let mut scores = Accumulator::<KV8>::ZERO.begin::<E>();
        issue_scores(&mut scores, self.q(), k, G::WORDS_QK);
        commit_products();
        issue_output(&mut products, &self.probabilities, self.block.v.wait_full(last));
        commit_products();
        if G::PING_PONG {
            arrive_group(2 - self.consumer, 256);
        }
        let mut scores = scores.wait(1);
        let corrections = self.softmax::<E, KV8, MASKED>(&mut scores.values, step, self.slot);
        // The softmax belongs before the wait, the packing after it: operands defined while products that read them are
        // under way would serialise the products.
        pin(&mut scores.values);
        settle(self.states.map(|state| state.sum));
        self.output = products.wait(0);
        pin(&mut scores.values);
        self.block.v.release(last, self.lead);
        self.probabilities = pack_probabilities::<E, KV8, STEPS>(&scores.values);
        self.rescale(corrections);
    }
}

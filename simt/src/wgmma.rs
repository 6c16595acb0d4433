//! `wgmma`: matrix products of a warpgroup (four warps from a multiple of four on) that run beside it.
//!
//! A product is issued by all four warps and closed into a group. The machine performs it as late as it can: when the first
//! warp's wait for its group ends, which also waits for the other warps to have issued it. Operands in shared memory are
//! read then, and until then nobody may store to them. A product is one operation of the warpgroup: when one warp has
//! waited for it, none reads any more.

use std::collections::VecDeque;

use crate::machine::{Machine, Outcome, enter};
use crate::matrix::{DEPTH_BYTES, put};
use crate::product::{Factors, Product, ROWS};
use crate::shared::CHUNK;
use crate::warp::collective;
use crate::{Cause, MmaKind, Op, WARP};

/// Warps of a warpgroup.
const WARPS: usize = 4;
/// Columns of an accumulator at most.
const COLUMNS: usize = 256;

/// A warp's `a` in registers.
type Registers = [[u32; 4]; WARP as usize];

/// An accumulator that the machine keeps while products may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulator {
    slot: u8,
    /// Blocks of eight columns.
    pub(crate) blocks: u8,
}

impl Accumulator {
    /// Its columns.
    pub const fn columns(self) -> u32 {
        self.blocks as u32 * 8
    }
}

/// What warps issue.
enum Item {
    Product { product: Product, registers: Option<Box<[Registers; WARPS]>> },
    Commit,
}

impl Item {
    fn op(&self) -> Op {
        match self {
            Self::Product { product, .. } => Op::Wgmma(*product),
            Self::Commit => Op::WgmmaCommit,
        }
    }
}

/// An accumulator's elements, row by row.
struct Slot {
    elements: Vec<f32>,
    /// By warp: one more than the number of the last item it issued for this slot.
    last: [u64; WARPS],
}

/// What a warpgroup has issued.
#[derive(Default)]
pub(crate) struct Warpgroup {
    /// What some warp issued and nobody has performed, the oldest first.
    queue: VecDeque<Item>,
    /// Items performed: the number of the queue's first.
    done: u64,
    /// Items issued, by warp.
    issued: [u64; WARPS],
    /// Items up to the end of each group.
    groups: Vec<u64>,
    /// Groups closed, by warp.
    closed: [usize; WARPS],
    /// Groups performed.
    performed: u32,
    /// By warp: how many groups it waits for.
    waiting: [Option<usize>; WARPS],
    slots: Vec<Slot>,
    /// By warp and lane: slots in use.
    open: [[u32; WARP as usize]; WARPS],
}

impl Warpgroup {
    pub(crate) fn begin(&mut self) {
        let mut slots = std::mem::take(&mut self.slots);
        slots.iter_mut().for_each(|slot| slot.last = [0; WARPS]);
        *self = Self { slots, ..Self::default() };
    }
}

/// A warpgroup's number and the warp's place in it.
#[derive(Clone, Copy)]
struct Seat {
    group: usize,
    warp: usize,
}

impl Machine<'_> {
    /// Where a warp sits.
    fn seat(&self, warp: usize) -> Outcome<Seat> {
        let warps = (self.launch.threads / WARP) as usize;
        let (block, warp) = (warp / warps, warp % warps);
        if warp / WARPS * WARPS + WARPS > warps {
            return self.fault(Cause::NoWarpgroup);
        }
        Ok(Seat { group: block * warps.div_ceil(WARPS) + warp / WARPS, warp: warp % WARPS })
    }

    /// A whole warp issues a product or closes a group.
    pub(crate) fn issue(&mut self, w: usize, op: Op) -> Outcome<()> {
        let Seat { group, warp } = self.seat(w)?;
        let warpgroup = &mut self.warpgroups[group];
        let number = warpgroup.issued[warp];
        warpgroup.issued[warp] += 1;
        let place = (number - warpgroup.done) as usize;
        let first = place == warpgroup.queue.len();
        if let Some(other) = warpgroup.queue.get(place).map(Item::op)
            && other != op
        {
            return self.fault(Cause::Warpgroup { op, other });
        }
        match op {
            Op::Wgmma(product) => {
                let slot = product.accumulator.slot;
                if warpgroup.open[warp].iter().any(|open| open >> slot & 1 == 0) {
                    return self.fault(Cause::Accumulator("is not open"));
                }
                let last = &mut warpgroup.slots[slot as usize].last[warp];
                *last = number + 1;
                if first {
                    let registers = matches!(product.factors, Factors::Registers { .. }).then(Box::default);
                    warpgroup.queue.push_back(Item::Product { product, registers });
                }
                if let Some(Item::Product { registers: Some(registers), .. }) = warpgroup.queue.get_mut(place) {
                    registers[warp] = self.warps[w].input.map(|[a, b, c, d, ..]| [a, b, c, d]);
                }
                self.stats.wgmma_blocks += u64::from(product.accumulator.blocks);
                self.offer(w as u32, product, first)?;
            }
            _ => {
                if first {
                    warpgroup.queue.push_back(Item::Commit);
                    warpgroup.groups.push(number + 1);
                }
                warpgroup.closed[warp] += 1;
            }
        }
        self.wake(w, u32::MAX);
        self.perform_products(group);
        Ok(())
    }

    fn offer(&mut self, warp: u32, product: Product, hold: bool) -> Outcome<()> {
        let mut last = None;
        match (product.chunks_of_a(), product.chunks_of_b()) {
            (Ok(a), Ok(b)) => a.chain(b).try_for_each(|chunk| self.offer_chunk(warp, chunk, hold, &mut last)),
            (Err(cause), _) | (_, Err(cause)) => self.fault(cause),
        }
    }

    /// A whole warp waits until at most `running` of the groups it closed are under way.
    pub(crate) fn wait_for_products(&mut self, w: usize, running: u32) -> Outcome<()> {
        let Seat { group, warp } = self.seat(w)?;
        self.stats.wgmma_waits += 1;
        let warpgroup = &mut self.warpgroups[group];
        warpgroup.waiting[warp] = Some(warpgroup.closed[warp].saturating_sub(running as usize));
        self.perform_products(group);
        Ok(())
    }

    /// Performs what warps wait for and all have issued.
    fn perform_products(&mut self, group: usize) {
        for warp in 0..WARPS {
            let warpgroup = &mut self.warpgroups[group];
            let Some(groups) = warpgroup.waiting[warp] else { continue };
            let end = groups.checked_sub(1).map_or(0, |last| warpgroup.groups[last]);
            if warpgroup.issued.iter().any(|&issued| issued < end) {
                continue;
            }
            warpgroup.waiting[warp] = None;
            while self.warpgroups[group].done < end {
                self.perform_item(group);
            }
            // A group's warps follow each other.
            let warps = (self.launch.threads / WARP) as usize;
            let per_block = warps.div_ceil(WARPS);
            let w = group / per_block * warps + group % per_block * WARPS + warp;
            if let Some(races) = &mut self.races {
                races.acquire_products(w, group as u32, groups as u32);
            }
            self.wake(w, u32::MAX);
        }
    }

    fn perform_item(&mut self, group: usize) {
        let warpgroup = &mut self.warpgroups[group];
        warpgroup.done += 1;
        match warpgroup.queue.pop_front() {
            Some(Item::Product { product, registers }) => self.multiply_products(group, product, registers.as_deref()),
            Some(Item::Commit) => warpgroup.performed += 1,
            None => unreachable!("items are counted"),
        }
    }

    fn multiply_products(&mut self, group: usize, product: Product, registers: Option<&[Registers; WARPS]>) {
        let number = self.warpgroups[group].performed + 1;
        let mut take = |chunk: u32| {
            if let Some(races) = &mut self.races {
                races.multiplied(group as u32, number, self.base + chunk);
            }
            self.consume_chunk(chunk)
        };
        let Product { kind, accumulator, factors } = product;
        let columns = accumulator.columns() as usize;
        // Descriptors were looked at when the product was issued.
        let (Ok(chunks_of_a), Ok(chunks_of_b)) = (product.chunks_of_a(), product.chunks_of_b()) else { return };
        let depth = kind.depth();
        let mut a = [0; ROWS * DEPTH_BYTES];
        for (bytes, chunk) in a.chunks_exact_mut(CHUNK).zip(chunks_of_a) {
            bytes.copy_from_slice(&take(chunk));
        }
        if let Some(registers) = registers {
            for (rows, lanes) in a.chunks_exact_mut(16 * DEPTH_BYTES).zip(registers) {
                for (lane, operand) in lanes.iter().enumerate() {
                    for (at, &register) in [(0, 0), (8, 0), (0, 16), (8, 16)].into_iter().zip(operand) {
                        put(rows, lane / 4 + at.0, lane % 4 * 4 + at.1, register);
                    }
                }
            }
        }
        let b: Vec<u8> = chunks_of_b.flat_map(take).collect();
        let mut rows = [0.0; ROWS * DEPTH_BYTES];
        kind.widen(&a, &mut rows[..ROWS * depth]);
        let mut wide = vec![0.0; depth * columns];
        kind.widen(&b, &mut wide);
        if product.b_along_depth() {
            let mut turned = vec![0.0; depth * columns];
            for (column, elements) in wide.chunks_exact(depth).enumerate() {
                elements.iter().enumerate().for_each(|(d, element)| turned[d * columns + column] = *element);
            }
            wide = turned;
        }
        let fresh = matches!(factors, Factors::Shared { fresh: true, .. });
        let slot = &mut self.warpgroups[group].slots[accumulator.slot as usize];
        for (sums, a) in slot.elements.chunks_exact_mut(COLUMNS).zip(rows.chunks_exact(depth)) {
            let sums = &mut sums[..columns];
            if fresh {
                sums.fill(0.0);
            }
            for (&a, b) in a.iter().zip(wide.chunks_exact(columns)) {
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum += a * b;
                }
            }
        }
    }

    /// Takes over a thread's fragment of an accumulator and leaves poison.
    fn open(&mut self, values: &mut [[f32; 4]]) -> Outcome<Accumulator> {
        let (w, lane) = self.place();
        let Seat { group, warp } = self.seat(w)?;
        let warpgroup = &mut self.warpgroups[group];
        let slot = warpgroup.open[warp][lane as usize].trailing_ones();
        if !(1..=COLUMNS / 8).contains(&values.len()) || slot == u32::BITS {
            return self.fault(Cause::Accumulator("has 8 to 256 columns, and a thread opens at most 32"));
        }
        warpgroup.open[warp][lane as usize] |= 1 << slot;
        if warpgroup.slots.len() == slot as usize {
            warpgroup.slots.push(Slot { elements: vec![0.0; ROWS * COLUMNS], last: [0; WARPS] });
        }
        let elements = &mut warpgroup.slots[slot as usize].elements;
        for (block, values) in values.iter_mut().enumerate() {
            for (value, at) in values.iter_mut().zip(fragment(warp, lane, block)) {
                elements[at] = std::mem::replace(value, f32::NAN);
            }
        }
        Ok(Accumulator { slot: slot as u8, blocks: values.len() as u8 })
    }

    /// Gives a thread its fragment back.
    fn close(&mut self, accumulator: Accumulator, values: &mut [[f32; 4]]) -> Outcome<()> {
        let (w, lane) = self.place();
        let Seat { group, warp } = self.seat(w)?;
        let warpgroup = &mut self.warpgroups[group];
        let slot = accumulator.slot as usize;
        if warpgroup.open[warp][lane as usize] >> slot & 1 == 0 || values.len() != accumulator.blocks as usize {
            return self.fault(Cause::Accumulator("is not open, or has another width"));
        }
        if warpgroup.slots[slot].last[warp] > warpgroup.done {
            return self.fault(Cause::Accumulator("is read while products write to it"));
        }
        warpgroup.open[warp][lane as usize] &= !(1 << slot);
        for (block, values) in values.iter_mut().enumerate() {
            for (value, at) in values.iter_mut().zip(fragment(warp, lane, block)) {
                *value = warpgroup.slots[slot].elements[at];
            }
        }
        Ok(())
    }

    /// Groups whose products warps wait for.
    pub(crate) fn describe_products(&self) -> impl Iterator<Item = String> {
        let stuck = self.warpgroups.iter().enumerate().filter(|(_, group)| group.waiting.iter().any(Option::is_some));
        stuck.map(|(group, _)| format!("warpgroup {group} waits for products that not all its warps have issued"))
    }
}

/// Where the four elements of a lane's fragment of a block of eight columns are.
fn fragment(warp: usize, lane: u32, block: usize) -> [usize; 4] {
    let first = (warp * 16 + lane as usize / 4) * COLUMNS + block * 8 + lane as usize % 4 * 2;
    [first, first + 1, first + 8 * COLUMNS, first + 8 * COLUMNS + 1]
}

/// Opens a thread's accumulator to products (`wgmma.fence`): blocks of eight columns in the layout of
/// [`crate::mma_m16n8`]'s `c`, 16 rows a warp. The values are NaN until [`wgmma_end`].
pub fn wgmma_begin(values: &mut [[f32; 4]]) -> Accumulator {
    enter(|machine| machine.open(values))
}

/// Gives a thread its accumulator back; its products must have been waited for.
pub fn wgmma_end(accumulator: Accumulator, values: &mut [[f32; 4]]) {
    enter(|machine| machine.close(accumulator, values));
}

/// Adds `a b` over 16 elements of depth (32 of 8 bits), `a` 64 x 16 and `b` 16 x the accumulator's columns, both in shared
/// memory with the depth contiguous; with `fresh` the accumulator counts as zero.
///
/// Each element of the result is the accumulator's plus its products in the order of their index, each sum rounded to
/// fp32. A GPU adds in another order, and keeps fewer digits of elements of 8 bits.
pub fn wgmma_shared(kind: MmaKind, accumulator: Accumulator, a: u64, b: u64, fresh: bool) {
    let factors = Factors::Shared { a, b, fresh };
    collective(Op::Wgmma(Product { kind, accumulator, factors }), u32::MAX, &[]);
}

/// Adds `a b` like [`wgmma_shared`], `a` in registers like [`crate::mma_m16n8`]'s, 16 rows a warp, and `b` in shared
/// memory with its columns contiguous; the depth where elements have 8 bits.
pub fn wgmma_registers(kind: MmaKind, accumulator: Accumulator, a: [u32; 4], b: u64) {
    let factors = Factors::Registers { b };
    collective(Op::Wgmma(Product { kind, accumulator, factors }), u32::MAX, &a);
}

/// Closes the group of products issued since the last (`wgmma.commit_group`).
pub fn wgmma_commit() {
    collective(Op::WgmmaCommit, u32::MAX, &[]);
}

/// Waits until at most `running` of the closed groups are under way (`wgmma.wait_group`).
pub fn wgmma_wait(running: u32) {
    collective(Op::WgmmaWait { running }, u32::MAX, &[]);
}

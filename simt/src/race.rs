//! The race check of shared memory: vector clocks.
//!
//! Each thread has a clock. An access is known by its thread and that thread's clock at the time; it is ordered before a
//! later one if the later thread has since learnt of that clock. Lanes learn of each other at `sync_warp` and, like
//! warps, at barriers. Only whole warps meet at barriers, so what a thread knows of another warp is one number that
//! holds for all its lanes, and tables stay small. Clocks go on from block to block: whatever a former block left in the
//! tables is then known to everyone.

use core::array;

use crate::{Access, Cause, WARP};

const LANES: usize = WARP as usize;

/// What the warps that arrived at a barrier have done, by warp.
pub(crate) type Release = Vec<u32>;

/// What one warp's lanes know.
struct Clocks {
    /// Of themselves: the clock of each lane.
    now: [u32; LANES],
    /// Of each other: by who knows, then by whom it is about.
    lanes: [[u32; LANES]; LANES],
    /// Of all lanes of other warps, by warp.
    warps: Vec<u32>,
}

impl Clocks {
    fn top(&self) -> u32 {
        self.now.into_iter().fold(0, u32::max)
    }
}

/// An access: the clock in the upper half; below it the thread that stored, or the lanes that loaded.
#[derive(Clone, Copy, Default)]
struct Event(u64);

impl Event {
    fn new(clock: u32, who: u32) -> Self {
        Self(u64::from(clock) << 32 | u64::from(who))
    }

    fn clock(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn who(self) -> u32 {
        self.0 as u32
    }
}

/// All clocks of a block, and the last accesses to each byte of its shared memory.
pub(crate) struct Races {
    clocks: Vec<Clocks>,
    /// The last store, by byte.
    stores: Vec<Event>,
    /// The last loads, by warp and then by byte. Of loads at different clocks the later stay: with full masks, who knows
    /// of them knows of the earlier.
    loads: Vec<Vec<Event>>,
}

impl Races {
    pub(crate) fn new(shared_bytes: u32, warps: u32) -> Self {
        let (bytes, warps) = (shared_bytes as usize, warps as usize);
        Self {
            clocks: (0..warps)
                .map(|_| Clocks { now: [0; LANES], lanes: [[0; LANES]; LANES], warps: vec![0; warps] })
                .collect(),
            stores: vec![Event::default(); bytes],
            loads: vec![vec![Event::default(); bytes]; warps],
        }
    }

    /// A block begins: everyone knows everything that came before.
    pub(crate) fn begin(&mut self) {
        let past = self.clocks.iter().map(Clocks::top).max().unwrap_or(0);
        for warp in &mut self.clocks {
            warp.now.fill(past + 1);
            warp.lanes.as_flattened_mut().fill(past);
            warp.warps.fill(past);
        }
    }

    /// Whether `thread` knows of what the other thread had done at `clock`.
    #[inline]
    fn knows(&self, thread: u32, other: u32, clock: u32) -> bool {
        let (warp, other_warp) = (thread / WARP, other / WARP);
        let clocks = &self.clocks[warp as usize];
        let known = if warp != other_warp {
            clocks.warps[other_warp as usize]
        } else if thread != other {
            clocks.lanes[(thread % WARP) as usize][(other % WARP) as usize]
        } else {
            clock
        };
        clock <= known
    }

    fn check_stores(&self, thread: u32, address: u32, bytes: u32, access: Access) -> Result<(), Cause> {
        let mut last = u64::MAX;
        for (at, store) in (address..).zip(&self.stores[address as usize..][..bytes as usize]) {
            // Neighbouring bytes mostly come from one store.
            if store.0 != last && !self.knows(thread, store.who(), store.clock()) {
                return Err(Cause::Race { access, address: at, other_access: Access::Store, other: store.who() });
            }
            last = store.0;
        }
        Ok(())
    }

    /// A load of `bytes` bytes at `address` by `thread`.
    pub(crate) fn load(&mut self, thread: u32, address: u32, bytes: u32) -> Result<(), Cause> {
        self.check_stores(thread, address, bytes, Access::Load)?;
        let (warp, lane) = ((thread / WARP) as usize, thread % WARP);
        let clock = self.clocks[warp].now[lane as usize];
        for load in &mut self.loads[warp][address as usize..][..bytes as usize] {
            let others = if load.clock() >= clock { load.who() } else { 0 };
            *load = Event::new(clock.max(load.clock()), others | 1 << lane);
        }
        Ok(())
    }

    /// A store of `bytes` bytes at `address` by `thread`.
    pub(crate) fn store(&mut self, thread: u32, address: u32, bytes: u32) -> Result<(), Cause> {
        self.check_stores(thread, address, bytes, Access::Store)?;
        let (warp, lane) = ((thread / WARP) as usize, thread % WARP);
        for other_warp in 0..self.clocks.len() {
            let loads = &self.loads[other_warp][address as usize..][..bytes as usize];
            if other_warp != warp {
                let known = self.clocks[warp].warps[other_warp];
                if loads.iter().all(|load| load.clock() <= known) {
                    continue;
                }
            }
            let mut last = u64::MAX;
            for (at, load) in (address..).zip(loads) {
                let mut lanes = if load.0 == last { 0 } else { load.who() };
                last = load.0;
                while lanes != 0 {
                    let other = other_warp as u32 * WARP + lanes.trailing_zeros();
                    lanes &= lanes - 1;
                    if !self.knows(thread, other, load.clock()) {
                        let (access, other_access) = (Access::Store, Access::Load);
                        return Err(Cause::Race { access, address: at, other_access, other });
                    }
                }
            }
        }
        let clock = self.clocks[warp].now[lane as usize];
        self.stores[address as usize..][..bytes as usize].fill(Event::new(clock, thread));
        Ok(())
    }

    /// The lanes of `mask` wait for each other.
    pub(crate) fn sync_warp(&mut self, warp: usize, mask: u32) {
        let clocks = &mut self.clocks[warp];
        let inside = |lane: usize| mask >> lane & 1 == 1;
        let past = (0..LANES).filter(|&lane| inside(lane)).map(|lane| clocks.now[lane]).fold(0, u32::max);
        let known: [u32; LANES] = array::from_fn(|about| {
            let told = (0..LANES).filter(|&lane| inside(lane)).map(|lane| clocks.lanes[lane][about]).fold(0, u32::max);
            if inside(about) { past } else { told }
        });
        for lane in (0..LANES).filter(|&lane| inside(lane)) {
            clocks.lanes[lane] = known;
            clocks.now[lane] = past + 1;
        }
    }

    /// A warp arrives at a barrier: tells what its lanes have done and know.
    pub(crate) fn release(&mut self, warp: usize, release: &mut Release) {
        let clocks = &mut self.clocks[warp];
        release.resize(clocks.warps.len(), 0);
        let top = clocks.top();
        for (told, &known) in release.iter_mut().zip(&clocks.warps) {
            *told = known.max(*told);
        }
        release[warp] = release[warp].max(top);
        clocks.now.fill(top + 1);
    }

    /// A warp's wait at a barrier ends: its lanes learn what has been told there.
    pub(crate) fn acquire(&mut self, warp: usize, release: &Release) {
        let clocks = &mut self.clocks[warp];
        for (known, &told) in clocks.warps.iter_mut().zip(release) {
            *known = told.max(*known);
        }
        // All its lanes were at the barrier, with the clock before the present one.
        let known = clocks.top() - 1;
        clocks.lanes.as_flattened_mut().fill(known);
    }
}

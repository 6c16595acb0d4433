//! The race check of shared memory: vector clocks.
//!
//! Each warp has a clock. An access is known by who made it and the warp's clock at the time; it is ordered before a later
//! one if the later thread has since learnt of that clock. Lanes learn of each other at `sync_warp`, whole warps at
//! barriers, single threads at mbarriers. Mostly a thread knows as much of all lanes of another warp, so that one number
//! per warp will do; single threads of which more is known are kept beside it.
//!
//! What runs beside the threads has clocks of its own: the bulk copies that complete on one mbarrier (its phases), and the
//! products of one warpgroup (its groups). Threads learn of those by waiting for them.
//!
//! Clocks go on from block to block: whatever a former block left in the tables is then known to everyone.

use crate::events::{Event, Events, Part};
use crate::knowledge::{Agent, Knowledge};
use crate::shared::CHUNK;
use crate::{Access, Actor, Cause, Launch, WARP};

const LANES: usize = WARP as usize;

/// One warp's clock and what its lanes know.
#[derive(Default)]
struct Clocks {
    now: u32,
    /// Of each other: by who knows, then by whom it is about.
    lanes: [[u32; LANES]; LANES],
    /// Of everyone else, by who knows.
    others: [Knowledge; LANES],
}

/// All clocks of a cluster, and the last accesses to each byte of its shared memory. Threads, warps and bytes are counted
/// through all its blocks.
pub(crate) struct Races {
    /// Threads of a block.
    threads: u32,
    /// Bytes from one block's shared memory to the next's.
    pitch: u32,
    clocks: Vec<Clocks>,
    /// Everyone knows what happened up to this clock.
    past: u32,
    /// The latest clock of copies and products.
    latest: u32,
    /// Agents so far: warps, warpgroups, mbarriers.
    agents: Agent,
    /// The last stores.
    stores: Events,
    /// The last loads of each warp. Of loads at different clocks the later stay.
    loads: Events,
    /// By warpgroup and then by chunk: the clocks of the last reads by products.
    reads: Vec<Vec<u32>>,
    /// By thread: the clock up to which its stores are visible to copies and products.
    fenced: Vec<u32>,
}

impl Races {
    pub(crate) fn new(launch: &Launch<'_>, pitch: u32) -> Self {
        let bytes = (pitch * launch.cluster) as usize;
        Self {
            threads: launch.threads,
            pitch,
            clocks: (0..launch.warps()).map(|_| Clocks::default()).collect(),
            past: 0,
            latest: 0,
            agents: 0,
            stores: Events::new(bytes, 1),
            loads: Events::new(bytes, launch.warps() as usize),
            reads: (0..launch.warpgroups()).map(|_| vec![0; bytes / CHUNK]).collect(),
            fenced: vec![0; (launch.threads * launch.cluster) as usize],
        }
    }

    /// A cluster begins: everyone knows everything that came before.
    pub(crate) fn begin(&mut self) {
        self.past = self.clocks.iter().map(|warp| warp.now).fold(self.latest, u32::max);
        for warp in &mut self.clocks {
            *warp = Clocks { now: self.past + 1, ..Clocks::default() };
        }
        self.agents = self.first_mbarrier();
    }

    /// The agents of mbarriers follow those of warps and products.
    fn first_mbarrier(&self) -> Agent {
        (self.clocks.len() + self.reads.len()) as Agent
    }

    /// The agent of one more mbarrier.
    pub(crate) fn add_agent(&mut self) -> Agent {
        self.agents += 1;
        self.agents - 1
    }

    /// The agent of a warpgroup's products.
    fn products_of(&self, warpgroup: u32) -> Agent {
        self.clocks.len() as Agent + warpgroup
    }

    /// An agent's clock after `count` (from 1) phases or groups.
    fn clock_of(&mut self, count: u32) -> u32 {
        let clock = self.past + count;
        self.latest = self.latest.max(clock);
        clock
    }

    /// Whether `thread` knows of what the other thread, or the agent whose first it would be, had done at `clock`.
    #[inline]
    fn knows(&self, thread: u32, other: u32, clock: u32) -> bool {
        if clock <= self.past || thread == other {
            return true;
        }
        let clocks = &self.clocks[(thread / WARP) as usize];
        let lane = (thread % WARP) as usize;
        if thread / WARP == other / WARP {
            clock <= clocks.lanes[lane][(other % WARP) as usize]
        } else {
            let others = &clocks.others[lane];
            clock <= others.of_agent(other / WARP) || clock <= others.of_thread(other)
        }
    }

    #[cold]
    fn race(&self, thread: u32, access: Access, at: u32, other_access: Access, other: u32) -> Cause {
        let other = self.actor(thread, other);
        Cause::Race { access, address: at % self.pitch, other_access, other }
    }

    fn actor(&self, thread: u32, other: u32) -> Actor {
        let agent = other / WARP;
        if agent >= self.first_mbarrier() {
            Actor::Copy
        } else if agent >= self.clocks.len() as Agent {
            Actor::Products
        } else {
            Actor::thread(other, thread, self.threads)
        }
    }

    #[inline]
    fn check_stores(&self, thread: u32, part: Part, access: Access) -> Result<(), Cause> {
        for (at, store) in (part.address()..).zip(self.stores.at(part, 0)) {
            if !self.knows(thread, store.who(), store.clock()) {
                return Err(self.race(thread, access, at, Access::Store, store.who()));
            }
        }
        Ok(())
    }

    /// Whether `thread` may look at what is there: a load that leaves no trace.
    pub(crate) fn look(&self, thread: u32, at: u32, bytes: u32) -> Result<(), Cause> {
        Part::of(at, bytes).try_for_each(|part| self.check_stores(thread, part, Access::Load))
    }

    /// A load of `bytes` bytes by `thread`.
    #[inline]
    pub(crate) fn load(&mut self, thread: u32, at: u32, bytes: u32) -> Result<(), Cause> {
        let (warp, lane) = ((thread / WARP) as usize, thread % WARP);
        let clock = self.clocks[warp].now;
        for part in Part::of(at, bytes) {
            self.check_stores(thread, part, Access::Load)?;
            self.loads.update(part, warp, |last| {
                let others = if last.clock() == clock { last.who() } else { 0 };
                Event::new(clock, others | 1 << lane)
            });
        }
        Ok(())
    }

    /// A store of `bytes` bytes by `thread`.
    #[inline]
    pub(crate) fn store(&mut self, thread: u32, at: u32, bytes: u32) -> Result<(), Cause> {
        for part in Part::of(at, bytes) {
            self.check_stores(thread, part, Access::Store)?;
            self.check_loads(thread, part)?;
            self.check_reads(thread, part)?;
            let now = self.clocks[(thread / WARP) as usize].now;
            self.stores.set(part, 0, Event::new(now, thread));
        }
        Ok(())
    }

    /// Whether `thread` knows of all loads there.
    #[inline]
    fn check_loads(&self, thread: u32, part: Part) -> Result<(), Cause> {
        let (warp, lane) = (thread / WARP, (thread % WARP) as usize);
        let others = &self.clocks[warp as usize].others[lane];
        for agent in 0..self.clocks.len() as Agent {
            let known = if agent == warp { self.past } else { others.of_agent(agent).max(self.past) };
            for (at, load) in (part.address()..).zip(self.loads.at(part, agent as usize)) {
                let mut lanes = if load.clock() <= known { 0 } else { load.who() };
                while lanes != 0 {
                    let other = agent * WARP + lanes.trailing_zeros();
                    lanes &= lanes - 1;
                    if !self.knows(thread, other, load.clock()) {
                        return Err(self.race(thread, Access::Store, at, Access::Load, other));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether `thread` knows of all reads by products there.
    #[inline]
    fn check_reads(&self, thread: u32, part: Part) -> Result<(), Cause> {
        let others = &self.clocks[(thread / WARP) as usize].others[(thread % WARP) as usize];
        for (warpgroup, reads) in (0..).zip(&self.reads) {
            let agent = self.products_of(warpgroup);
            if reads[part.chunk] > others.of_agent(agent).max(self.past) {
                return Err(self.race(thread, Access::Store, part.address(), Access::Load, agent * WARP));
            }
        }
        Ok(())
    }

    /// A copy that completes on an mbarrier in its phase number `phase` (from 1) has stored.
    pub(crate) fn copied(&mut self, agent: Agent, phase: u32, at: u32, bytes: u32) {
        let event = Event::new(self.clock_of(phase), agent * WARP);
        Part::of(at, bytes).for_each(|part| self.stores.set(part, 0, event));
    }

    /// Whether all lanes of a warp may let products read what is there. `last` is the last store that it found they may.
    pub(crate) fn offer(&self, warp: u32, at: u32, bytes: u32, last: &mut Option<Event>) -> Result<(), Cause> {
        for part in Part::of(at, bytes) {
            for (at, store) in (part.address()..).zip(self.stores.at(part, 0)) {
                if *last != Some(store) {
                    self.offer_store(warp, at, store)?;
                    *last = Some(store);
                }
            }
        }
        Ok(())
    }

    fn offer_store(&self, warp: u32, at: u32, store: Event) -> Result<(), Cause> {
        let (who, clock) = (store.who(), store.clock());
        for thread in warp * WARP..(warp + 1) * WARP {
            if !self.knows(thread, who, clock) {
                return Err(self.race(thread, Access::Load, at, Access::Store, who));
            }
        }
        if clock > self.past && self.fenced.get(who as usize).is_some_and(|&fenced| clock > fenced) {
            return Err(Cause::Unfenced { address: at % self.pitch, by: self.actor(warp * WARP, who) });
        }
        Ok(())
    }

    /// Products of a warpgroup's group number `group` (from 1) have read the chunk there.
    pub(crate) fn multiplied(&mut self, warpgroup: u32, group: u32, at: u32) {
        self.reads[warpgroup as usize][at as usize / CHUNK] = self.clock_of(group);
    }

    /// What `thread` stored so far becomes visible to copies and products.
    pub(crate) fn fence(&mut self, thread: u32) {
        let now = &mut self.clocks[(thread / WARP) as usize].now;
        self.fenced[thread as usize] = *now;
        *now += 1;
    }

    /// The lanes of `mask` wait for each other.
    pub(crate) fn sync_warp(&mut self, warp: usize, mask: u32) {
        let clocks = &mut self.clocks[warp];
        let inside = |lane: &usize| mask >> lane & 1 == 1;
        let mut lanes = [0; LANES];
        let mut others = Knowledge::default();
        for lane in (0..LANES).filter(inside) {
            for (known, &told) in lanes.iter_mut().zip(&clocks.lanes[lane]) {
                *known = told.max(*known);
            }
            others.join(&clocks.others[lane]);
        }
        for about in (0..LANES).filter(inside) {
            lanes[about] = clocks.now;
        }
        for lane in (0..LANES).filter(inside) {
            clocks.lanes[lane] = lanes;
            clocks.others[lane].clone_from(&others);
        }
        clocks.now += 1;
    }

    /// A warp arrives at a barrier: tells what its lanes have done and know.
    pub(crate) fn release(&mut self, warp: usize, release: &mut Knowledge) {
        let clocks = &mut self.clocks[warp];
        clocks.others.iter().for_each(|others| release.join(others));
        release.learn_agent(warp as Agent, clocks.now);
        clocks.now += 1;
    }

    /// A warp's wait at a barrier ends: its lanes learn what has been told there, of each other too.
    pub(crate) fn acquire(&mut self, warp: usize, release: &Knowledge) {
        let clocks = &mut self.clocks[warp];
        clocks.others.iter_mut().for_each(|others| others.join(release));
        let told = release.of_agent(warp as Agent);
        clocks.lanes.as_flattened_mut().iter_mut().for_each(|known| *known = told.max(*known));
    }

    /// One thread tells what it has done and knows.
    pub(crate) fn release_thread(&mut self, thread: u32, release: &mut Knowledge) {
        let (warp, lane) = (thread / WARP, (thread % WARP) as usize);
        let clocks = &mut self.clocks[warp as usize];
        release.join(&clocks.others[lane]);
        let mut known = clocks.lanes[lane];
        known[lane] = clocks.now;
        release.learn_agent(warp, known.into_iter().fold(u32::MAX, u32::min));
        for (about, known) in (warp * WARP..).zip(known) {
            release.learn_thread(about, known);
        }
        clocks.now += 1;
    }

    /// One thread learns what has been told.
    pub(crate) fn acquire_thread(&mut self, thread: u32, release: &Knowledge) {
        let (warp, lane) = (thread / WARP, (thread % WARP) as usize);
        let clocks = &mut self.clocks[warp as usize];
        clocks.others[lane].join(release);
        for (about, known) in (warp * WARP..).zip(&mut clocks.lanes[lane]) {
            *known = release.of_thread(about).max(*known);
        }
    }

    /// Copies of an mbarrier's phase number `phase` (from 1) tell that they are done.
    pub(crate) fn release_copies(&mut self, agent: Agent, phase: u32, release: &mut Knowledge) {
        release.learn_agent(agent, self.clock_of(phase));
    }

    /// A warp has waited for the groups of products up to number `group`.
    pub(crate) fn acquire_products(&mut self, warp: usize, warpgroup: u32, group: u32) {
        let (agent, clock) = (self.products_of(warpgroup), self.clock_of(group));
        self.clocks[warp].others.iter_mut().for_each(|others| others.learn_agent(agent, clock));
    }
}

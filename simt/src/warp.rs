//! What the lanes of a warp do together.
//!
//! A warp can have several collectives under way: some of its lanes may meet in a branch while the others already wait
//! where all meet again. Lanes that wait for each other at different operations are a fault.

use crate::machine::{Machine, Outcome, enter, peek, suspend};
use crate::{Cause, Op, WARP};

/// Words a lane brings to a collective at most (`mma`).
const IN: usize = 10;
/// Words it takes away.
const OUT: usize = 4;

/// Lanes that have arrived at a collective that is not complete.
struct Group {
    op: Op,
    mask: u32,
    arrived: u32,
}

/// One warp.
pub(crate) struct Warp {
    /// Lanes that can run.
    pub(crate) ready: u32,
    exited: u32,
    groups: Vec<Group>,
    /// What each lane brought.
    pub(crate) input: [[u32; IN]; WARP as usize],
    /// What each lane takes away.
    pub(crate) output: [[u32; OUT]; WARP as usize],
}

impl Warp {
    pub(crate) fn new() -> Self {
        Self {
            ready: 0,
            exited: 0,
            groups: Vec::new(),
            input: [[0; IN]; WARP as usize],
            output: [[0; OUT]; WARP as usize],
        }
    }

    pub(crate) fn begin(&mut self) {
        (self.ready, self.exited) = (u32::MAX, 0);
        self.groups.clear();
    }

    /// Whether none of its lanes runs any more.
    pub(crate) fn has_exited(&self) -> bool {
        self.exited == u32::MAX
    }
}

impl Machine<'_> {
    /// The running thread arrives at a collective. Returns whether it has to wait.
    fn arrive(&mut self, op: Op, mask: u32, input: &[u32]) -> Outcome<bool> {
        let (w, lane) = self.place();
        let bit = 1 << lane;
        if mask & bit == 0 {
            return self.fault(Cause::NotInMask { op, mask, lane });
        }
        self.park(w, lane);
        let warp = &mut self.warps[w];
        warp.input[lane as usize][..input.len()].copy_from_slice(input);
        let first = |lanes: u32| w as u32 * WARP + lanes.trailing_zeros();
        let same = |group: &Group| (group.op, group.mask) == (op, mask);
        let mutual = |group: &&Group| group.mask & bit != 0 && group.arrived & mask != 0 && !same(group);
        if let Some(&Group { op: other_op, mask: other_mask, arrived }) = warp.groups.iter().find(mutual) {
            let other = first(arrived & mask);
            return self.fault(Cause::Diverged { op, mask, other, other_op, other_mask });
        }
        if warp.exited & mask != 0 {
            let exited = first(warp.exited & mask);
            return self.fault(Cause::Exited { op, mask, waiting: self.thread, exited });
        }
        let group = warp.groups.iter().position(same).unwrap_or_else(|| {
            warp.groups.push(Group { op, mask, arrived: 0 });
            warp.groups.len() - 1
        });
        let arrived = &mut warp.groups[group].arrived;
        *arrived |= bit;
        if *arrived == mask {
            warp.groups.swap_remove(group);
            self.perform(w, op, mask)?;
        }
        Ok(self.warps[w].ready & bit == 0)
    }

    /// All lanes of the mask have arrived.
    fn perform(&mut self, warp: usize, op: Op, mask: u32) -> Outcome<()> {
        match op {
            Op::ShuffleXor => self.shuffle(warp, op, mask, |lane, operand| lane ^ operand)?,
            Op::ShuffleIdx => self.shuffle(warp, op, mask, |_, operand| operand)?,
            Op::Ballot => self.vote(warp, mask),
            Op::SyncWarp => {
                self.stats.warp_syncs += 1;
                if let Some(races) = &mut self.races {
                    races.sync_warp(warp, mask);
                }
            }
            Op::Ldmatrix { count, transpose } => self.load_matrices(warp, count, transpose)?,
            Op::Stmatrix => self.store_matrices(warp)?,
            Op::Mma(kind) => self.multiply(warp, kind),
            Op::Wgmma(_) | Op::WgmmaCommit => return self.issue(warp, op),
            Op::WgmmaWait { running } => return self.wait_for_products(warp, running),
            Op::ClusterArrive => return self.arrive_at_cluster(warp),
            Op::ClusterWait => return self.wait_for_cluster(warp),
            Op::BarrierSync { id, threads } => return self.arrive_at_barrier(warp, op, id, threads, true),
            Op::BarrierArrive { id, threads } => return self.arrive_at_barrier(warp, op, id, threads, false),
        }
        self.wake(warp, mask);
        Ok(())
    }

    fn shuffle(&mut self, w: usize, op: Op, mask: u32, source: impl Fn(u32, u32) -> u32) -> Outcome<()> {
        self.stats.shuffles += 1;
        let warp = &mut self.warps[w];
        for lane in lanes(mask) {
            let [_, operand, ..] = warp.input[lane as usize];
            let from = source(lane, operand);
            if from >= WARP || mask >> from & 1 == 0 {
                let cause = Cause::ShuffleSource { op, mask, lane: from };
                return self.fault_of(w as u32 * WARP + lane, cause);
            }
            warp.output[lane as usize][0] = warp.input[from as usize][0];
        }
        Ok(())
    }

    fn vote(&mut self, warp: usize, mask: u32) {
        self.stats.ballots += 1;
        let warp = &mut self.warps[warp];
        let votes = lanes(mask).fold(0, |votes, lane| votes | (warp.input[lane as usize][0] & 1) << lane);
        for lane in lanes(mask) {
            warp.output[lane as usize][0] = votes;
        }
    }

    /// The running thread's kernel has ended.
    pub(crate) fn exit(&mut self) -> Outcome<()> {
        let (w, lane) = self.place();
        self.park(w, lane);
        let warp = &mut self.warps[w];
        warp.exited |= 1 << lane;
        match warp.groups.iter().find(|group| group.mask >> lane & 1 == 1) {
            Some(&Group { op, mask, arrived }) => {
                let waiting = w as u32 * WARP + arrived.trailing_zeros();
                self.fault(Cause::Exited { op, mask, waiting, exited: self.thread })
            }
            None => {
                if self.warps[w].has_exited() {
                    self.end_cluster_phase();
                }
                if self.has_exited(self.rank) { self.check_end() } else { Ok(()) }
            }
        }
    }

    /// Collectives that wait for lanes.
    pub(crate) fn describe_collectives(&self) -> impl Iterator<Item = String> {
        let stuck = self.warps.iter().enumerate().filter_map(|(warp, state)| Some((warp, state.groups.first()?)));
        stuck.map(|(warp, Group { op, mask, arrived })| {
            format!("lanes {arrived:#010x} of warp {warp} wait at {op} with mask {mask:#010x}")
        })
    }
}

/// The lanes of a mask.
fn lanes(mask: u32) -> impl Iterator<Item = u32> {
    (0..WARP).filter(move |lane| mask >> lane & 1 == 1)
}

/// Takes part in a collective and returns this lane's share of the result.
#[inline]
pub(crate) fn collective(op: Op, mask: u32, input: &[u32]) -> [u32; OUT] {
    if enter(|machine| machine.arrive(op, mask, input)) {
        suspend();
    }
    peek(|machine| {
        let (warp, lane) = machine.place();
        machine.warps[warp].output[lane as usize]
    })
}

/// The `value` of the lane whose index differs in the bits of `lane_mask` (`shfl.sync.bfly`). Orders no memory.
pub fn shuffle_xor(mask: u32, value: u32, lane_mask: u32) -> u32 {
    collective(Op::ShuffleXor, mask, &[value, lane_mask])[0]
}

/// The `value` of lane `lane` (`shfl.sync.idx`). Orders no memory.
pub fn shuffle_idx(mask: u32, value: u32, lane: u32) -> u32 {
    collective(Op::ShuffleIdx, mask, &[value, lane])[0]
}

/// The lanes of `mask` whose `predicate` holds, by bit (`vote.sync.ballot`). Orders no memory.
pub fn ballot(mask: u32, predicate: bool) -> u32 {
    collective(Op::Ballot, mask, &[u32::from(predicate)])[0]
}

/// Waits for the lanes of `mask` and orders memory among them (`bar.warp.sync`).
pub fn sync_warp(mask: u32) {
    collective(Op::SyncWarp, mask, &[]);
}

//! Barriers among the warps of a block. Warps arrive as a whole, as aligned barriers ask for; those that have exited are
//! still waited for.

use crate::knowledge::Knowledge;
use crate::machine::{Machine, Outcome};
use crate::warp::collective;
use crate::{Cause, Op, WARP};

/// Barriers of a block.
const COUNT: usize = 16;

/// One barrier's current round.
#[derive(Default)]
struct Barrier {
    /// Threads it waits for; 0 before the first arrives.
    expected: u32,
    arrived: u32,
    /// Warps that wait, by bit.
    waiting: u128,
    /// What those that arrived have done.
    release: Knowledge,
}

/// All barriers of a block.
#[derive(Default)]
pub(crate) struct Barriers([Barrier; COUNT]);

impl Machine<'_> {
    /// A whole warp arrives at barrier `id`, and waits if `wait`.
    pub(crate) fn arrive_at_barrier(&mut self, warp: usize, op: Op, id: u32, threads: u32, wait: bool) -> Outcome<()> {
        let (block_dim, rank) = (self.launch.threads, self.rank as usize);
        if id as usize >= COUNT || threads == 0 || !threads.is_multiple_of(WARP) || threads > block_dim {
            return self.fault(Cause::Barrier { op, block_dim });
        }
        self.stats.barriers += 1;
        let expected = self.barriers[rank].0[id as usize].expected;
        if expected != 0 && expected != threads {
            return self.fault(Cause::BarrierCount { op, expected });
        }
        let barrier = &mut self.barriers[rank].0[id as usize];
        barrier.expected = threads;
        barrier.arrived += WARP;
        if let Some(races) = &mut self.races {
            races.release(warp, &mut barrier.release);
        }
        if wait {
            barrier.waiting |= 1 << warp;
        } else {
            self.wake(warp, u32::MAX);
        }
        if self.barriers[rank].0[id as usize].arrived == threads {
            let mut barrier = std::mem::take(&mut self.barriers[rank].0[id as usize]);
            while barrier.waiting != 0 {
                let warp = barrier.waiting.trailing_zeros() as usize;
                barrier.waiting &= barrier.waiting - 1;
                if let Some(races) = &mut self.races {
                    races.acquire(warp, &barrier.release);
                }
                self.wake(warp, u32::MAX);
            }
        }
        Ok(())
    }

    /// What warps wait for at barriers.
    pub(crate) fn describe_barriers(&self) -> impl Iterator<Item = String> {
        let all = self.barriers.iter().flat_map(|of_block| of_block.0.iter().enumerate());
        all.filter(|(_, barrier)| barrier.waiting != 0).map(|(id, barrier)| {
            let Barrier { expected, arrived, waiting, .. } = barrier;
            let warps = list_warps(*waiting);
            format!("{arrived} of {expected} threads arrived at barrier {id}, where warps {warps} wait")
        })
    }
}

/// The warps of a set, for people.
pub(crate) fn list_warps(set: u128) -> String {
    let warps = (0..128).filter(|warp| set >> warp & 1 == 1).map(|warp| warp.to_string());
    warps.collect::<Vec<_>>().join(", ")
}

/// Waits until `threads` threads have arrived at barrier `id` (0 to 15). Orders all memory among them.
pub fn barrier_sync(id: u32, threads: u32) {
    collective(Op::BarrierSync { id, threads }, u32::MAX, &[]);
}

/// Arrives at barrier `id` without waiting: orders what came before against what follows the others' wait.
pub fn barrier_arrive(id: u32, threads: u32) {
    collective(Op::BarrierArrive { id, threads }, u32::MAX, &[]);
}

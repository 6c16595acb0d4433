//! Barriers among the warps of a block. Warps arrive as a whole, as aligned barriers ask for; those that have exited are
//! still waited for.

use crate::machine::{Machine, Outcome};
use crate::race::Release;
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
    waiting: u32,
    /// What those that arrived have done before.
    release: Release,
}

/// All barriers of a block.
#[derive(Default)]
pub(crate) struct Barriers([Barrier; COUNT]);

impl Machine<'_> {
    /// A whole warp arrives at barrier `id`, and waits if `wait`.
    pub(crate) fn arrive_at_barrier(&mut self, warp: usize, op: Op, id: u32, threads: u32, wait: bool) -> Outcome<()> {
        let block_dim = self.launch.threads;
        if id as usize >= COUNT || threads == 0 || !threads.is_multiple_of(WARP) || threads > block_dim {
            return self.fault(Cause::Barrier { op, block_dim });
        }
        self.stats.barriers += 1;
        let expected = self.barriers.0[id as usize].expected;
        if expected != 0 && expected != threads {
            return self.fault(Cause::BarrierCount { op, expected });
        }
        let barrier = &mut self.barriers.0[id as usize];
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
        if self.barriers.0[id as usize].arrived == threads {
            let mut barrier = std::mem::take(&mut self.barriers.0[id as usize]);
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

    /// Why no thread can go on.
    pub(crate) fn describe_deadlock(&self) -> String {
        let barriers = self.barriers.0.iter().enumerate().filter(|(_, barrier)| barrier.waiting != 0);
        let barriers = barriers.map(|(id, barrier)| {
            let Barrier { expected, arrived, waiting, .. } = barrier;
            let warps: Vec<_> =
                (0..WARP).filter(|warp| waiting >> warp & 1 == 1).map(|warp| warp.to_string()).collect();
            format!("{arrived} of {expected} threads arrived at barrier {id}, where warps {} wait", warps.join(", "))
        });
        let lanes = self.warps.iter().enumerate().filter_map(|(warp, state)| Some((warp, state.stuck()?)));
        let lanes = lanes.map(|(warp, (op, mask, arrived))| {
            format!("lanes {arrived:#010x} of warp {warp} wait at {op} with mask {mask:#010x}")
        });
        barriers.chain(lanes).collect::<Vec<_>>().join("; ")
    }
}

/// Waits until `threads` threads have arrived at barrier `id` (0 to 15). Orders all memory among them.
pub fn barrier_sync(id: u32, threads: u32) {
    collective(Op::BarrierSync { id, threads }, u32::MAX, &[]);
}

/// Arrives at barrier `id` without waiting: orders what came before against what follows the others' wait.
pub fn barrier_arrive(id: u32, threads: u32) {
    collective(Op::BarrierArrive { id, threads }, u32::MAX, &[]);
}

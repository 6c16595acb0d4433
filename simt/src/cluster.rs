//! Clusters: blocks that run together and write each other's shared memory.

use crate::barrier::list_warps;
use crate::knowledge::Knowledge;
use crate::machine::{Machine, Outcome, enter, peek};
use crate::warp::collective;
use crate::{Access, Cause, Op, WARP};

/// Where the block's rank begins in an address of the cluster's shared memory.
const RANK_BITS: u32 = 24;

/// The barrier of a cluster. Warps that have exited are not waited for.
#[derive(Default)]
pub(crate) struct ClusterBarrier {
    /// Warps that have arrived in the present phase, by bit.
    arrived: u128,
    /// Warps that have arrived in some phase and not yet waited for its end.
    owing: u128,
    /// Warps that wait.
    waiting: u128,
    /// Warps that have waited for the end of a phase: they know that all blocks have started.
    acquainted: u128,
    /// What those that arrived have done.
    release: Knowledge,
    /// The same of the phase before.
    told: Knowledge,
}

impl Machine<'_> {
    /// A whole warp arrives.
    pub(crate) fn arrive_at_cluster(&mut self, warp: usize) -> Outcome<()> {
        self.stats.cluster_barriers += 1;
        let barrier = &mut self.cluster;
        if barrier.owing >> warp & 1 == 1 {
            return self.fault(Cause::ClusterBarrier("arrives again before it has waited"));
        }
        barrier.owing |= 1 << warp;
        barrier.arrived |= 1 << warp;
        if let Some(races) = &mut self.races {
            races.release(warp, &mut barrier.release);
        }
        self.wake(warp, u32::MAX);
        self.end_cluster_phase();
        Ok(())
    }

    /// A whole warp waits for the phase that it arrived in.
    pub(crate) fn wait_for_cluster(&mut self, warp: usize) -> Outcome<()> {
        let barrier = &mut self.cluster;
        if barrier.owing >> warp & 1 == 0 {
            return self.fault(Cause::ClusterBarrier("waits without having arrived"));
        }
        if barrier.arrived >> warp & 1 == 1 {
            barrier.waiting |= 1 << warp;
        } else {
            self.pass_cluster(warp);
        }
        Ok(())
    }

    /// Ends the phase if every warp that still runs has arrived.
    pub(crate) fn end_cluster_phase(&mut self) {
        let running = (0..).zip(&self.warps).filter(|(_, warp)| !warp.has_exited());
        let all = running.fold(0, |all, (warp, _)| all | 1u128 << warp);
        let barrier = &mut self.cluster;
        if barrier.arrived == 0 || all & !barrier.arrived != 0 {
            return;
        }
        barrier.arrived = 0;
        barrier.told = std::mem::take(&mut barrier.release);
        let mut waiting = std::mem::take(&mut barrier.waiting);
        while waiting != 0 {
            let warp = waiting.trailing_zeros() as usize;
            waiting &= waiting - 1;
            self.pass_cluster(warp);
        }
    }

    fn pass_cluster(&mut self, warp: usize) {
        let barrier = &mut self.cluster;
        barrier.owing &= !(1 << warp);
        barrier.acquainted |= 1 << warp;
        if let Some(races) = &mut self.races {
            races.acquire(warp, &barrier.told);
        }
        self.wake(warp, u32::MAX);
    }

    /// What warps wait for at the cluster's barrier.
    pub(crate) fn describe_cluster(&self) -> Option<String> {
        let ClusterBarrier { arrived, waiting, .. } = &self.cluster;
        let (arrived, warps) = (arrived.count_ones(), list_warps(*waiting));
        (*waiting != 0).then(|| format!("{arrived} warps arrived at the cluster's barrier, where warps {warps} wait"))
    }

    /// Where the memory of a block starts that the running thread may reach into.
    pub(crate) fn peer(&self, rank: u32) -> Outcome<u32> {
        let cluster = self.launch.cluster;
        if rank >= cluster {
            return self.fault(Cause::NoPeer { rank, cluster });
        }
        if rank != self.rank {
            if self.cluster.acquainted >> (self.thread / WARP) & 1 == 0 {
                return self.fault(Cause::PeerNotStarted { rank });
            }
            if self.has_exited(rank) {
                return self.fault(Cause::PeerExited { rank });
            }
        }
        Ok(rank * self.shared.pitch)
    }

    /// The same by an address of the cluster's shared memory, and that address within the block.
    pub(crate) fn peer_at(&self, mapped: u32) -> Outcome<(u32, u32)> {
        Ok((self.peer(mapped >> RANK_BITS)?, mapped & ((1 << RANK_BITS) - 1)))
    }
}

/// Index of the block in its cluster (`%cluster_ctarank`).
#[inline]
pub fn cluster_rank() -> u32 {
    peek(|machine| machine.rank)
}

/// Arrives at the cluster's barrier, a whole warp at a time; [`cluster_wait`] has to follow.
pub fn cluster_arrive() {
    collective(Op::ClusterArrive, u32::MAX, &[]);
}

/// Waits until every thread of the cluster has arrived or exited. Orders all memory among them.
pub fn cluster_wait() {
    collective(Op::ClusterWait, u32::MAX, &[]);
}

/// Where the shared address lies in the block of this rank (`mapa`); for [`store_cluster`], also with a distance added, and
/// for [`crate::mbarrier_arrive_cluster`].
pub fn map_cluster(address: u32, rank: u32) -> u32 {
    enter(|machine| {
        let cluster = machine.launch.cluster;
        if rank >= cluster {
            return machine.fault(Cause::NoPeer { rank, cluster });
        }
        if address >> RANK_BITS != 0 {
            let size = machine.launch.shared_bytes;
            return machine.fault(Cause::OutOfShared { access: Access::Store, address, bytes: 0, size });
        }
        Ok(rank << RANK_BITS | address)
    })
}

/// Stores `N` bytes (4, 8 or 16), naturally aligned, in a block of the cluster, which must be known to have started and must
/// still run.
pub fn store_cluster<const N: usize>(mapped: u32, data: [u8; N]) {
    const { assert!(N.is_power_of_two() && 4 <= N && N <= 16) };
    enter(|machine| {
        machine.stats.shared_stores += 1;
        machine.stats.shared_store_bytes += N as u64;
        let (base, address) = machine.peer_at(mapped)?;
        machine.write_shared(base, address, &data)
    });
}

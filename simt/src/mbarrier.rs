//! `mbarrier`: barriers in shared memory that count arrivals of threads and bytes of bulk copies.
//!
//! A phase ends once all arrivals and all expected bytes are there; it orders what came before the arrivals, and the
//! copies, against what follows a wait for it. Bytes may arrive before they are expected. Threads of other blocks of the
//! cluster arrive too; what came before that is ordered only against what follows a wait of the cluster's scope.

use core::fmt;
use std::collections::BTreeMap;

use crate::knowledge::{Agent, Knowledge};
use crate::machine::{Machine, Outcome, enter, suspend};
use crate::{Access, Cause, WARP};

/// Size in bytes, and alignment.
const BYTES: u32 = 8;

/// Most arrivals and most bytes that a barrier counts.
const MAX_COUNT: u32 = (1 << 20) - 1;

/// A wrong use of an mbarrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// There is none.
    NotInitialised,
    /// It is initialised a second time.
    AlreadyInitialised,
    /// Its phases would have so many arrivals.
    Arrivals(u32),
    /// More threads arrive in a phase than it was initialised for.
    TooManyArrivals,
    /// A phase would expect so many bytes more.
    Bytes(u32),
    /// A copy uses it before the thread that initialised it has called [`crate::fence_proxy_async`].
    Unpublished,
    /// Its bytes are accessed like any others.
    Touched(Access),
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInitialised => f.write_str("is used, but there is none"),
            Self::AlreadyInitialised => f.write_str("is initialised again"),
            Self::Arrivals(count) => write!(f, "is initialised with {count} arrivals; allowed are 1 to 1048575"),
            Self::TooManyArrivals => f.write_str("has all arrivals of its phase, and one more comes"),
            Self::Bytes(bytes) => write!(f, "would expect {bytes} bytes more, and then over 1048575"),
            Self::Unpublished => f.write_str("is used by a copy before fence_proxy_async"),
            Self::Touched(access) => write!(f, "is accessed by a plain {access}"),
        }
    }
}

/// One barrier.
struct Mbarrier {
    /// Arrivals of each phase.
    arrivals: u32,
    /// Those still missing.
    missing: u32,
    /// Bytes expected and not yet copied.
    bytes: i64,
    /// Phases that are over.
    over: u32,
    /// Threads that wait for the present phase.
    waiting: Vec<u32>,
    /// The thread that made it, until it has let the copy engine see it.
    private_to: Option<u32>,
    /// What those that arrived in the present phase have done.
    release: Told,
    /// The same of all phases that are over.
    told: Told,
    /// Its copies, where races are looked for.
    agent: Agent,
}

/// What is told at a barrier.
#[derive(Default)]
struct Told {
    /// By threads of its block, and by copies.
    here: Knowledge,
    /// By threads of other blocks.
    elsewhere: Knowledge,
}

impl Told {
    fn join(&mut self, other: &Self) {
        self.here.join(&other.here);
        self.elsewhere.join(&other.elsewhere);
    }
}

/// Whom a wait learns from: PTX orders two threads only if the scopes of the one's release and of the other's
/// acquire contain both.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Threads of the block.
    Block,
    /// Those of the cluster.
    Cluster,
}

/// All barriers of a cluster, by address through all its blocks.
#[derive(Default)]
pub(crate) struct Mbarriers(BTreeMap<u32, Mbarrier>);

impl Mbarriers {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// What `thread` initialised may now be used by copies.
    pub(crate) fn publish(&mut self, thread: u32) {
        for barrier in self.0.values_mut().filter(|barrier| barrier.private_to == Some(thread)) {
            barrier.private_to = None;
        }
    }
}

impl Machine<'_> {
    /// The barrier at an address of the block whose memory starts at `base`.
    fn mbarrier(&mut self, base: u32, address: u32) -> Outcome<&mut Mbarrier> {
        let (thread, at) = (self.thread, base.wrapping_add(address));
        if address >= self.shared.pitch || !self.mbarriers.0.contains_key(&at) {
            return self.misuse(address, Misuse::NotInitialised);
        }
        if let Some(Err(cause)) = self.races.as_ref().map(|races| races.look(thread, at, BYTES)) {
            return self.fault(cause);
        }
        match self.mbarriers.0.get_mut(&at) {
            Some(barrier) => Ok(barrier),
            None => unreachable!("it was there above"),
        }
    }

    fn misuse<T>(&self, address: u32, misuse: Misuse) -> Outcome<T> {
        self.fault(Cause::Mbarrier { address, misuse })
    }

    fn arrive_at_mbarrier(&mut self, base: u32, address: u32, bytes: u32) -> Outcome<()> {
        self.stats.mbarrier_arrivals += 1;
        let barrier = self.mbarrier(base, address)?;
        if barrier.missing == 0 {
            return self.misuse(address, Misuse::TooManyArrivals);
        }
        barrier.missing -= 1;
        barrier.bytes += i64::from(bytes);
        if barrier.bytes > i64::from(MAX_COUNT) {
            return self.misuse(address, Misuse::Bytes(bytes));
        }
        let (thread, at) = (self.thread, base + address);
        if let (Some(races), Some(barrier)) = (&mut self.races, self.mbarriers.0.get_mut(&at)) {
            let Told { here, elsewhere } = &mut barrier.release;
            races.release_thread(thread, if base == self.base { here } else { elsewhere });
        }
        self.end_phase(at);
        Ok(())
    }

    /// Whether the running thread may let copies complete on a barrier of the block whose memory starts at `base`.
    pub(crate) fn check_mbarrier(&mut self, base: u32, address: u32) -> Outcome<()> {
        match self.mbarrier(base, address)?.private_to {
            Some(_) => self.misuse(address, Misuse::Unpublished),
            None => Ok(()),
        }
    }

    /// A copy has stored `bytes` bytes at `to` and counts them on the barrier at `at`, both addresses through all blocks.
    pub(crate) fn complete_copy(&mut self, at: u32, to: u32, bytes: u32) {
        let Some(barrier) = self.mbarriers.0.get_mut(&at) else {
            unreachable!("barriers live as long as their block");
        };
        barrier.bytes -= i64::from(bytes);
        if let Some(races) = &mut self.races {
            let phase = barrier.over + 1;
            races.copied(barrier.agent, phase, to, bytes);
            races.release_copies(barrier.agent, phase, &mut barrier.release.here);
        }
        self.end_phase(at);
    }

    /// Begins the next phase if the present one has all it waits for.
    fn end_phase(&mut self, at: u32) {
        let Some(barrier) = self.mbarriers.0.get_mut(&at) else { return };
        if barrier.missing > 0 || barrier.bytes != 0 {
            return;
        }
        barrier.over += 1;
        barrier.missing = barrier.arrivals;
        barrier.told.join(&std::mem::take(&mut barrier.release));
        for thread in std::mem::take(&mut barrier.waiting) {
            self.wake((thread / WARP) as usize, 1 << (thread % WARP));
        }
    }

    /// Whether the phase of this parity is over; if not, the running thread waits until a phase ends.
    fn test_mbarrier(&mut self, address: u32, parity: u32, scope: Scope) -> Outcome<bool> {
        let thread = self.thread;
        let barrier = self.mbarrier(self.base, address)?;
        if barrier.over % 2 == parity % 2 {
            barrier.waiting.push(thread);
            let (warp, lane) = self.place();
            self.park(warp, lane);
            return Ok(false);
        }
        let at = self.base + address;
        if let (Some(races), Some(barrier)) = (&mut self.races, self.mbarriers.0.get(&at)) {
            races.acquire_thread(thread, &barrier.told.here);
            if scope == Scope::Cluster {
                races.acquire_thread(thread, &barrier.told.elsewhere);
            }
        }
        Ok(true)
    }

    /// What threads wait for at mbarriers.
    pub(crate) fn describe_mbarriers(&self) -> impl Iterator<Item = String> {
        let waited_for = self.mbarriers.0.iter().filter(|(_, barrier)| !barrier.waiting.is_empty());
        waited_for.map(|(at, Mbarrier { missing, bytes, over, waiting, .. })| {
            let address = at % self.shared.pitch;
            let (count, first) = (waiting.len(), waiting[0] % self.launch.threads);
            format!(
                "{count} threads (thread {first} first) wait at mbarrier {address} for the end of phase {over}, which lacks \
                 {missing} arrivals and {bytes} bytes"
            )
        })
    }
}

/// Makes the 8 bytes at `address` a barrier whose phases take so many arrivals. Other threads need a barrier after it,
/// copies [`crate::fence_proxy_async`] too.
pub fn mbarrier_init(address: u32, arrivals: u32) {
    enter(|machine| {
        let at = machine.base.wrapping_add(address);
        if machine.mbarriers.0.contains_key(&at) {
            return machine.misuse(address, Misuse::AlreadyInitialised);
        }
        if !(1..=MAX_COUNT).contains(&arrivals) {
            return machine.misuse(address, Misuse::Arrivals(arrivals));
        }
        machine.claim_mbarrier(address)?;
        let barrier = Mbarrier {
            arrivals,
            missing: arrivals,
            bytes: 0,
            over: 0,
            waiting: vec![],
            private_to: Some(machine.thread),
            release: Told::default(),
            told: Told::default(),
            agent: machine.races.as_mut().map_or(0, |races| races.add_agent()),
        };
        machine.mbarriers.0.insert(at, barrier);
        Ok(())
    });
}

/// Arrives (`mbarrier.arrive`).
pub fn mbarrier_arrive(address: u32) {
    enter(|machine| machine.arrive_at_mbarrier(machine.base, address, 0));
}

/// Arrives at a barrier of any block of the cluster, which must be known to have started and must still run, at an address
/// of [`crate::map_cluster`] (`mbarrier.arrive.release.cluster.shared::cluster`).
pub fn mbarrier_arrive_cluster(mapped: u32) {
    enter(|machine| {
        let (base, address) = machine.peer_at(mapped)?;
        machine.arrive_at_mbarrier(base, address, 0)
    });
}

/// Arrives, and lets the phase wait for `bytes` of copies too (`mbarrier.arrive.expect_tx`).
pub fn mbarrier_arrive_expecting(address: u32, bytes: u32) {
    enter(|machine| machine.arrive_at_mbarrier(machine.base, address, bytes));
}

/// Waits until the phase of this parity is over (a loop of `mbarrier.try_wait.parity`): that of the other parity is then
/// the present one. Phases have parity 0, 1, 0, ...; the one before the first is over. What threads of other blocks did
/// before they arrived is not ordered: that takes [`mbarrier_wait_cluster`].
pub fn mbarrier_wait(address: u32, parity: u32) {
    wait(address, parity, Scope::Block);
}

/// The same, but what any thread of the cluster did before it arrived is ordered before what follows
/// (`mbarrier.try_wait.parity.acquire.cluster`).
pub fn mbarrier_wait_cluster(address: u32, parity: u32) {
    wait(address, parity, Scope::Cluster);
}

fn wait(address: u32, parity: u32, scope: Scope) {
    while !enter(|machine| machine.test_mbarrier(address, parity, scope)) {
        // As on a GPU, a thread that sleeps through two phases goes on waiting.
        suspend();
    }
    enter(|machine| {
        machine.stats.mbarrier_waits += 1;
        Ok(())
    });
}

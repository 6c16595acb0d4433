//! The state of the blocks that run, and how the threads in it reach that state.

use core::cell::Cell;
use core::ptr;

use corosensei::Yielder;

use crate::async_copy::Copies;
use crate::barrier::Barriers;
use crate::cluster::ClusterBarrier;
use crate::global::GlobalMemory;
use crate::launch::{Buffer, Launch};
use crate::mbarrier::Mbarriers;
use crate::race::Races;
use crate::shared::SharedMemory;
use crate::tma::BulkCopy;
use crate::warp::Warp;
use crate::wgmma::Warpgroup;
use crate::{Cause, Fault, Place, Stats, WARP};

/// An operation's result; the fault is boxed so that the good case stays small.
pub(crate) type Outcome<T> = Result<T, Box<Fault>>;

/// The blocks of one cluster at a time, and what outlives them. Threads, warps and warpgroups are counted through all of them.
pub(crate) struct Machine<'a> {
    pub(crate) launch: &'a Launch<'a>,
    pub(crate) global: GlobalMemory<'a>,
    pub(crate) shared: SharedMemory,
    /// Absent unless the launch asks for the check.
    pub(crate) races: Option<Races>,
    pub(crate) warps: Vec<Warp>,
    /// Warps with a lane that can run, by bit.
    pub(crate) runnable: u128,
    /// By block of the cluster.
    pub(crate) barriers: Vec<Barriers>,
    pub(crate) cluster: ClusterBarrier,
    pub(crate) mbarriers: Mbarriers,
    /// By thread.
    pub(crate) copies: Vec<Copies>,
    /// In no order.
    pub(crate) bulk_copies: Vec<BulkCopy>,
    pub(crate) warpgroups: Vec<Warpgroup>,
    /// By thread: whether it has read or written global memory, or had it read.
    pub(crate) touched_global: Vec<bool>,
    pub(crate) stats: Stats,
    /// The cluster's first block.
    pub(crate) block: u32,
    /// The thread that runs.
    pub(crate) thread: u32,
    /// The rank of its block in the cluster.
    pub(crate) rank: u32,
    /// Where its block's shared memory starts in the cluster's.
    pub(crate) base: u32,
    /// By thread; each points to its coroutine's stack.
    pub(crate) yielders: Vec<*const Yielder<(), ()>>,
    pub(crate) fault: Option<Box<Fault>>,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(launch: &'a Launch<'a>, buffers: &'a mut [Buffer<'_>]) -> Self {
        let shared = SharedMemory::new(launch);
        let threads = launch.threads * launch.cluster;
        Self {
            launch,
            global: GlobalMemory::new(buffers),
            races: launch.check_races.then(|| Races::new(launch, shared.pitch)),
            shared,
            warps: (0..launch.warps()).map(|_| Warp::new()).collect(),
            runnable: 0,
            barriers: vec![],
            cluster: ClusterBarrier::default(),
            mbarriers: Mbarriers::default(),
            copies: (0..threads).map(|_| Copies::default()).collect(),
            bulk_copies: vec![],
            warpgroups: (0..launch.warpgroups()).map(|_| Warpgroup::default()).collect(),
            touched_global: vec![false; threads as usize],
            stats: Stats::default(),
            block: 0,
            thread: 0,
            rank: 0,
            base: 0,
            yielders: vec![ptr::null(); threads as usize],
            fault: None,
        }
    }

    /// Sets all state to that of a cluster that begins.
    pub(crate) fn begin(&mut self, cluster: u32) {
        self.block = cluster * self.launch.cluster;
        self.stats.blocks += u64::from(self.launch.cluster);
        self.shared.poison();
        if let Some(races) = &mut self.races {
            races.begin();
        }
        self.warps.iter_mut().for_each(Warp::begin);
        self.runnable = u128::MAX >> (u128::BITS as usize - self.warps.len());
        self.barriers = (0..self.launch.cluster).map(|_| Barriers::default()).collect();
        self.cluster = ClusterBarrier::default();
        self.mbarriers.clear();
        self.copies.iter_mut().for_each(Copies::clear);
        self.bulk_copies.clear();
        self.warpgroups.iter_mut().for_each(Warpgroup::begin);
        self.touched_global.fill(false);
    }

    /// Makes a thread the running one.
    pub(crate) fn switch_to(&mut self, thread: u32) {
        self.thread = thread;
        self.rank = thread / self.launch.threads;
        self.base = self.rank * self.shared.pitch;
    }

    /// Whether all threads of a block have exited.
    pub(crate) fn has_exited(&self, rank: u32) -> bool {
        let warps = (self.launch.threads / WARP) as usize;
        self.warps[rank as usize * warps..][..warps].iter().all(Warp::has_exited)
    }

    /// The running thread's block has exited: whether copies to it go on.
    pub(crate) fn check_end(&self) -> Outcome<()> {
        match self.bulk_copies.iter().filter(|copy| copy.to() / self.shared.pitch == self.rank).count() {
            0 => Ok(()),
            copies => Err(self.fault_of_block(self.block + self.rank, Cause::Unfinished(copies))),
        }
    }

    /// Why no thread can go on.
    #[cold]
    pub(crate) fn deadlock(&self) -> Box<Fault> {
        let reasons = self.describe_barriers().chain(self.describe_cluster());
        let reasons = reasons.chain(self.describe_mbarriers()).chain(self.describe_products());
        let reasons: Vec<_> = reasons.chain(self.describe_collectives()).collect();
        self.fault_of_block(self.block, Cause::Deadlock(reasons.join("; ")))
    }

    fn fault_of_block(&self, block: u32, cause: Cause) -> Box<Fault> {
        Box::new(self.launch.fault(Place::Block(block), cause))
    }

    /// The running thread's warp and lane.
    pub(crate) fn place(&self) -> (usize, u32) {
        ((self.thread / WARP) as usize, self.thread % WARP)
    }

    /// A fault of the running thread.
    pub(crate) fn fault<T>(&self, cause: Cause) -> Outcome<T> {
        self.fault_of(self.thread, cause)
    }

    /// A fault of any thread.
    #[cold]
    pub(crate) fn fault_of<T>(&self, thread: u32, cause: Cause) -> Outcome<T> {
        let threads = self.launch.threads;
        let place = Place::Thread { block: self.block + thread / threads, thread: thread % threads };
        Err(Box::new(self.launch.fault(place, cause)))
    }

    /// Lets these lanes of a warp run.
    pub(crate) fn wake(&mut self, warp: usize, lanes: u32) {
        self.warps[warp].ready |= lanes;
        self.runnable |= 1 << warp;
    }

    /// Stops a lane from running until it is woken.
    pub(crate) fn park(&mut self, warp: usize, lane: u32) {
        let ready = &mut self.warps[warp].ready;
        *ready &= !(1 << lane);
        if *ready == 0 {
            self.runnable &= !(1 << warp);
        }
    }
}

thread_local! {
    /// The machine whose kernel this operating-system thread runs. Its lifetime is erased: see [`Installed`].
    static CURRENT: Cell<*mut Machine<'static>> = const { Cell::new(ptr::null_mut()) };
}

/// Makes a machine the current one, and the former current again when dropped.
pub(crate) struct Installed {
    former: *mut Machine<'static>,
}

impl Installed {
    pub(crate) fn new(machine: *mut Machine<'_>) -> Self {
        Self { former: CURRENT.replace(machine.cast()) }
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        CURRENT.set(self.former);
    }
}

/// Whether a launch is under way here.
pub(crate) fn is_running() -> bool {
    !CURRENT.get().is_null()
}

/// Reads or changes the current machine. `with` must not suspend nor enter again.
#[inline]
pub(crate) fn peek<T>(with: impl FnOnce(&mut Machine<'_>) -> T) -> T {
    let machine = CURRENT.get();
    assert!(!machine.is_null(), "a GPU operation outside a launch");
    // SAFETY: `Installed` keeps the pointer to a machine that lives as long as it is current. One coroutine or the
    // scheduler runs at a time, and none holds a reference to it across a switch: this is the only place that makes one
    // while kernels run, and it ends before anybody else can run.
    with(unsafe { &mut *machine })
}

/// Performs an operation of the running thread: counts it, and does not return if it faults.
#[inline]
pub(crate) fn enter<T>(operation: impl FnOnce(&mut Machine<'_>) -> Outcome<T>) -> T {
    let outcome = peek(|machine| {
        machine.stats.operations += 1;
        if machine.stats.operations > machine.launch.budget {
            return machine.fault(Cause::Hang(machine.launch.budget));
        }
        operation(machine)
    });
    match outcome {
        Ok(value) => value,
        Err(fault) => stop(fault),
    }
}

/// Ends the launch with a fault; the thread never runs on.
#[cold]
pub(crate) fn stop(fault: Box<Fault>) -> ! {
    peek(|machine| machine.fault = Some(fault));
    loop {
        suspend();
    }
}

/// Gives the processor back to the scheduler.
pub(crate) fn suspend() {
    let yielder = peek(|machine| machine.yielders[machine.thread as usize]);
    // SAFETY: set by the coroutine of this very thread as its first act, and valid as long as that runs.
    unsafe { (*yielder).suspend(()) };
}

//! A launch: its grid, its buffers, and how it is watched.

use core::marker::PhantomData;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::machine::Machine;
use crate::schedule::{Stacks, run_cluster};
use crate::{Cause, Fault, Place, Stats, WARP};

/// Most threads of a block.
const MAX_THREADS: u32 = 1024;
/// Most blocks of a cluster.
const MAX_CLUSTER: u32 = 8;
/// Most threads of a cluster: a set of its warps is a number.
const MAX_TOGETHER: u32 = u128::BITS * WARP;
/// Most shared memory of a block, in bytes; more than any GPU has.
const MAX_SHARED: u32 = 1 << 20;

/// How a kernel is launched. Grid and blocks have one dimension.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Name of the kernel, for faults.
    pub kernel: &'a str,
    /// Blocks of the grid.
    pub grid: u32,
    /// Threads of a block: a multiple of 32 up to 1024.
    pub threads: u32,
    /// Blocks of a cluster, 1 for none. The grid is a multiple of it.
    pub cluster: u32,
    /// Bytes of shared memory of a block. Every block finds them full of 0xFF, which is NaN in fp16, bf16 and fp32.
    pub shared_bytes: u32,
    /// Which of the grid's blocks run, in which order.
    pub blocks: Blocks<'a>,
    /// Seed of the schedule: the same seed gives the same run, cluster by cluster.
    pub seed: u64,
    /// Whether unordered accesses to shared memory are faults. Costs about as much again as the run itself.
    pub check_races: bool,
    /// Operations after which the launch counts as hanging. A loop that calls nothing of this crate is not seen.
    pub budget: u64,
}

impl<'a> Launch<'a> {
    /// A launch of all blocks without clusters or shared memory, seed 0, with the race check, and a budget of 10^10 operations.
    pub fn new(kernel: &'a str, grid: u32, threads: u32) -> Self {
        Self {
            kernel,
            grid,
            threads,
            cluster: 1,
            shared_bytes: 0,
            blocks: Blocks::All,
            seed: 0,
            check_races: true,
            budget: 10_000_000_000,
        }
    }

    pub(crate) fn fault(&self, place: Place, cause: Cause) -> Fault {
        Fault { kernel: self.kernel.to_owned(), place, cause }
    }

    /// Warps of a cluster.
    pub(crate) fn warps(&self) -> u32 {
        self.cluster * self.threads / WARP
    }

    /// Warpgroups of a cluster, of which a block's last may lack warps.
    pub(crate) fn warpgroups(&self) -> u32 {
        self.cluster * self.threads.div_ceil(4 * WARP)
    }

    fn validate(&self) -> Result<(), Cause> {
        if self.threads == 0 || !self.threads.is_multiple_of(WARP) || self.threads > MAX_THREADS {
            return Err(Cause::Threads(self.threads));
        }
        let Self { cluster, grid, threads, .. } = *self;
        if !(1..=MAX_CLUSTER).contains(&cluster) || !grid.is_multiple_of(cluster) || cluster * threads > MAX_TOGETHER {
            return Err(Cause::Cluster { cluster, grid, threads });
        }
        if self.shared_bytes > MAX_SHARED {
            return Err(Cause::SharedBytes(self.shared_bytes));
        }
        if let Blocks::Only(blocks) = self.blocks
            && let Some(&block) = blocks.iter().find(|&&block| block >= grid / cluster)
        {
            return Err(Cause::NoSuchBlock { block, grid: grid / cluster });
        }
        Ok(())
    }
}

/// A choice of blocks, by whole clusters.
#[derive(Clone, Copy, Debug)]
pub enum Blocks<'a> {
    /// All, from the first to the last.
    All,
    /// These clusters, in this order: blocks, where there are no clusters.
    Only(&'a [u32]),
}

/// Global memory of a launch. The address of its first byte is [`crate::address_of`] its place in the list.
#[derive(Debug)]
pub struct Buffer<'a> {
    pub(crate) name: &'a str,
    pub(crate) start: *mut u8,
    pub(crate) bytes: u64,
    pub(crate) writable: bool,
    borrow: PhantomData<&'a mut [u8]>,
}

impl<'a> Buffer<'a> {
    /// A buffer that kernels may only read.
    pub fn read(name: &'a str, data: &'a [u8]) -> Self {
        Self { name, start: data.as_ptr().cast_mut(), bytes: data.len() as u64, writable: false, borrow: PhantomData }
    }

    /// A buffer that kernels may read and write.
    pub fn write(name: &'a str, data: &'a mut [u8]) -> Self {
        Self { name, start: data.as_mut_ptr(), bytes: data.len() as u64, writable: true, borrow: PhantomData }
    }

    /// A buffer of raw parts.
    ///
    /// # Safety
    ///
    /// For `'a`, `bytes` bytes at `start` must be readable and, if `writable`, writable, and nobody else may touch them
    /// during a launch (or write them, if not `writable`).
    pub(crate) unsafe fn from_raw(name: &'a str, start: *mut u8, bytes: u64, writable: bool) -> Self {
        Self { name, start, bytes, writable, borrow: PhantomData }
    }
}

/// Runs `kernel` once per thread of each selected block.
///
/// # Errors
///
/// The first [`Fault`]; buffers then hold what had been stored until there.
pub fn run(launch: &Launch<'_>, buffers: &mut [Buffer<'_>], kernel: impl Fn()) -> Result<Stats, Fault> {
    launch.validate().map_err(|cause| launch.fault(Place::Launch, cause))?;
    let mut stacks =
        Stacks::take(launch.threads * launch.cluster).map_err(|cause| launch.fault(Place::Launch, cause))?;
    let mut machine = Machine::new(launch, buffers);
    let mut one = |cluster| {
        // A stream per cluster: its schedule does not depend on which others run.
        let mut rng = ChaCha8Rng::seed_from_u64(launch.seed);
        rng.set_stream(u64::from(cluster));
        run_cluster(&mut machine, cluster, &mut rng, &mut stacks, &kernel)
    };
    match launch.blocks {
        Blocks::All => (0..launch.grid / launch.cluster).try_for_each(&mut one),
        Blocks::Only(clusters) => clusters.iter().copied().try_for_each(&mut one),
    }?;
    Ok(machine.stats)
}

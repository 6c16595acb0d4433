//! What a kernel did wrong, and where.

use core::fmt;

use crate::{Access, Actor, Misuse, Op};

/// A launch that ended early. Its text is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel}{place}: {cause}")]
pub struct Fault {
    /// Name of the kernel.
    pub kernel: String,
    /// Where it happened.
    pub place: Place,
    /// What happened.
    pub cause: Cause,
}

/// Where a fault happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before any block ran.
    Launch,
    /// In a block as a whole.
    Block(u32),
    /// In one thread.
    Thread {
        /// The block.
        block: u32,
        /// The thread's index in it.
        thread: u32,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launch => Ok(()),
            Self::Block(block) => write!(f, ", block {block}"),
            Self::Thread { block, thread } => write!(f, ", block {block}, thread {thread}"),
        }
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The block's size is not one the machine runs.
    #[error("a block of {0} threads; allowed are multiples of 32 up to 1024")]
    Threads(u32),
    /// The clusters are not ones that the machine runs.
    #[error(
        "clusters of {cluster} blocks with {threads} threads in a grid of {grid}; allowed are 1 to 8 blocks that divide the \
         grid, with 4096 threads together"
    )]
    Cluster {
        /// Blocks of a cluster.
        cluster: u32,
        /// Blocks of the grid.
        grid: u32,
        /// Threads of a block.
        threads: u32,
    },
    /// More shared memory than the machine gives.
    #[error("{0} bytes of shared memory; at most 1048576 are allowed")]
    SharedBytes(u32),
    /// The launch selects a block (or cluster) that the grid lacks.
    #[error("block {block} is selected, but the grid has {grid}")]
    NoSuchBlock {
        /// The block.
        block: u32,
        /// Blocks of the grid, or clusters.
        grid: u32,
    },
    /// The arguments have another size than the kernel's.
    #[error("{given} bytes of arguments given, the kernel takes {taken}")]
    Arguments {
        /// Bytes given.
        given: usize,
        /// Bytes the kernel takes.
        taken: usize,
    },
    /// The system gave no stack for a thread.
    #[error("no stack for a thread: {0}")]
    Stack(String),
    /// A global address that lies in no buffer.
    #[error("{bytes}-byte {access} at global address {address:#x}, which is in no buffer")]
    NoBuffer {
        /// What was tried.
        access: Access,
        /// The address.
        address: u64,
        /// Bytes accessed.
        bytes: u32,
    },
    /// A global access that leaves its buffer.
    #[error(
        "{bytes}-byte {access} at offset {offset} of buffer {buffer}, which has {size} bytes (address {address:#x})"
    )]
    OutOfBuffer {
        /// What was tried.
        access: Access,
        /// The address.
        address: u64,
        /// Bytes accessed.
        bytes: u32,
        /// Name of the buffer.
        buffer: String,
        /// Bytes of the buffer.
        size: u64,
        /// Where in it the access begins.
        offset: i64,
    },
    /// A store to a buffer that is only read.
    #[error("{bytes}-byte store at offset {offset} of buffer {buffer}, which is read-only (address {address:#x})")]
    ReadOnly {
        /// The address.
        address: u64,
        /// Bytes stored.
        bytes: u32,
        /// Name of the buffer.
        buffer: String,
        /// Where in it the access begins.
        offset: i64,
    },
    /// A global access that is not aligned to its width.
    #[error("{bytes}-byte {access} at offset {offset} of buffer {buffer} is misaligned (address {address:#x})")]
    MisalignedGlobal {
        /// What was tried.
        access: Access,
        /// The address.
        address: u64,
        /// Bytes accessed.
        bytes: u32,
        /// Name of the buffer.
        buffer: String,
        /// Where in it the access begins.
        offset: i64,
    },
    /// A shared access beyond the block's shared memory.
    #[error("{bytes}-byte {access} at shared address {address}, the block has {size} bytes")]
    OutOfShared {
        /// What was tried.
        access: Access,
        /// The address.
        address: u32,
        /// Bytes accessed.
        bytes: u32,
        /// Bytes of the block's shared memory.
        size: u32,
    },
    /// A shared access that is not aligned as it must be.
    #[error("{bytes}-byte {access} at shared address {address} is misaligned: multiples of {align} are allowed")]
    MisalignedShared {
        /// What was tried.
        access: Access,
        /// The address.
        address: u32,
        /// Bytes accessed.
        bytes: u32,
        /// What the address must be a multiple of.
        align: u32,
    },
    /// Two threads touch the same shared byte, one of them stores, and nothing orders them.
    #[error("race: {access} of shared byte {address}, and a {other_access} by {other}, with no barrier between")]
    Race {
        /// The later access, by the thread that faults.
        access: Access,
        /// The byte.
        address: u32,
        /// The earlier access.
        other_access: Access,
        /// Who made it.
        other: Actor,
    },
    /// Shared memory is stored to that products have yet to read.
    #[error("{bytes}-byte store at shared address {address}, which products under way have yet to read")]
    Operand {
        /// The address.
        address: u32,
        /// Bytes stored.
        bytes: u32,
    },
    /// Products read what a thread stored without a fence.
    #[error("products read shared byte {address}, which {by} stored without fence_proxy_async after it")]
    Unfenced {
        /// The byte.
        address: u32,
        /// Who stored.
        by: Actor,
    },
    /// A thread waits for earlier grids after it has used what they may still write.
    #[error("waits for earlier grids after it has touched global memory")]
    BeforeEarlierGrids,
    /// A block ends while bulk copies to it go on.
    #[error("the end, with {0} bulk copies under way")]
    Unfinished(usize),
    /// An mbarrier misused.
    #[error("the mbarrier at shared address {address} {misuse}")]
    Mbarrier {
        /// Its address.
        address: u32,
        /// How.
        misuse: Misuse,
    },
    /// A tensor map that the copy engine does not take.
    #[error("a tensor map that is not allowed: {0}")]
    TensorMap(&'static str),
    /// A matrix descriptor that the machine does not take.
    #[error("matrix descriptor {0:#018x}: allowed are rows of 128 bytes in 128-byte permutation, base offset 0")]
    Descriptor(u64),
    /// An accumulator of products misused.
    #[error("an accumulator {0}")]
    Accumulator(&'static str),
    /// A warp that is in no warpgroup.
    #[error("wgmma by a warp that is in no warpgroup: those are four warps from a multiple of four on")]
    NoWarpgroup,
    /// Warps of a warpgroup issue different products.
    #[error("{op}, where another warp of the warpgroup issued {other}")]
    Warpgroup {
        /// What this warp issued.
        op: Op,
        /// What the other did at its place.
        other: Op,
    },
    /// The cluster's barrier misused.
    #[error("a warp {0} at the cluster's barrier")]
    ClusterBarrier(&'static str),
    /// A block that the cluster lacks.
    #[error("block {rank} of the cluster, which has {cluster}")]
    NoPeer {
        /// The block's rank.
        rank: u32,
        /// Blocks of the cluster.
        cluster: u32,
    },
    /// Shared memory of a block is accessed that may not have started.
    #[error("an access to block {rank} of the cluster, with no cluster_wait before that says it has started")]
    PeerNotStarted {
        /// The block's rank.
        rank: u32,
    },
    /// Shared memory of a block is accessed that has exited.
    #[error("an access to block {rank} of the cluster, which has exited")]
    PeerExited {
        /// The block's rank.
        rank: u32,
    },
    /// A bulk copy whose set of blocks is empty.
    #[error("a bulk copy to no block of the cluster")]
    ToNobody,
    /// Shared memory is touched that an asynchronous copy has not yet filled.
    #[error("{bytes}-byte {access} at shared address {address}, into which a copy by {issuer} is in flight")]
    InFlight {
        /// What was tried.
        access: Access,
        /// The address.
        address: u32,
        /// Bytes accessed.
        bytes: u32,
        /// The thread that issued the copy.
        issuer: Actor,
    },
    /// An asynchronous copy of a size that does not exist.
    #[error("cp.async of {bytes} bytes, {src_bytes} of them read; allowed are 4, 8 or 16, and at most as many read")]
    CopySize {
        /// Bytes written.
        bytes: u32,
        /// Bytes read.
        src_bytes: u32,
    },
    /// A lane names a mask that it is not in.
    #[error("{op} with mask {mask:#010x}, which lacks the lane itself ({lane})")]
    NotInMask {
        /// The operation.
        op: Op,
        /// The mask.
        mask: u32,
        /// The lane.
        lane: u32,
    },
    /// Lanes of one mask are at different operations.
    #[error(
        "{op} with mask {mask:#010x} while thread {other} of the mask waits at {other_op} with mask {other_mask:#010x}"
    )]
    Diverged {
        /// Where this lane is.
        op: Op,
        /// The mask it names.
        mask: u32,
        /// Another lane's thread.
        other: u32,
        /// Where that is.
        other_op: Op,
        /// The mask that it names.
        other_mask: u32,
    },
    /// A collective waits for a lane that has exited.
    #[error(
        "{op} with mask {mask:#010x} by thread {waiting} can never complete: thread {exited} of the mask has exited"
    )]
    Exited {
        /// The operation.
        op: Op,
        /// Its mask.
        mask: u32,
        /// A thread that waits.
        waiting: u32,
        /// A thread that will not come.
        exited: u32,
    },
    /// A shuffle reads a lane outside its mask.
    #[error("{op} reads lane {lane}, which mask {mask:#010x} lacks")]
    ShuffleSource {
        /// The operation.
        op: Op,
        /// Its mask.
        mask: u32,
        /// The lane it would read.
        lane: u32,
    },
    /// A barrier that does not exist, or a count that it cannot have.
    #[error("{op}: barriers are 0 to 15, counts are multiples of 32 up to the block's {block_dim} threads")]
    Barrier {
        /// The operation.
        op: Op,
        /// Threads of the block.
        block_dim: u32,
    },
    /// Warps name different counts for one barrier.
    #[error("{op}, while warps that arrived before wait for {expected} threads at that barrier")]
    BarrierCount {
        /// The operation.
        op: Op,
        /// The count the barrier began with.
        expected: u32,
    },
    /// No thread can go on.
    #[error("deadlock: {0}")]
    Deadlock(String),
    /// The launch used up its budget of operations.
    #[error("still running after {0} operations")]
    Hang(u64),
    /// The kernel called [`crate::trap`].
    #[error("trap: {0}")]
    Trap(String),
    /// The kernel panicked.
    #[error("panic: {0}")]
    Panic(String),
}

/// The kinds of [`Cause`], for those who only count them; stable across the library boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Class {
    /// The launch is not one the machine runs.
    Launch = 1,
    /// A bad global or shared access.
    Memory = 2,
    /// A race in shared memory, or an asynchronous copy touched too early.
    Race = 3,
    /// A collective or barrier misused.
    Collective = 4,
    /// No thread can go on.
    Deadlock = 5,
    /// The budget is used up.
    Hang = 6,
    /// The kernel gave up: a trap or a panic.
    Abort = 7,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 7] =
        [Self::Launch, Self::Memory, Self::Race, Self::Collective, Self::Deadlock, Self::Hang, Self::Abort];
}

impl Cause {
    /// Its kind.
    pub fn class(&self) -> Class {
        match self {
            Self::Threads(_)
            | Self::Cluster { .. }
            | Self::SharedBytes(_)
            | Self::NoSuchBlock { .. }
            | Self::Arguments { .. }
            | Self::Stack(_) => Class::Launch,
            Self::NoBuffer { .. }
            | Self::OutOfBuffer { .. }
            | Self::ReadOnly { .. }
            | Self::MisalignedGlobal { .. }
            | Self::OutOfShared { .. }
            | Self::MisalignedShared { .. }
            | Self::CopySize { .. }
            | Self::TensorMap(_)
            | Self::ToNobody
            | Self::Descriptor(_)
            | Self::NoPeer { .. } => Class::Memory,
            Self::Race { .. }
            | Self::InFlight { .. }
            | Self::Operand { .. }
            | Self::Unfenced { .. }
            | Self::Unfinished(_)
            | Self::BeforeEarlierGrids
            | Self::PeerNotStarted { .. }
            | Self::PeerExited { .. } => Class::Race,
            Self::NotInMask { .. }
            | Self::Diverged { .. }
            | Self::Exited { .. }
            | Self::ShuffleSource { .. }
            | Self::Barrier { .. }
            | Self::BarrierCount { .. }
            | Self::Mbarrier { .. }
            | Self::Accumulator(_)
            | Self::NoWarpgroup
            | Self::Warpgroup { .. }
            | Self::ClusterBarrier(_) => Class::Collective,
            Self::Deadlock(_) => Class::Deadlock,
            Self::Hang(_) => Class::Hang,
            Self::Trap(_) | Self::Panic(_) => Class::Abort,
        }
    }
}

//! What a kernel did wrong, and where.

use core::fmt;

use crate::MmaKind;

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

/// A way to touch memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Load,
    /// A store.
    Store,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Store => "store",
        })
    }
}

/// An operation that lanes of a warp perform together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// [`crate::shuffle_xor`].
    ShuffleXor,
    /// [`crate::shuffle_idx`].
    ShuffleIdx,
    /// [`crate::ballot`].
    Ballot,
    /// [`crate::sync_warp`].
    SyncWarp,
    /// [`crate::ldmatrix`].
    Ldmatrix {
        /// Matrices loaded: 1, 2 or 4.
        count: u32,
        /// Whether each is transposed.
        transpose: bool,
    },
    /// [`crate::mma_m16n8k16`].
    Mma(MmaKind),
    /// [`crate::barrier_sync`].
    BarrierSync {
        /// The barrier.
        id: u32,
        /// Threads it waits for.
        threads: u32,
    },
    /// [`crate::barrier_arrive`].
    BarrierArrive {
        /// The barrier.
        id: u32,
        /// Threads it waits for.
        threads: u32,
    },
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ShuffleXor => f.write_str("shuffle_xor"),
            Self::ShuffleIdx => f.write_str("shuffle_idx"),
            Self::Ballot => f.write_str("ballot"),
            Self::SyncWarp => f.write_str("sync_warp"),
            Self::Ldmatrix { count, transpose } => {
                write!(f, "ldmatrix.x{count}{}", if transpose { ".trans" } else { "" })
            }
            Self::Mma(kind) => write!(f, "mma_m16n8k16.{}", kind.name()),
            Self::BarrierSync { id, threads } => write!(f, "barrier_sync({id}, {threads})"),
            Self::BarrierArrive { id, threads } => write!(f, "barrier_arrive({id}, {threads})"),
        }
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The block's size is not one the machine runs.
    #[error("a block of {0} threads; allowed are multiples of 32 up to 1024")]
    Threads(u32),
    /// The launch selects a block that the grid lacks.
    #[error("block {block} is selected, but the grid has {grid}")]
    NoSuchBlock {
        /// The block.
        block: u32,
        /// Blocks of the grid.
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
    /// A shared access that is not aligned to its width.
    #[error("{bytes}-byte {access} at shared address {address} is misaligned")]
    MisalignedShared {
        /// What was tried.
        access: Access,
        /// The address.
        address: u32,
        /// Bytes accessed.
        bytes: u32,
    },
    /// Two threads touch the same shared byte, one of them stores, and nothing orders them.
    #[error("race: {access} of shared byte {address}, and a {other_access} by thread {other}, with no barrier between")]
    Race {
        /// The later access, by the thread that faults.
        access: Access,
        /// The byte.
        address: u32,
        /// The earlier access.
        other_access: Access,
        /// The thread that made it.
        other: u32,
    },
    /// Shared memory is touched that an asynchronous copy has not yet filled.
    #[error("{bytes}-byte {access} at shared address {address}, into which a copy by thread {issuer} is in flight")]
    InFlight {
        /// What was tried.
        access: Access,
        /// The address.
        address: u32,
        /// Bytes accessed.
        bytes: u32,
        /// The thread that issued the copy.
        issuer: u32,
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
            Self::Threads(_) | Self::NoSuchBlock { .. } | Self::Arguments { .. } | Self::Stack(_) => Class::Launch,
            Self::NoBuffer { .. }
            | Self::OutOfBuffer { .. }
            | Self::ReadOnly { .. }
            | Self::MisalignedGlobal { .. }
            | Self::OutOfShared { .. }
            | Self::MisalignedShared { .. }
            | Self::CopySize { .. } => Class::Memory,
            Self::Race { .. } | Self::InFlight { .. } => Class::Race,
            Self::NotInMask { .. }
            | Self::Diverged { .. }
            | Self::Exited { .. }
            | Self::ShuffleSource { .. }
            | Self::Barrier { .. }
            | Self::BarrierCount { .. } => Class::Collective,
            Self::Deadlock(_) => Class::Deadlock,
            Self::Hang(_) => Class::Hang,
            Self::Trap(_) | Self::Panic(_) => Class::Abort,
        }
    }
}

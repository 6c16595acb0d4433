//! Accesses to memory and who makes them.

use core::fmt;

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

/// Who made an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A thread of the same block.
    Thread(u32),
    /// A thread of another block of the cluster.
    Peer {
        /// The block's rank.
        rank: u32,
        /// The thread's index in it.
        thread: u32,
    },
    /// A bulk copy.
    Copy,
    /// Products of a warpgroup.
    Products,
}

impl Actor {
    /// A thread as another sees it, both counted through all blocks of a cluster, which have `threads` threads each.
    pub(crate) fn thread(other: u32, seen_by: u32, threads: u32) -> Self {
        let (rank, thread) = (other / threads, other % threads);
        if rank == seen_by / threads { Self::Thread(thread) } else { Self::Peer { rank, thread } }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(thread) => write!(f, "thread {thread}"),
            Self::Peer { rank, thread } => write!(f, "thread {thread} of the cluster's block {rank}"),
            Self::Copy => f.write_str("a bulk copy"),
            Self::Products => f.write_str("products of a warpgroup"),
        }
    }
}

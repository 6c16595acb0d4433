//! Operations that lanes of a warp perform together.

use core::fmt;

use crate::{Factors, MmaKind, Product};

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
    /// [`crate::stmatrix`].
    Stmatrix,
    /// [`crate::mma_m16n8`].
    Mma(MmaKind),
    /// [`crate::wgmma_shared`] or [`crate::wgmma_registers`].
    Wgmma(Product),
    /// [`crate::wgmma_commit`].
    WgmmaCommit,
    /// [`crate::wgmma_wait`].
    WgmmaWait {
        /// Groups that may go on.
        running: u32,
    },
    /// [`crate::cluster_arrive`].
    ClusterArrive,
    /// [`crate::cluster_wait`].
    ClusterWait,
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
            Self::Stmatrix => f.write_str("stmatrix.x4"),
            Self::Mma(kind) => write!(f, "mma_m16n8k{}.{}", kind.depth(), kind.name()),
            Self::Wgmma(Product { kind, accumulator, factors }) => {
                write!(f, "wgmma.m64n{}k{}.{}", accumulator.columns(), kind.depth(), kind.name())?;
                match factors {
                    Factors::Shared { a, b, fresh: false } => write!(f, "({a:#x}, {b:#x})"),
                    Factors::Shared { a, b, fresh: true } => write!(f, "({a:#x}, {b:#x}, fresh)"),
                    Factors::Registers { b } => write!(f, "(registers, {b:#x})"),
                }
            }
            Self::WgmmaCommit => f.write_str("wgmma_commit"),
            Self::WgmmaWait { running } => write!(f, "wgmma_wait({running})"),
            Self::ClusterArrive => f.write_str("cluster_arrive"),
            Self::ClusterWait => f.write_str("cluster_wait"),
            Self::BarrierSync { id, threads } => write!(f, "barrier_sync({id}, {threads})"),
            Self::BarrierArrive { id, threads } => write!(f, "barrier_arrive({id}, {threads})"),
        }
    }
}

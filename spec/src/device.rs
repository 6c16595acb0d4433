//! What a GPU allows.

use core::fmt;

/// A PTX target the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Sm {
    /// Ampere (A100) and whatever comes after it.
    Sm80,
    /// Ada (L4, L40S, RTX 40).
    Sm89,
    /// Hopper (H100, H200) with its architecture-specific instructions; runs on no other GPU.
    Sm90a,
}

impl Sm {
    /// All targets, oldest first.
    pub const ALL: [Self; 3] = [Self::Sm80, Self::Sm89, Self::Sm90a];

    /// The name ptxas and rustc use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm_80",
            Self::Sm89 => "sm_89",
            Self::Sm90a => "sm_90a",
        }
    }

    /// Whether blocks can start before the kernel before them in the stream is over.
    pub const fn launches_early(self) -> bool {
        matches!(self, Self::Sm90a)
    }

    /// Whether blocks can run in clusters and write each other's shared memory.
    pub const fn has_clusters(self) -> bool {
        matches!(self, Self::Sm90a)
    }

    /// Whether boxes of a tensor can be copied without a thread's doing (TMA).
    pub const fn has_copy_engine(self) -> bool {
        matches!(self, Self::Sm90a)
    }

    /// The best target for a GPU of this compute capability; `None` below 8.0.
    pub const fn for_capability(major: u32, minor: u32) -> Option<Self> {
        match (major, minor) {
            (9, 0) => Some(Self::Sm90a),
            (8, 9) => Some(Self::Sm89),
            (8, _) => Some(Self::Sm80),
            (0..8, _) => None,
            // PTX for sm_89 runs on every later GPU; sm_90a PTX does not.
            _ => Some(Self::Sm89),
        }
    }
}

impl fmt::Display for Sm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The limits of one GPU that decide whether a variant can be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DeviceLimits {
    /// The PTX target that fits it.
    pub sm: Sm,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Shared memory one block may ask for, in bytes (the opt-in limit).
    pub shared_bytes_per_block: u32,
    /// Shared memory of one multiprocessor, in bytes.
    pub shared_bytes_per_sm: u32,
    /// Shared memory the system keeps for itself of each block, in bytes.
    pub shared_bytes_reserved: u32,
    /// 32-bit registers of one multiprocessor.
    pub registers_per_sm: u32,
    /// Threads one multiprocessor keeps resident.
    pub threads_per_sm: u32,
    /// L2 cache in bytes.
    pub l2_bytes: u64,
}

impl DeviceLimits {
    /// An H100 SXM (also H200): the GPU whose records ship with the project.
    pub const H100: Self = Self {
        sm: Sm::Sm90a,
        multiprocessors: 132,
        shared_bytes_per_block: 232_448,
        shared_bytes_per_sm: 233_472,
        shared_bytes_reserved: 1024,
        registers_per_sm: 65_536,
        threads_per_sm: 2048,
        l2_bytes: 52_428_800,
    };

    /// An A100: sm_80 as data centres have it.
    pub const A100: Self = Self {
        sm: Sm::Sm80,
        multiprocessors: 108,
        shared_bytes_per_block: 166_912,
        shared_bytes_per_sm: 167_936,
        shared_bytes_reserved: 1024,
        registers_per_sm: 65_536,
        threads_per_sm: 2048,
        l2_bytes: 41_943_040,
    };

    /// An L4: sm_89, the GPU the project began on.
    pub const L4: Self = Self {
        sm: Sm::Sm89,
        multiprocessors: 58,
        shared_bytes_per_block: 101_376,
        shared_bytes_per_sm: 102_400,
        shared_bytes_reserved: 1024,
        registers_per_sm: 65_536,
        threads_per_sm: 1536,
        l2_bytes: 50_331_648,
    };

    /// A well-known GPU of each target, for work that no GPU is at hand for.
    pub const fn of(sm: Sm) -> Self {
        match sm {
            Sm::Sm80 => Self::A100,
            Sm::Sm89 => Self::L4,
            Sm::Sm90a => Self::H100,
        }
    }
}

//! The genes of the search space.

use crate::Sm;

/// What a gene's value reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The machine code: another value is another entry point.
    Code,
    /// A launch attribute or argument: the same entry point is launched otherwise.
    Launch,
}

/// What a gene is about; the search proposes themes in this order at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Theme {
    /// L2 cache: block order, cache hints, what is kept.
    L2,
    /// Memory access: widths, stages, shared-memory layout.
    Memory,
    /// Launch configuration: tiles, warps, occupancy.
    Launch,
    /// Instructions: exponentials, rescaling, where operands live.
    Instructions,
}

/// One decision about a kernel. A family uses some of them: see [`crate::Family::domains`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Gene {
    /// Query rows of a block.
    TileQ,
    /// Keys of one step of the main loop.
    TileKv,
    /// Warps of a block.
    Warps,
    /// Groups of warps of a block that share the keys among them and merge at the end.
    KvSplit,
    /// Blocks of a cluster that share the keys among them.
    Cluster,
    /// Lanes that share one query row.
    RowLanes,
    /// K/V tiles held in shared memory at a time, per group of warps.
    Stages,
    /// 0: Q is read again from shared memory each step; 1: Q stays in registers.
    QInRegisters,
    /// Bytes of one global load.
    LoadBytes,
    /// 16-byte units of padding after each row of a shared tile; with 0 the tensor-core families permute the units instead.
    SharedPad,
    /// 0: `ex2.approx`; n: a polynomial for one in n exponentials.
    ExpPoly,
    /// 1: the scores of the next step are computed while this step's softmax runs.
    Overlap,
    /// 1: two warpgroups take turns, one in the softmax while the other's products run.
    PingPong,
    /// 0: rescale O every step; 1: only if a row of the warp found a new maximum; 2: only if a probability relative to the
    /// maxima known before is large, and look for new maxima only then.
    LazyRescale,
    /// Blocks of one multiprocessor the compiler must leave registers for (`.minnctapersm`).
    BlocksPerSm,
    /// L2 hint of K/V loads: 0 none, 1 evict last, 2 fetch 128 bytes.
    CacheHint,
    /// 0: threads copy Q, K and V in chunks of 16 bytes; 1: the copy engine brings them in boxes, while the threads compute (sm_90).
    CopyEngine,
    /// A [`crate::BlockOrder`].
    BlockOrder,
    /// 1: as many blocks as there are multiprocessors; each takes every so many-th query tile, and K and V of the next one
    /// are on their way while this one's output is written.
    Persistent,
    /// 1: blocks start while those of the kernel before them in the stream still end, and wait for them before they touch
    /// memory (sm_90).
    EarlyLaunch,
    /// 1: a launch asks L2 to keep K and V, in a part of it that is set aside.
    L2Window,
}

impl Gene {
    /// Number of genes.
    pub const COUNT: usize = Self::ALL.len();

    /// All genes, in the order of their declaration.
    pub const ALL: [Self; 21] = [
        Self::TileQ,
        Self::TileKv,
        Self::Warps,
        Self::KvSplit,
        Self::Cluster,
        Self::RowLanes,
        Self::Stages,
        Self::QInRegisters,
        Self::LoadBytes,
        Self::SharedPad,
        Self::ExpPoly,
        Self::Overlap,
        Self::PingPong,
        Self::LazyRescale,
        Self::BlocksPerSm,
        Self::CacheHint,
        Self::CopyEngine,
        Self::BlockOrder,
        Self::Persistent,
        Self::EarlyLaunch,
        Self::L2Window,
    ];

    /// Name used in records, reports and the entry macro.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TileQ => "tile_q",
            Self::TileKv => "tile_kv",
            Self::Warps => "warps",
            Self::KvSplit => "kv_split",
            Self::Cluster => "cluster",
            Self::RowLanes => "row_lanes",
            Self::Stages => "stages",
            Self::QInRegisters => "q_in_registers",
            Self::LoadBytes => "load_bytes",
            Self::SharedPad => "shared_pad",
            Self::ExpPoly => "exp_poly",
            Self::Overlap => "overlap",
            Self::PingPong => "ping_pong",
            Self::LazyRescale => "lazy_rescale",
            Self::BlocksPerSm => "blocks_per_sm",
            Self::CacheHint => "cache_hint",
            Self::CopyEngine => "copy_engine",
            Self::BlockOrder => "block_order",
            Self::Persistent => "persistent",
            Self::EarlyLaunch => "early_launch",
            Self::L2Window => "l2_window",
        }
    }

    /// What its value reaches.
    pub const fn effect(self) -> Effect {
        match self {
            Self::BlockOrder | Self::L2Window => Effect::Launch,
            _ => Effect::Code,
        }
    }

    /// Whether kernels for this target can have this value of it.
    pub const fn works_on(self, value: u16, sm: Sm) -> bool {
        match self {
            Self::EarlyLaunch => value == 0 || sm.launches_early(),
            Self::CopyEngine => value == 0 || sm.has_copy_engine(),
            Self::Cluster => value == 1 || sm.has_clusters(),
            _ => true,
        }
    }

    /// What it is about.
    pub const fn theme(self) -> Theme {
        match self {
            Self::CacheHint | Self::BlockOrder | Self::L2Window => Theme::L2,
            Self::LoadBytes | Self::SharedPad | Self::Stages | Self::CopyEngine => Theme::Memory,
            Self::TileQ
            | Self::TileKv
            | Self::Warps
            | Self::KvSplit
            | Self::Cluster
            | Self::RowLanes
            | Self::BlocksPerSm
            | Self::Persistent
            | Self::EarlyLaunch => Theme::Launch,
            Self::QInRegisters | Self::ExpPoly | Self::Overlap | Self::PingPong | Self::LazyRescale => {
                Theme::Instructions
            }
        }
    }
}

/// The values one gene can have in one family, smallest first.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// The gene.
    pub gene: Gene,
    /// Its values.
    pub values: &'static [u16],
}

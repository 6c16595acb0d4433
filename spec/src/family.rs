//! The kernel families and the domains of their genes.

use core::fmt;

use crate::{Domain, Dtype, Gene, Sm};

/// A kernel family: one file under `kernels/src/family/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Family {
    /// FMA units only: any GPU, and the reference among the kernels.
    Tiled,
    /// Tensor cores by `mma.sync` with `cp.async` stages: sm_80 and later.
    Mma,
    /// Tensor cores by `wgmma` with the copy engine: sm_90a only.
    Wgmma,
    /// A few query rows over many keys, with the query heads that share K and V as rows of one tile: sm_80 and later.
    Decode,
}

const TILED: &[Domain] = &[
    Domain { gene: Gene::TileQ, values: &[16, 32, 64, 128] },
    Domain { gene: Gene::TileKv, values: &[16, 32, 64] },
    Domain { gene: Gene::Warps, values: &[2, 4, 8, 16] },
    Domain { gene: Gene::RowLanes, values: &[4, 8, 16, 32] },
    Domain { gene: Gene::LoadBytes, values: &[2, 4, 8, 16] },
    Domain { gene: Gene::SharedPad, values: &[0, 1] },
    Domain { gene: Gene::ExpPoly, values: &[0, 1] },
    Domain { gene: Gene::BlocksPerSm, values: &[1, 2] },
    Domain { gene: Gene::BlockOrder, values: &[0, 1, 2, 3, 4] },
];

const MMA: &[Domain] = &[
    Domain { gene: Gene::TileQ, values: &[16, 32, 64, 128] },
    Domain { gene: Gene::TileKv, values: &[16, 32, 64, 96, 128] },
    Domain { gene: Gene::Warps, values: &[1, 2, 4, 8, 16] },
    Domain { gene: Gene::KvSplit, values: &[1, 2, 4, 8] },
    Domain { gene: Gene::Stages, values: &[1, 2, 3, 4] },
    Domain { gene: Gene::QInRegisters, values: &[0, 1] },
    Domain { gene: Gene::SharedPad, values: &[0, 1] },
    Domain { gene: Gene::ExpPoly, values: &[0, 2, 4] },
    Domain { gene: Gene::LazyRescale, values: &[0, 1] },
    Domain { gene: Gene::BlocksPerSm, values: &[1, 2, 3, 4] },
    Domain { gene: Gene::CacheHint, values: &[0, 1, 2] },
    Domain { gene: Gene::CopyEngine, values: &[0, 1] },
    Domain { gene: Gene::BlockOrder, values: &[0, 1, 2, 3, 4] },
    Domain { gene: Gene::EarlyLaunch, values: &[0, 1] },
    Domain { gene: Gene::L2Window, values: &[0, 1] },
];

const WGMMA: &[Domain] = &[
    Domain { gene: Gene::TileQ, values: &[64, 128, 192, 256] },
    Domain { gene: Gene::TileKv, values: &[64, 80, 96, 112, 128, 160, 176, 192] },
    Domain { gene: Gene::KvSplit, values: &[1, 2, 3, 4] },
    Domain { gene: Gene::Cluster, values: &[1, 2, 4] },
    Domain { gene: Gene::Stages, values: &[1, 2, 3, 4] },
    Domain { gene: Gene::ExpPoly, values: &[0, 2, 3, 4, 8] },
    Domain { gene: Gene::Overlap, values: &[0, 1] },
    Domain { gene: Gene::PingPong, values: &[0, 1] },
    Domain { gene: Gene::LazyRescale, values: &[0, 1, 2] },
    Domain { gene: Gene::BlockOrder, values: &[0, 1, 2, 3, 4] },
    Domain { gene: Gene::Persistent, values: &[0, 1] },
    Domain { gene: Gene::EarlyLaunch, values: &[0, 1] },
    Domain { gene: Gene::L2Window, values: &[0, 1] },
];

const DECODE: &[Domain] = &[
    Domain { gene: Gene::TileQ, values: &[16, 32] },
    Domain { gene: Gene::TileKv, values: &[16, 32, 64] },
    Domain { gene: Gene::Warps, values: &[2, 4, 8] },
    Domain { gene: Gene::Cluster, values: &[1, 2, 4, 8] },
    Domain { gene: Gene::Stages, values: &[1, 2, 3, 4] },
    Domain { gene: Gene::QInRegisters, values: &[0, 1] },
    Domain { gene: Gene::BlocksPerSm, values: &[1, 2] },
    Domain { gene: Gene::CopyEngine, values: &[0, 1] },
    Domain { gene: Gene::EarlyLaunch, values: &[0, 1] },
];

impl Family {
    /// All families, the most portable first.
    pub const ALL: [Self; 4] = [Self::Tiled, Self::Mma, Self::Wgmma, Self::Decode];

    /// Name used in symbols, records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiled => "tiled",
            Self::Mma => "mma",
            Self::Wgmma => "wgmma",
            Self::Decode => "decode",
        }
    }

    /// The genes it has, each with the values it can take.
    pub const fn domains(self) -> &'static [Domain] {
        match self {
            Self::Tiled => TILED,
            Self::Mma => MMA,
            Self::Wgmma => WGMMA,
            Self::Decode => DECODE,
        }
    }

    /// Whether it has kernels for elements of this type.
    pub const fn takes(self, dtype: Dtype) -> bool {
        match dtype {
            Dtype::F16 | Dtype::Bf16 => true,
            Dtype::F32 => matches!(self, Self::Tiled),
            Dtype::E4m3 => matches!(self, Self::Wgmma),
        }
    }

    /// The most portable one that takes elements of this type: its smallest variant fits whatever any variant fits.
    pub const fn most_portable(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Self::Tiled,
            Dtype::E4m3 => Self::Wgmma,
        }
    }

    /// Whether PTX for this target can hold it.
    pub const fn runs_on(self, sm: Sm) -> bool {
        match self {
            Self::Tiled | Self::Mma | Self::Decode => true,
            Self::Wgmma => matches!(sm, Sm::Sm90a),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

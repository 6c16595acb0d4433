//! One entry point: what is compiled.

use core::{fmt, str::FromStr};

use crate::parse::{APPEND, FEATURED};
use crate::{APPEND_THREADS, Dtype, Family, Gene, ParseError, Sm, Variant, parse};

/// What is compiled.
///
/// Text form: that of an [`AttentionKernel`], or `append`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kernel {
    /// Attention.
    Attention(AttentionKernel),
    /// Appending to a K/V cache of any dtype and head_dim; it takes [`AppendArgs`](crate::AppendArgs).
    Append,
}

/// A variant's code genes for one dtype and head_dim. Variants that differ only in launch genes share it.
///
/// Text form: `mma:f16:64x64:tile_q=64,...`, or `mma:f16:64x64+features:tile_q=64,...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttentionKernel {
    /// Element type of Q, K, V and O.
    pub dtype: Dtype,
    /// Columns of Q and K.
    pub head_dim_qk: u32,
    /// Columns of V and O.
    pub head_dim_v: u32,
    code: Variant,
    /// Whether it takes [`FeatureArgs`](crate::FeatureArgs): the entry point of problems with [`Features`](crate::Features).
    pub featured: bool,
}

/// What the PTX of an entry point says of its launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchBounds {
    /// Threads of a block: `.maxntid`.
    pub threads: u32,
    /// Blocks one multiprocessor must be able to hold: `.minnctapersm`.
    pub blocks_per_sm: u32,
    /// Blocks of a cluster, `.reqnctapercluster`; 1 for none.
    pub cluster: u32,
}

impl AttentionKernel {
    pub(crate) fn from_parts(
        variant: Variant,
        dtype: Dtype,
        [head_dim_qk, head_dim_v]: [u32; 2],
        featured: bool,
    ) -> Self {
        Self { dtype, head_dim_qk, head_dim_v, code: variant.code_only(), featured }
    }

    /// The family.
    pub const fn family(&self) -> Family {
        self.code.family()
    }

    /// Its code genes and their values, in the order of [`Family::domains`].
    pub fn genes(&self) -> impl Iterator<Item = (Gene, u16)> + '_ {
        self.code.genes()
    }
}

impl Kernel {
    /// The attention kernel, if it is one.
    pub const fn attention(&self) -> Option<&AttentionKernel> {
        match self {
            Self::Attention(kernel) => Some(kernel),
            Self::Append => None,
        }
    }

    /// The family; none of the kernel that appends.
    pub fn family(&self) -> Option<Family> {
        self.attention().map(AttentionKernel::family)
    }

    /// Whether PTX for this target can hold it.
    pub fn runs_on(&self, sm: Sm) -> bool {
        self.attention().is_none_or(|kernel| {
            kernel.family().runs_on(sm) && kernel.genes().all(|(gene, value)| gene.works_on(value, sm))
        })
    }

    /// What its PTX must say of its launch.
    pub const fn launch_bounds(&self) -> LaunchBounds {
        match self {
            Self::Attention(AttentionKernel { code, .. }) => LaunchBounds {
                threads: code.threads(),
                blocks_per_sm: at_least_one(code.value(Gene::BlocksPerSm)),
                cluster: at_least_one(code.value(Gene::Cluster)),
            },
            Self::Append => LaunchBounds { threads: APPEND_THREADS, blocks_per_sm: 1, cluster: 1 },
        }
    }

    /// Whether its second argument is [`TensorMaps`](crate::TensorMaps).
    pub fn takes_tensor_maps(&self) -> bool {
        self.attention()
            .is_some_and(|kernel| kernel.family() == Family::Wgmma || kernel.code.value(Gene::CopyEngine) == 1)
    }

    /// Its name as an identifier.
    pub const fn symbol(&self) -> Symbol<'_> {
        Symbol(self)
    }
}

/// The value of a gene that the family may not have.
const fn at_least_one(value: u32) -> u32 {
    if value == 0 { 1 } else { value }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attention(kernel) => kernel.fmt(f),
            Self::Append => f.write_str(APPEND),
        }
    }
}

impl fmt::Display for AttentionKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dtype, head_dim_qk, head_dim_v, code, featured } = self;
        let features = if *featured { FEATURED } else { "" };
        write!(f, "{}:{}:{head_dim_qk}x{head_dim_v}{features}:", code.family(), dtype.name())?;
        code.fmt_genes(f)
    }
}

impl FromStr for Kernel {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse::kernel(text)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Kernel {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Kernel {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse::deserialize(deserializer, "a kernel such as tiled:f16:64x64:tile_q=64,... or append")
    }
}

/// A kernel's name as an identifier: `mma_f16_64x64_tile_q64_...`, `append`.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'a>(&'a Kernel);

impl fmt::Display for Symbol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kernel::Attention(kernel) = self.0 else { return f.write_str(APPEND) };
        let AttentionKernel { dtype, head_dim_qk, head_dim_v, featured, .. } = kernel;
        write!(f, "{}_{}_{head_dim_qk}x{head_dim_v}", kernel.family(), dtype.name())?;
        if *featured {
            f.write_str("_features")?;
        }
        kernel.genes().try_for_each(|(gene, value)| write!(f, "_{}{value}", gene.name()))
    }
}

//! One entry point: what is compiled.

use core::{fmt, str::FromStr};

use crate::{Dtype, Family, Gene, ParseError, Sm, Variant, parse, parse::FEATURED};

/// What is compiled: a variant's code genes for one dtype and head_dim. Variants that differ only in launch genes share it.
///
/// Text form: `mma:f16:64x64:tile_q=64,...`, or `mma:f16:64x64+features:tile_q=64,...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel {
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

impl Kernel {
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

    /// Whether PTX for this target can hold it.
    pub fn runs_on(&self, sm: Sm) -> bool {
        self.family().runs_on(sm) && self.genes().all(|(gene, value)| value == 0 || gene.works_on(sm))
    }

    /// What its PTX must say of its launch.
    pub const fn launch_bounds(&self) -> LaunchBounds {
        LaunchBounds {
            threads: self.code.threads(),
            blocks_per_sm: at_least_one(self.code.value(Gene::BlocksPerSm)),
            cluster: at_least_one(self.code.value(Gene::Cluster)),
        }
    }

    /// Whether its second argument is [`TensorMaps`](crate::TensorMaps).
    pub const fn takes_tensor_maps(&self) -> bool {
        matches!(self.family(), Family::Wgmma)
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
        parse::deserialize(deserializer, "a kernel such as tiled:f16:64x64:tile_q=64,...")
    }
}

/// A kernel's name as an identifier: `mma_f16_64x64_tile_q64_...`.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'a>(&'a Kernel);

impl fmt::Display for Symbol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kernel { dtype, head_dim_qk, head_dim_v, .. } = self.0;
        write!(f, "{}_{}_{head_dim_qk}x{head_dim_v}", self.0.family(), dtype.name())?;
        if self.0.featured {
            f.write_str("_features")?;
        }
        self.0.genes().try_for_each(|(gene, value)| write!(f, "_{}{value}", gene.name()))
    }
}

//! How a kernel does it: a family and a value for each of its genes.

use core::{fmt, str::FromStr};

use crate::{AttentionKernel, Effect, Family, Gene, Kernel, ParseError, Problem, parse};

const ABSENT: u16 = u16::MAX;

/// A point of the search space. Text form: `mma:tile_q=64,tile_kv=64,...`, in the order of [`Family::domains`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    family: Family,
    values: [u16; Gene::COUNT],
}

impl Variant {
    /// The family's variant with the smallest value of every gene: a start for [`Variant::with`].
    pub fn smallest(family: Family) -> Self {
        family
            .domains()
            .iter()
            .fold(Self::bare(family), |variant, domain| variant.with(domain.gene, domain.values[0]).unwrap_or(variant))
    }

    pub(crate) const fn bare(family: Family) -> Self {
        Self { family, values: [ABSENT; Gene::COUNT] }
    }

    /// The family.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The value of a gene; `None` if the family does not have it.
    pub const fn get(&self, gene: Gene) -> Option<u16> {
        match self.values[gene as usize] {
            ABSENT => None,
            value => Some(value),
        }
    }

    /// The same variant with another value; `None` if the family does not have the gene or the gene the value.
    pub fn with(mut self, gene: Gene, value: u16) -> Option<Self> {
        let domain = self.family.domains().iter().find(|domain| domain.gene == gene)?;
        domain.values.contains(&value).then(|| {
            self.values[gene as usize] = value;
            self
        })
    }

    /// Its genes and their values, in the order of [`Family::domains`].
    pub fn genes(&self) -> impl Iterator<Item = (Gene, u16)> + '_ {
        self.family.domains().iter().filter_map(|domain| Some((domain.gene, self.get(domain.gene)?)))
    }

    /// The entry point that runs it for a problem.
    pub fn kernel(&self, problem: &Problem) -> Kernel {
        let head_dims = [problem.head_dim_qk, problem.head_dim_v];
        Kernel::Attention(AttentionKernel::from_parts(*self, problem.dtype, head_dims, problem.needs_features()))
    }

    /// The value of a gene that the family is known to have; 0 otherwise.
    pub(crate) const fn value(&self, gene: Gene) -> u32 {
        match self.values[gene as usize] {
            ABSENT => 0,
            value => value as u32,
        }
    }

    /// Threads of a block.
    pub(crate) const fn threads(&self) -> u32 {
        match self.family {
            Family::Tiled | Family::Mma | Family::Decode => 32 * self.value(Gene::Warps),
            // Warpgroups that share the keys, or one per 64 query rows and one that copies.
            Family::Wgmma => match self.value(Gene::KvSplit) {
                1 => 128 * (self.value(Gene::TileQ) / 64 + 1),
                warpgroups => 128 * warpgroups,
            },
        }
    }

    pub(crate) fn code_only(mut self) -> Self {
        for gene in Gene::ALL {
            if gene.effect() == Effect::Launch {
                self.values[gene as usize] = ABSENT;
            }
        }
        self
    }

    pub(crate) fn fmt_genes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (gene, value)) in self.genes().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}={value}", gene.name())?;
        }
        Ok(())
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.family)?;
        self.fmt_genes(f)
    }
}

impl FromStr for Variant {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse::variant(text)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Variant {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Variant {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse::deserialize(deserializer, "a variant such as tiled:tile_q=64,...")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;
    use crate::{Features, Window};

    #[test]
    fn text_form_round_trips() {
        for family in Family::ALL {
            let variant = Variant::smallest(family);
            assert_eq!(variant.to_string().parse::<Variant>(), Ok(variant));
            let near = Features { window: Window { left: Some(1), right: None }, ..Features::NONE };
            let [plain, featured] =
                [Features::NONE, near].map(|features| variant.kernel(&Problem { features, ..Problem::SEED }));
            assert_ne!(plain.symbol().to_string(), featured.symbol().to_string());
            for kernel in [plain, featured, Kernel::Append] {
                assert_eq!(kernel.to_string().parse::<Kernel>(), Ok(kernel));
            }
        }
    }

    #[test]
    fn unknown_values_are_refused() {
        assert_eq!(Variant::smallest(Family::Mma).with(Gene::TileQ, 17), None);
        assert_eq!("mma:tile_q=17".parse::<Variant>(), Err(ParseError::Gene(1)));
        assert_eq!("mma:tile_q=64".parse::<Variant>(), Err(ParseError::MissingGene(Gene::TileKv)));
        let named = "wgmma:tile_q=64,tile_kv=64,kv_split=1,cluster=1,stages=1";
        assert_eq!(named.parse(), Ok(Variant::smallest(Family::Wgmma)), "what is off need not be named");
        assert_eq!("magic:tile_q=64".parse::<Variant>(), Err(ParseError::Family));
    }
}

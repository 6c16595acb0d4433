//! A declared part of the search space: genes held to some of their values.

use std::{fmt, str::FromStr};

use spec::{Family, Gene, Variant};

/// Genes held to some of their values. Text form: `block_order=0 mma.tile_kv=64,128`, where a gene without a family is held
/// in every family that has it. Without any gene it is the whole space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part(Vec<Held>);

/// One gene held to some of its values, in one family or in all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    family: Option<Family>,
    gene: Gene,
    values: Vec<u16>,
}

/// Why a text names no part of the space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// It has another form.
    #[error("`{0}`: a gene is held by gene=value,... or family.gene=value,...")]
    Form(String),
    /// There is no such family.
    #[error("`{held}`: families are {known}", known = Family::ALL.map(Family::name).join(", "))]
    Family {
        /// The gene and its values, as given.
        held: String,
    },
    /// No family that is meant has the gene.
    #[error("`{held}`: genes are {known}")]
    Gene {
        /// The gene and its values, as given.
        held: String,
        /// The genes there are.
        known: String,
    },
    /// No family that is meant can have the value.
    #[error("`{held}`: values are {known}")]
    Value {
        /// The gene and its values, as given.
        held: String,
        /// The values there are.
        known: String,
    },
}

impl Part {
    /// Whether a variant is in it.
    pub fn contains(&self, variant: &Variant) -> bool {
        self.0.iter().all(|held| held.admits(variant))
    }

    /// Whether it is the whole space.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }
}

impl Held {
    fn admits(&self, variant: &Variant) -> bool {
        let meant = self.family.is_none_or(|family| family == variant.family());
        !meant || variant.get(self.gene).is_none_or(|value| self.values.contains(&value))
    }
}

impl FromStr for Part {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, PartError> {
        text.split_whitespace().map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Held {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, PartError> {
        let held = || text.to_owned();
        let (name, values) = text.split_once('=').ok_or_else(|| PartError::Form(held()))?;
        let (family, gene) = match name.split_once('.') {
            Some((name, gene)) => {
                let family = Family::ALL.into_iter().find(|family| family.name() == name);
                (Some(family.ok_or_else(|| PartError::Family { held: held() })?), gene)
            }
            None => (None, name),
        };
        let families = || Family::ALL.into_iter().filter(|of| family.is_none_or(|family| family == *of));
        let domains = || families().flat_map(Family::domains);
        let known = |mut names: Vec<&str>| {
            names.sort_unstable();
            names.dedup();
            names.join(", ")
        };
        let Some(gene) = domains().map(|domain| domain.gene).find(|known| known.name() == gene) else {
            let known = known(domains().map(|domain| domain.gene.name()).collect());
            return Err(PartError::Gene { held: held(), known });
        };
        let mut allowed: Vec<u16> =
            domains().filter(|domain| domain.gene == gene).flat_map(|domain| domain.values).copied().collect();
        allowed.sort_unstable();
        allowed.dedup();
        let value = |text: &str| text.parse().ok().filter(|value| allowed.contains(value));
        let values = values.split(',').map(value).collect::<Option<Vec<_>>>();
        let values = values.ok_or_else(|| PartError::Value { held: held(), known: list(&allowed) })?;
        Ok(Self { family, gene, values })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Held { family, gene, values }) in self.0.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            let family = family.map(|family| format!("{family}.")).unwrap_or_default();
            write!(f, "{space}{family}{}={}", gene.name(), list(values))?;
        }
        Ok(())
    }
}

fn list(values: &[u16]) -> String {
    values.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use spec::{DeviceLimits, Problem};

    use super::*;
    use crate::space;

    #[test]
    fn genes_are_held_in_the_families_that_are_meant() {
        let text = "block_order=0 mma.tile_kv=64,128 wgmma.stages=2";
        let part: Part = text.parse().unwrap();
        assert_eq!(part.to_string(), text);
        let has = |variants: &[Variant], gene, value| variants.iter().any(|variant| variant.get(gene) == Some(value));
        for family in [Family::Tiled, Family::Mma, Family::Wgmma] {
            let (inside, outside): (Vec<_>, Vec<_>) = space::variants(&Problem::SEED, family, &DeviceLimits::H100)
                .partition(|variant| part.contains(variant));
            let fewer = |gene, value| has(&inside, gene, value) != has(&outside, gene, value);
            assert!(fewer(Gene::BlockOrder, 1) && has(&inside, Gene::BlockOrder, 0), "{family}");
            assert_eq!(fewer(Gene::TileKv, 32), family == Family::Mma);
            assert_eq!(has(&outside, Gene::Stages, 2) && fewer(Gene::Stages, 1), family == Family::Wgmma);
        }
    }

    #[test]
    fn what_names_no_part_is_refused_with_what_there_is() {
        let error = |text: &str| text.parse::<Part>().unwrap_err().to_string();
        assert_eq!(error("stages"), "`stages`: a gene is held by gene=value,... or family.gene=value,...");
        assert_eq!(error("warp.stages=2"), "`warp.stages=2`: families are tiled, mma, wgmma, decode");
        assert!(
            error("tiled.stages=2").starts_with("`tiled.stages=2`: genes are block_order, blocks_per_sm, exp_poly")
        );
        assert_eq!(error("mma.stages=2,9"), "`mma.stages=2,9`: values are 1,2,3,4");
        assert_eq!(error("stages="), "`stages=`: values are 1,2,3,4");
        assert!("".parse::<Part>().unwrap().is_everything());
    }
}

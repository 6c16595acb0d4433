//! The variants that can be proposed for one problem on one GPU.

use std::collections::HashSet;

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use spec::{DeviceLimits, Family, Kernel, LaunchGeometry, Problem, Variant, legal};

use super::genome::distance;
use crate::device::Failure;

/// All legal variants, or those of a declared part of them.
#[derive(Clone, Debug)]
pub struct Space {
    problem: Problem,
    limits: DeviceLimits,
    /// Sorted, without repetitions.
    members: Vec<Variant>,
}

impl Space {
    /// Every legal variant.
    pub fn whole(problem: Problem, limits: DeviceLimits) -> Self {
        let variants = Family::ALL.into_iter().flat_map(|family| builder::space::variants(&problem, family, &limits));
        Self::listed(problem, limits, variants)
    }

    /// The legal variants that one of these kernels runs.
    pub fn of_kernels(problem: Problem, limits: DeviceLimits, kernels: &[Kernel]) -> Self {
        let mut space = Self::whole(problem, limits);
        let kernels: HashSet<&Kernel> = kernels.iter().collect();
        space.members.retain(|variant| kernels.contains(&variant.kernel(&problem)));
        space
    }

    /// The legal ones among these variants.
    pub fn listed(problem: Problem, limits: DeviceLimits, variants: impl IntoIterator<Item = Variant>) -> Self {
        let mut members: Vec<Variant> =
            variants.into_iter().filter(|variant| legal(&problem, variant, &limits).is_ok()).collect();
        members.sort_unstable();
        members.dedup();
        Self { problem, limits, members }
    }

    /// What is asked of the variants.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The variants, in a fixed order.
    pub fn members(&self) -> &[Variant] {
        &self.members
    }

    /// Whether a variant belongs to it.
    pub fn contains(&self, variant: &Variant) -> bool {
        self.members.binary_search(variant).is_ok()
    }

    /// How a variant is launched, or why it is not.
    pub fn admit(&self, variant: &Variant) -> Result<LaunchGeometry, Failure> {
        let geometry = legal(&self.problem, variant, &self.limits).map_err(|why| Failure::Illegal(why.to_string()))?;
        if self.contains(variant) { Ok(geometry) } else { Err(Failure::Unrecorded) }
    }

    /// The families that have members, in their order.
    pub fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = self.members.iter().map(Variant::family).collect();
        families.dedup();
        families
    }

    /// Any member.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Option<Variant> {
        self.members.choose(rng).copied()
    }

    /// The member most like a variant that is not among `excluded`.
    pub fn nearest(&self, variant: &Variant, excluded: &HashSet<Variant>) -> Option<Variant> {
        self.closest(|member| distance(variant, member), |member| !excluded.contains(member))
    }

    /// The member of a family whose genes are nearest to the middle of their domains.
    pub fn central(&self, family: Family) -> Option<Variant> {
        let middle = family.domains().iter().fold(Variant::smallest(family), |variant, domain| {
            variant.with(domain.gene, domain.values[domain.values.len() / 2]).unwrap_or(variant)
        });
        self.closest(|member| distance(&middle, member), |member| member.family() == family)
    }

    fn closest(&self, distance: impl Fn(&Variant) -> f64, eligible: impl Fn(&Variant) -> bool) -> Option<Variant> {
        self.members
            .iter()
            .filter(|member| eligible(member))
            .map(|member| (distance(member), member))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, member)| *member)
    }

    /// A hash of the problem, the GPU's limits and every member: two runs with the same could propose the same.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{}\n{:?}\n", self.problem, self.limits));
        for member in &self.members {
            hash.update(format!("{member}\n"));
        }
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture;

    #[test]
    fn the_whole_space_is_large_and_legal_and_has_the_families_that_fit() {
        let space = Space::whole(Problem::SEED, DeviceLimits::H100);
        assert!(space.members().len() > 5000, "{}", space.members().len());
        assert_eq!(space.families(), [Family::Tiled, Family::Mma, Family::Wgmma]);
        for family in space.families() {
            let central = space.central(family).unwrap();
            assert_eq!(central.family(), family);
            assert!(space.admit(&central).is_ok());
        }
    }

    #[test]
    fn a_part_admits_its_members_only() {
        let wide = fixture::wide();
        let part = Space::listed(Problem::SEED, DeviceLimits::H100, wide.members().iter().step_by(97).copied());
        assert_eq!(part.admit(&wide.members()[1]), Err(Failure::Unrecorded));
        assert!(part.admit(&part.members()[1]).is_ok());
        assert!(matches!(part.admit(&Variant::smallest(Family::Mma)), Err(Failure::Illegal(_) | Failure::Unrecorded)));
        assert_ne!(part.fingerprint(), wide.fingerprint());
        let tried: HashSet<Variant> = part.members()[..3].iter().copied().collect();
        assert!(!tried.contains(&part.nearest(&part.members()[0], &tried).unwrap()));
    }
}

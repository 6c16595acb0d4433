//! Operators over variants: they know genes and domains, and no gene by name.

use std::collections::HashSet;

use rand::{
    RngExt,
    seq::{IndexedRandom, IteratorRandom},
};
use rand_chacha::ChaCha8Rng;
use spec::{Domain, Theme, Variant};

use super::space::Space;

/// How often a draw that leaves the space is repeated before the nearest member is taken instead.
const DRAWS: usize = 32;
/// How much likelier a gene of the leading theme is to be changed.
const THEME_WEIGHT: u32 = 4;

/// The theme that leads in a generation; none once each had its turn.
pub fn leading_theme(generation: u32) -> Option<Theme> {
    const ORDER: [Theme; 4] = [Theme::L2, Theme::Memory, Theme::Launch, Theme::Instructions];
    ORDER.get(generation.checked_sub(1)? as usize).copied()
}

/// How unlike two variants are: 0 for the same; one step of a gene counts by the length of its domain; variants of two
/// families are further apart than any two of one.
pub fn distance(a: &Variant, b: &Variant) -> f64 {
    if a.family() != b.family() {
        return 1.0 + a.family().domains().len().max(b.family().domains().len()) as f64;
    }
    a.family()
        .domains()
        .iter()
        .map(|domain| {
            let steps = position(domain, a).abs_diff(position(domain, b));
            steps as f64 / (domain.values.len() - 1).max(1) as f64
        })
        .sum()
}

/// Where in its domain a variant's value is.
pub fn position(domain: &Domain, variant: &Variant) -> usize {
    let value = variant.get(domain.gene);
    domain.values.iter().position(|candidate| Some(*candidate) == value).unwrap_or(0)
}

/// Any member that was not tried.
pub fn fresh(space: &Space, tried: &HashSet<Variant>, rng: &mut ChaCha8Rng) -> Option<Variant> {
    (0..DRAWS)
        .filter_map(|_| space.draw(rng))
        .find(|variant| !tried.contains(variant))
        .or_else(|| space.members().iter().filter(|member| !tried.contains(member)).choose(rng).copied())
}

/// A member that differs from `parent` in one gene or few, and was not tried.
pub fn mutant(
    parent: &Variant,
    theme: Option<Theme>,
    space: &Space,
    tried: &HashSet<Variant>,
    rng: &mut ChaCha8Rng,
) -> Option<Variant> {
    settle(space, tried, rng, |rng| {
        let mut child = change(*parent, theme, rng);
        while rng.random_bool(0.4) {
            child = change(child, theme, rng);
        }
        child
    })
}

/// A member with each gene from one of two parents of the same family, then perhaps mutated, and not tried.
pub fn crossing(
    [mother, father]: [&Variant; 2],
    theme: Option<Theme>,
    space: &Space,
    tried: &HashSet<Variant>,
    rng: &mut ChaCha8Rng,
) -> Option<Variant> {
    settle(space, tried, rng, |rng| {
        let child = mother.genes().fold(*mother, |child, (gene, _)| match father.get(gene) {
            Some(value) if rng.random_bool(0.5) => child.with(gene, value).unwrap_or(child),
            _ => child,
        });
        if child == *mother || rng.random_bool(0.3) { change(child, theme, rng) } else { child }
    })
}

/// Another value for one gene.
fn change(variant: Variant, theme: Option<Theme>, rng: &mut ChaCha8Rng) -> Variant {
    let weight = |domain: &&Domain| match domain.values.len() {
        0 | 1 => 0,
        _ if theme == Some(domain.gene.theme()) => THEME_WEIGHT,
        _ => 1,
    };
    let domains: Vec<&Domain> = variant.family().domains().iter().collect();
    let Ok(domain) = domains.choose_weighted(rng, weight) else { return variant };
    let others = domain.values.iter().filter(|value| variant.get(domain.gene) != Some(**value));
    others.choose(rng).and_then(|value| variant.with(domain.gene, *value)).unwrap_or(variant)
}

/// Draws until a draw is an untried member; a part of the space may hold so few that the nearest must do.
fn settle(
    space: &Space,
    tried: &HashSet<Variant>,
    rng: &mut ChaCha8Rng,
    mut draw: impl FnMut(&mut ChaCha8Rng) -> Variant,
) -> Option<Variant> {
    let mut last = None;
    for _ in 0..DRAWS {
        let child = draw(rng);
        if space.contains(&child) && !tried.contains(&child) {
            return Some(child);
        }
        last = Some(child);
    }
    space.nearest(&last?, tried)
}

/// `count` members far from one another, the first from `start`: each next is the one furthest from all before it among
/// a sample of the space, the families in turn.
pub fn spread(space: &Space, start: &[Variant], count: usize, rng: &mut ChaCha8Rng) -> Vec<Variant> {
    const SAMPLE: usize = 256;
    let mut chosen: Vec<Variant> = start.to_vec();
    let sample: Vec<Variant> = (0..SAMPLE).filter_map(|_| space.draw(rng)).collect();
    let mut picked = Vec::new();
    for family in space.families().into_iter().cycle().take(count) {
        let nearest = |candidate: &Variant| chosen.iter().map(|c| distance(c, candidate)).fold(f64::INFINITY, f64::min);
        let candidates = sample.iter().filter(|candidate| !chosen.contains(candidate));
        let furthest = candidates
            .map(|candidate| (candidate.family() == family, nearest(candidate), *candidate))
            .max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let Some((_, _, candidate)) = furthest else { break };
        chosen.push(candidate);
        picked.push(candidate);
    }
    picked
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use spec::{DeviceLimits, Family, Problem};

    use super::*;
    use crate::record::fixture;

    fn sparse() -> Space {
        let wide = fixture::wide();
        Space::listed(Problem::SEED, DeviceLimits::H100, wide.members().iter().step_by(41).copied())
    }

    #[test]
    fn operators_yield_untried_members_even_where_few_exist() {
        let space = sparse();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut tried = HashSet::new();
        let (mother, father) = (space.central(Family::Mma).unwrap(), space.members()[0]);
        for i in 0..60 {
            let child = match i % 3 {
                0 => fresh(&space, &tried, &mut rng),
                1 => mutant(&mother, leading_theme(1), &space, &tried, &mut rng),
                _ => crossing([&mother, &father], None, &space, &tried, &mut rng),
            }
            .unwrap();
            assert!(space.contains(&child));
            assert!(tried.insert(child), "{child} was proposed twice");
        }
    }

    #[test]
    fn an_exhausted_space_yields_nothing() {
        let space = sparse();
        let tried: HashSet<Variant> = space.members().iter().copied().collect();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        assert_eq!(fresh(&space, &tried, &mut rng), None);
        assert_eq!(mutant(&space.members()[0], None, &space, &tried, &mut rng), None);
    }

    #[test]
    fn a_theme_leads_but_forbids_nothing() {
        let space = fixture::wide();
        let parent = space.central(Family::Mma).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (mut led, mut other) = (0, 0);
        for _ in 0..400 {
            let child = change(parent, Some(Theme::L2), &mut rng);
            let changed = child.genes().find(|(gene, value)| parent.get(*gene) != Some(*value)).unwrap().0;
            *(if changed.theme() == Theme::L2 { &mut led } else { &mut other }) += 1;
        }
        // Two of twelve genes: 67 of 400 without the theme, 178 with it.
        assert!(led > 120 && other > 100, "{led} {other}");
    }

    #[test]
    fn a_spread_takes_the_families_in_turn() {
        let space = fixture::wide();
        let picked = spread(space, &[], 5, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(picked.len(), 5);
        assert!(space.families().iter().all(|family| picked.iter().any(|v| v.family() == *family)));
    }
}

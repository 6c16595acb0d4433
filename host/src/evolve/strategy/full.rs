//! Task, earlier solutions and insights: the elites' offspring and a few newcomers, of which those are taken that the
//! insights speak for.

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{Context, Strategy, distinct, informed, promising};
use crate::evolve::{
    genome,
    trial::{Operator, Proposal},
};

/// Offspring and newcomers to choose from.
const POOL: usize = 512;
/// Share of them that has no parents.
const NEWCOMERS: f64 = 0.5;

pub(super) struct Full;

impl Strategy for Full {
    fn propose(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        let pool = distinct(context.tried, POOL.max(count), |tried| offspring(context, tried, rng));
        promising(pool, context, count)
    }

    fn open(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        informed(context, count, rng)
    }
}

fn offspring(
    context: &Context<'_>,
    tried: &std::collections::HashSet<spec::Variant>,
    rng: &mut ChaCha8Rng,
) -> Option<Proposal> {
    let space = context.space;
    if rng.random_bool(NEWCOMERS) {
        let variant = genome::fresh(space, tried, rng)?;
        return Some(Proposal { variant, operator: Operator::Draw, parents: vec![] });
    }
    let theme = genome::leading_theme(context.generation);
    let (mother, a) = context.elites.choose(rng)?;
    let fathers: Vec<_> =
        context.elites.iter().filter(|(number, b)| number != mother && b.family() == a.family()).collect();
    match fathers.choose(rng) {
        Some((father, b)) if rng.random_bool(0.5) => {
            let variant = genome::crossing([a, b], theme, space, tried, rng)?;
            Some(Proposal { variant, operator: Operator::Crossover, parents: vec![*mother, *father] })
        }
        _ => {
            let variant = genome::mutant(a, theme, space, tried, rng)?;
            Some(Proposal { variant, operator: Operator::Mutation, parents: vec![*mother] })
        }
    }
}

//! The task alone: the best solution so far is changed, led by the generation's theme.

use rand_chacha::ChaCha8Rng;

use super::{Context, Strategy, distinct};
use crate::evolve::{
    genome,
    trial::{Operator, Proposal},
};

pub(super) struct Free;

impl Strategy for Free {
    fn propose(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        let Some((number, best)) = context.elites.first() else { return vec![] };
        let theme = genome::leading_theme(context.generation);
        distinct(context.tried, count, |tried| {
            let variant = genome::mutant(best, theme, context.space, tried, rng)?;
            Some(Proposal { variant, operator: Operator::Mutation, parents: vec![*number] })
        })
    }
}

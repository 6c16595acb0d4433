//! Draws from the space, from the first generation on.

use rand_chacha::ChaCha8Rng;

use super::{Context, Strategy, distinct};
use crate::evolve::{
    genome,
    trial::{Operator, Proposal},
};

pub(super) struct Random;

impl Strategy for Random {
    fn propose(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        distinct(context.tried, count, |tried| {
            let variant = genome::fresh(context.space, tried, rng)?;
            Some(Proposal { variant, operator: Operator::Draw, parents: vec![] })
        })
    }

    fn open(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        self.propose(context, count, rng)
    }
}

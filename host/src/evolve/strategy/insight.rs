//! Task and insights: draws from the space, of which those are taken that the insights speak for.

use rand_chacha::ChaCha8Rng;

use super::{Context, Strategy, distinct, promising};
use crate::evolve::{
    genome,
    trial::{Operator, Proposal},
};

/// Draws to choose from.
const POOL: usize = 256;

pub(super) struct Insight;

impl Strategy for Insight {
    fn propose(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        let pool = distinct(context.tried, POOL.max(count), |tried| {
            let variant = genome::fresh(context.space, tried, rng)?;
            Some(Proposal { variant, operator: Operator::Draw, parents: vec![] })
        });
        promising(pool, context, count, rng)
    }
}

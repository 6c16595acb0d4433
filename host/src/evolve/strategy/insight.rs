//! Task and insights: draws from the space, of which those are taken that the insights speak for.

use rand_chacha::ChaCha8Rng;

use super::{Context, Strategy, draws, informed};
use crate::evolve::trial::Proposal;

pub(super) struct Insight;

impl Strategy for Insight {
    fn propose(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        draws(context, count, rng)
    }

    fn open(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        informed(context, count, rng)
    }
}

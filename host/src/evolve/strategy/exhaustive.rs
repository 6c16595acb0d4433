//! One variant after another.

use rand_chacha::ChaCha8Rng;

use super::{Context, Strategy};
use crate::evolve::trial::{Operator, Proposal};

pub(super) struct Exhaustive;

impl Strategy for Exhaustive {
    fn propose(&self, context: &Context<'_>, count: usize, _: &mut ChaCha8Rng) -> Vec<Proposal> {
        let untried = context.space.members().iter().filter(|member| !context.tried.contains(member));
        let next = |variant: &_| Proposal { variant: *variant, operator: Operator::Next, parents: vec![] };
        untried.take(count).map(next).collect()
    }

    fn open(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        self.propose(context, count, rng)
    }
}

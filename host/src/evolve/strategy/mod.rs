//! How the next candidates are chosen: which of task, earlier solutions and insights a strategy uses.

use std::{collections::HashSet, time::Instant};

pub(super) use external::External;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use spec::Variant;

use super::{
    genome,
    insight::Insights,
    proposer::Reply,
    space::Space,
    surrogate::Normal,
    trial::{Operator, Proposal, Refusal, Trial},
};
use crate::device::Description;

mod exhaustive;
mod external;
mod free;
mod full;
mod insight;
mod random;

/// What a strategy may look at.
pub struct Context<'a> {
    /// The space.
    pub space: &'a Space,
    /// Every variant proposed so far.
    pub tried: &'a HashSet<Variant>,
    /// Number and variant of the elites, the fastest first; never empty.
    pub elites: &'a [(usize, Variant)],
    /// What was learnt.
    pub insights: &'a Insights,
    /// The generation, from 0.
    pub generation: u32,
    /// Every trial so far.
    pub trials: &'a [Trial],
    /// Every refusal so far.
    pub refusals: &'a [Refusal],
    /// Where trials run.
    pub device: &'a Description,
}

/// Proposes candidates.
pub trait Strategy {
    /// Up to `count` members of the space that were not tried; fewer only if there are no more.
    fn propose(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal>;

    /// The first generation, besides the first incumbent: by default a spread over the space.
    fn open(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        spread(context, count, rng)
    }

    /// Somebody outside this program who is asked first, if there is one. Its answers are written into the journal, since
    /// nothing else would give them again.
    fn outside(&mut self) -> Option<&mut dyn Outside> {
        None
    }
}

/// Names candidates from outside this program.
pub trait Outside {
    /// Asks for `count` candidates. Whatever happens there is an answer, within the time that was agreed; `None` if the
    /// deadline comes first.
    fn ask(&mut self, context: &Context<'_>, count: usize, deadline: Option<Instant>) -> Option<Reply>;
}

/// The strategies there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Draws from the space: what the others are measured against.
    Random,
    /// Changes the best so far, led by the themes.
    Free,
    /// Draws, ranked by what was learnt.
    Insight,
    /// Crosses and changes the elites, ranked by what was learnt.
    Full,
    /// One after another, all of them.
    Exhaustive,
}

impl Kind {
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Free => "free",
            Self::Insight => "insight",
            Self::Full => "full",
            Self::Exhaustive => "exhaustive",
        }
    }

    /// Whether it goes by insights.
    pub const fn learns(self) -> bool {
        matches!(self, Self::Insight | Self::Full)
    }

    /// The strategy.
    pub fn strategy(self) -> Box<dyn Strategy> {
        match self {
            Self::Random => Box::new(random::Random),
            Self::Free => Box::new(free::Free),
            Self::Insight => Box::new(insight::Insight),
            Self::Full => Box::new(full::Full),
            Self::Exhaustive => Box::new(exhaustive::Exhaustive),
        }
    }
}

/// Members far from the first incumbent and from each other.
fn spread(context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
    let incumbents: Vec<Variant> = context.tried.iter().copied().collect();
    let spread = genome::spread(context.space, &incumbents, count, rng);
    spread.into_iter().map(|variant| Proposal { variant, operator: Operator::Spread, parents: vec![] }).collect()
}

/// The first generation of whoever goes by insights: those of earlier measurements, where there are any.
fn informed(context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
    if context.insights.know_of_earlier() { draws(context, count, rng) } else { spread(context, count, rng) }
}

/// Draws to choose from.
const DRAWS: usize = 512;

/// Draws from the space, of which those are taken that the insights speak for.
fn draws(context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
    let pool = distinct(context.tried, DRAWS.max(count), |tried| {
        let variant = genome::fresh(context.space, tried, rng)?;
        Some(Proposal { variant, operator: Operator::Draw, parents: vec![] })
    });
    promising(pool, context, count)
}

/// Calls `make` until it gave `count` different proposals or none; each call sees what was taken before.
fn distinct(
    tried: &HashSet<Variant>,
    count: usize,
    mut make: impl FnMut(&HashSet<Variant>) -> Option<Proposal>,
) -> Vec<Proposal> {
    let (mut tried, mut proposals) = (tried.clone(), Vec::with_capacity(count));
    while proposals.len() < count {
        let Some(proposal) = make(&tried) else { break };
        tried.insert(proposal.variant);
        proposals.push(proposal);
    }
    proposals
}

/// Log time by which a variant must undercut the fastest for that to count. Without it, near copies of the fastest, which
/// are sure to be hardly faster or hardly slower, would be taken for promising.
const WORTHWHILE: f64 = 0.02;

/// How much less sure of the unknown a search is than its model. A model of a few dozen variants takes the rest for more like them than
/// they are: where those of a family happen to be slow, it would leave all of that family alone.
const DOUBT: f64 = 1.75;

/// The `count` proposals of a pool that promise most: by how much more than a little they are expected to undercut the fastest.
/// Each is taken for measured before the next is chosen.
fn promising(pool: Vec<Proposal>, context: &Context<'_>, count: usize) -> Vec<Proposal> {
    let (mut advised, mut rest): (Vec<_>, Vec<_>) =
        pool.into_iter().partition(|proposal| !context.insights.advises_against(&proposal.variant));
    let mut surrogate = context.insights.surrogate().clone();
    let target = context.insights.fastest() - WORTHWHILE;
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let pool = if advised.is_empty() { &mut rest } else { &mut advised };
        let expect = |proposal: &Proposal| {
            let Normal { mean, deviation } = surrogate.predict(&proposal.variant);
            Normal { mean, deviation: DOUBT * deviation }
        };
        let expected: Vec<Normal> = pool.iter().map(expect).collect();
        let promise = |i: usize| (expected[i].expected_below(target), -expected[i].mean);
        let more = |&a: &usize, &b: &usize| {
            let (a, b) = (promise(a), promise(b));
            a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
        };
        let Some(best) = (0..pool.len()).max_by(more) else { break };
        let proposal = pool.swap_remove(best);
        surrogate.believe(proposal.variant);
        chosen.push(proposal);
    }
    chosen
}

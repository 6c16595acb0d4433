//! What a program outside is asked and what it may answer: one line of JSON each, described in `docs/proposer.md`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spec::{Family, Variant};

use super::{
    budget::Reason,
    candidate::{Candidate, Edit},
    insight::Effect,
    strategy::Context,
    trial::{Operator, Proposal},
};
use crate::{child, device::Description, measure::statistics::Interval};

/// Version of the protocol.
pub const SCHEMA: u32 = 1;

/// Refusals that a request tells of: the last ones.
const REFUSALS: usize = 20;

/// What a program is asked. One line.
#[derive(Debug, Serialize)]
pub struct Request<'a> {
    schema: u32,
    /// How many candidates are wanted.
    count: usize,
    generation: u32,
    task: Task<'a>,
    elites: Vec<Elite>,
    refusals: Vec<Refused<'a>>,
    insights: Insights<'a>,
    space: Space,
}

#[derive(Debug, Serialize)]
struct Task<'a> {
    problem: String,
    goal: &'static str,
    device: &'a Description,
}

#[derive(Debug, Serialize)]
struct Elite {
    number: usize,
    variant: Candidate,
    us: f64,
    /// Of its time to that of the elite it was first timed against.
    ratio: Interval,
    registers: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Refused<'a> {
    variant: Option<Candidate>,
    reason: Reason,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct Insights<'a> {
    effects: Vec<Effect>,
    rules: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct Space {
    members: usize,
    families: Vec<FamilySpace>,
}

#[derive(Debug, Serialize)]
struct FamilySpace {
    family: Family,
    members: usize,
    genes: Vec<GeneSpace>,
    /// Where the kernel is, for whoever wants to rewrite it.
    source: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct GeneSpace {
    gene: &'static str,
    values: &'static [u16],
}

impl<'a> Request<'a> {
    pub(super) fn new(context: &Context<'a>, count: usize) -> Self {
        let project = builder::Project::find().ok().filter(builder::Project::has_sources);
        let elite = |(number, _): &(usize, Variant)| {
            let trial = context.trials.iter().find(|trial| trial.number == *number)?;
            let registers = trial.facts.as_ref().map(|facts| facts.registers);
            Some(Elite { number: *number, variant: trial.candidate(), us: trial.us, ratio: trial.ratio, registers })
        };
        let refusals = &context.refusals[context.refusals.len().saturating_sub(REFUSALS)..];
        let own: Vec<_> = context.trials.iter().filter(|trial| trial.candidate().edit.is_none()).cloned().collect();
        let members = context.space.members();
        let family = |family: Family| FamilySpace {
            family,
            members: members.iter().filter(|variant| variant.family() == family).count(),
            genes: family
                .domains()
                .iter()
                .map(|domain| GeneSpace { gene: domain.gene.name(), values: domain.values })
                .collect(),
            source: project.as_ref().map(|project| project.family_source(family)),
        };
        Self {
            schema: SCHEMA,
            count,
            generation: context.generation,
            task: Task {
                problem: context.space.problem().to_string(),
                goal: "the shortest time of a kernel whose outputs are within the error budget",
                device: context.device,
            },
            elites: context.elites.iter().filter_map(elite).collect(),
            refusals: refusals
                .iter()
                .map(|refusal| Refused { variant: refusal.variant, reason: refusal.reason, why: &refusal.why })
                .collect(),
            insights: Insights {
                effects: context.insights.effects(&own),
                rules: context.insights.rules.iter().map(|rule| rule.text.as_str()).collect(),
            },
            space: Space { members: members.len(), families: Family::ALL.into_iter().map(family).collect() },
        }
    }
}

/// What a program answers. One line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    candidates: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// Family and genes.
    variant: String,
    /// The whole text of the family's source file, if it was rewritten.
    source: Option<String>,
    /// Numbers of the trials it was made from.
    #[serde(default)]
    parents: Vec<usize>,
}

/// What came of asking: this goes into the journal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Candidates; whether they are legal, new, or compile is not known yet.
    pub proposals: Vec<Proposal>,
    /// The text of the rewritten sources among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<Edit, String>,
    /// What was no candidate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declined: Vec<Declined>,
}

/// What was no candidate, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// For counting.
    pub reason: Reason,
    /// In words; one line.
    pub why: String,
}

impl Declined {
    pub(super) fn proposer(why: String) -> Self {
        Self { reason: Reason::Proposer, why: format!("the proposer {why}") }
    }
}

impl Reply {
    /// A reply that says only what went wrong.
    pub(super) fn failed(why: String) -> Self {
        Self { declined: vec![Declined::proposer(why)], ..Self::default() }
    }

    /// Reads a line of a program that was asked for `count` candidates; `Err` if the line is no answer. What is no candidate
    /// is declined one by one.
    pub(super) fn read(line: &str, context: &Context<'_>, count: usize) -> Result<Self, String> {
        let answer: Answer = serde_json::from_str(line).map_err(|error| child::garbage(line, &error))?;
        let mut reply = Self::default();
        let more = answer.candidates.len().saturating_sub(count);
        for value in answer.candidates.into_iter().take(count) {
            match candidate(value, context) {
                Ok((proposal, None)) => reply.proposals.push(proposal),
                Ok((Proposal { variant, parents, .. }, Some(text))) => {
                    let edit = Edit::of(variant.family(), &text);
                    reply.sources.insert(edit, text);
                    reply.proposals.push(Proposal { variant, operator: Operator::Edited(edit), parents });
                }
                Err(declined) => reply.declined.push(declined),
            }
        }
        if more > 0 {
            reply.declined.push(Declined::proposer(format!("named {more} candidates more than the {count} asked for")));
        }
        Ok(reply)
    }
}

fn candidate(value: Value, context: &Context<'_>) -> Result<(Proposal, Option<String>), Declined> {
    let Named { variant, source, parents } =
        serde_json::from_value(value).map_err(|error| Declined::proposer(format!("named no candidate: {error}")))?;
    let known = |number: &usize| context.trials.iter().any(|trial| trial.number == *number);
    if let Some(stranger) = parents.iter().find(|number| !known(number)) {
        return Err(Declined::proposer(format!("named trial {stranger} as a parent, but there is none")));
    }
    let variant = variant.parse().map_err(|error| Declined {
        reason: Reason::Illegal,
        why: format!("the proposer's `{}` is no variant: {error}", variant.chars().take(200).collect::<String>()),
    })?;
    Ok((Proposal { variant, operator: Operator::External, parents }, source))
}

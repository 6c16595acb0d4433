//! What is known of a candidate: where it came from and what became of it.

use serde::{Deserialize, Serialize};
use spec::{LaunchGeometry, Variant};

use super::{
    budget::Reason,
    candidate::{Candidate, Edit},
    source::Facts,
};
use crate::{
    device::{Correctness, Failure},
    measure::statistics::Interval,
};

/// How a candidate was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// The middle of a family's domains.
    Central,
    /// Far from the others.
    Spread,
    /// Drawn from the whole space.
    Draw,
    /// The next in order.
    Next,
    /// One parent, changed.
    Mutation,
    /// Two parents, mixed.
    Crossover,
    /// Named by a program outside.
    External,
    /// Named by a program outside, of a source that it rewrote.
    Edited(Edit),
}

impl Operator {
    fn edit(self) -> Option<Edit> {
        match self {
            Self::Edited(edit) => Some(edit),
            _ => None,
        }
    }
}

/// A candidate before anything is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The candidate.
    pub variant: Variant,
    /// How it was made.
    pub operator: Operator,
    /// Numbers of the trials it was made from.
    pub parents: Vec<usize>,
}

impl Proposal {
    /// What is tried.
    pub fn candidate(&self) -> Candidate {
        Candidate { variant: self.variant, edit: self.operator.edit() }
    }
}

/// What is measured: machine-independent code and the way it is launched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Hash of the code.
    pub sha256: String,
    /// How it is launched.
    pub geometry: LaunchGeometry,
}

/// A distinct, valid, measured candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Its number, from 0.
    pub number: usize,
    /// Generation it was proposed in.
    pub generation: u32,
    /// The variant.
    pub variant: Variant,
    /// How it was made.
    pub operator: Operator,
    /// Trials it was made from.
    pub parents: Vec<usize>,
    /// What was measured.
    pub identity: Identity,
    /// What the assembler said.
    pub facts: Option<Facts>,
    /// How it did on the short gate, or on the whole suite if `suite`.
    pub correctness: Correctness,
    /// Whether it passed the whole suite.
    pub suite: bool,
    /// Ratio to the incumbent it was interleaved with, at level 0.95; 1 for the first.
    pub ratio: Interval,
    /// Estimated hot time in microseconds, for selection only.
    pub us: f64,
    /// UUID of the GPU it was timed on, where several took part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
}

impl Trial {
    /// What was tried.
    pub fn candidate(&self) -> Candidate {
        Candidate { variant: self.variant, edit: self.operator.edit() }
    }
}

/// A candidate that cost no trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Generation it was proposed in.
    pub generation: u32,
    /// The candidate; `None` for what was none, such as nonsense from a proposer.
    pub variant: Option<Candidate>,
    /// Why, for counting.
    pub reason: Reason,
    /// Why, in words.
    pub why: String,
}

impl Refusal {
    pub(super) fn new(generation: u32, candidate: Candidate, failure: &Failure) -> Self {
        Self { generation, variant: Some(candidate), reason: Reason::of(failure), why: failure.to_string() }
    }
}

/// What became of a candidate, as the journal has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was measured.
    Trial {
        /// Its number.
        number: usize,
        /// The candidate.
        variant: Candidate,
        /// Estimated microseconds.
        us: f64,
    },
    /// It cost no trial.
    Refused(Refusal),
    /// It won.
    Winner {
        /// Its number.
        number: usize,
        /// The candidate.
        variant: Candidate,
    },
}

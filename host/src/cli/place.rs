//! A device, where its code comes from, and the space they open: everything a run needs besides its settings.

mod replay;

use std::path::Path;

use anyhow::Result;
use spec::Problem;

use super::choice::Choice;
use crate::{
    cases,
    evolve::{
        settings::{Cases, Lab},
        source::Source,
        space::Space,
    },
};

/// Everything a run needs besides its settings.
pub(super) struct Place {
    /// What the user should know first: where times come from.
    pub(super) introduction: String,
    /// What may be proposed.
    pub(super) space: Space,
    /// Where compiled variants come from.
    pub(super) source: Box<dyn Source>,
    /// Where trials run.
    pub(super) lab: Box<dyn Lab>,
    /// What is checked.
    pub(super) cases: Cases,
}

impl Place {
    /// The place that is asked for.
    pub(super) fn open(choice: &Choice, problem: &Problem, store: Option<&Path>) -> Result<Self> {
        match choice {
            Choice::Replay(file) => replay::open(file.as_deref(), problem),
            _ => anyhow::bail!("x {store:?}"),
        }
    }
}

/// Every case there is for a GPU, or the smaller ones for the CPU machine.
fn cases_of(problem: &Problem, extent: cases::Extent) -> Cases {
    Cases { gate: cases::gate(problem), suite: cases::suite(problem, extent) }
}

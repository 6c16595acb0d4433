//! The evolution loop: proposes variants, has them built, checked and timed, and states what can be claimed.

pub mod ablation;
mod bench;
pub mod budget;
pub mod candidate;
pub mod claims;
pub mod crew;
pub mod earlier;
pub mod engine;
#[cfg(test)]
mod error_rates;
mod factor;
pub mod genome;
pub mod insight;
pub mod journal;
pub mod library;
mod likeness;
pub mod outcome;
pub mod population;
pub mod proposer;
mod sanity;
pub mod settings;
pub mod source;
pub mod space;
pub mod strategy;
pub mod surrogate;
pub mod sweep;
#[cfg(test)]
mod tests;
pub mod trial;

use crate::device::Failure;

/// Why a run ended without an outcome. A refused candidate is none.
#[derive(Debug, thiserror::Error)]
pub enum EvolveError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
    /// The device failed, and failed again in a fresh process.
    #[error("{0}")]
    Device(Failure),
    /// No variant could be the first incumbent.
    #[error("no variant works: {0}")]
    NoIncumbent(String),
    /// The time was up before anything was measured.
    #[error("the time was up before a variant was measured")]
    TimeUp,
    /// The first incumbent does not work any more.
    #[error("the first incumbent failed its confirmation: {0}")]
    Unconfirmed(Failure),
    /// A part of the program broke its contract.
    #[error("defect in this program: {0}")]
    Contract(&'static str),
}

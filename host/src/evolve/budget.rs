//! What a run may spend, and what became of every candidate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::device::Failure;

/// Candidates per trial before a run gives up.
const ATTEMPTS_PER_TRIAL: u32 = 10;

/// Why a candidate cost no trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The same variant was tried before.
    Duplicate,
    /// The same machine code and launch was measured before; the measurement is shared.
    Shared,
    /// It does not fit the problem or the GPU.
    Illegal,
    /// It did not compile.
    Build,
    /// The compiler gate refused it.
    Gate,
    /// Its output is wrong.
    Wrong,
    /// It could not be launched.
    Launch,
    /// It broke its process.
    Fault,
    /// It did not end.
    Hang,
    /// It reported a time that cannot be.
    Impossible,
    /// The record does not hold it.
    Unrecorded,
    /// The device failed.
    Device,
    /// A program outside was asked for candidates and gave none.
    Proposer,
}

impl Reason {
    /// The reason behind a failure.
    pub fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Illegal(_) => Self::Illegal,
            Failure::Build(_) => Self::Build,
            Failure::Gate(_) => Self::Gate,
            Failure::Wrong { .. } => Self::Wrong,
            Failure::Launch(_) => Self::Launch,
            Failure::Fault(_) => Self::Fault,
            Failure::Hang { .. } => Self::Hang,
            Failure::Impossible { .. } => Self::Impossible,
            Failure::Unrecorded => Self::Unrecorded,
            Failure::Device(_) => Self::Device,
        }
    }

    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "proposed before",
            Self::Shared => "same code as an earlier trial",
            Self::Illegal => "illegal",
            Self::Build => "not built",
            Self::Gate => "refused by the compiler gate",
            Self::Wrong => "wrong output",
            Self::Launch => "not launched",
            Self::Fault => "faulted",
            Self::Hang => "hung",
            Self::Impossible => "impossible time",
            Self::Unrecorded => "not in the record",
            Self::Device => "device failed",
            Self::Proposer => "no candidate from the proposer",
        }
    }
}

/// Counts trials (distinct, valid, measured) and everything else apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Trials allowed.
    pub trials: u32,
    /// Trials spent.
    pub spent: u32,
    /// Candidates that cost no trial, by reason.
    pub free: BTreeMap<Reason, u32>,
}

impl Budget {
    /// A budget of this many trials.
    pub fn new(trials: u32) -> Self {
        Self { trials, spent: 0, free: BTreeMap::new() }
    }

    /// Trials left; none once ten times as many candidates as trials were proposed.
    pub fn left(&self) -> u32 {
        let attempts = self.spent + self.free.values().sum::<u32>();
        if attempts >= self.trials.saturating_mul(ATTEMPTS_PER_TRIAL) { 0 } else { self.trials - self.spent }
    }

    /// A candidate was valid and measured.
    pub fn spend(&mut self) {
        self.spent += 1;
    }

    /// A candidate cost nothing.
    pub fn refuse(&mut self, reason: Reason) {
        *self.free.entry(reason).or_default() += 1;
    }

    /// A trial proved invalid later: it no longer counts.
    pub fn give_back(&mut self, reason: Reason) {
        self.spent = self.spent.saturating_sub(1);
        self.refuse(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_trials_are_spent_and_candidates_are_capped() {
        let mut budget = Budget::new(4);
        for _ in 0..20 {
            budget.refuse(Reason::Duplicate);
        }
        budget.spend();
        assert_eq!((budget.left(), budget.spent), (3, 1));
        budget.give_back(Reason::Wrong);
        assert_eq!((budget.left(), budget.free[&Reason::Wrong]), (4, 1));
        for _ in 0..19 {
            budget.refuse(Reason::Illegal);
        }
        assert_eq!(budget.left(), 0);
    }
}

//! How a run is started, and where its parts come from.

use serde::{Deserialize, Serialize};
use spec::Problem;

use super::{
    crew::Hand,
    strategy::{self, Strategy},
};
use crate::{
    cases::Case,
    device::{Device, Failure},
};

/// What decides a run's course, besides the measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How candidates are chosen.
    pub strategy: strategy::Kind,
    /// A program that is asked for candidates first; what it does not name is chosen by the strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposer: Option<Proposer>,
    /// Seed of everything drawn.
    pub seed: u64,
    /// Distinct, valid, measured trials.
    pub trials: u32,
    /// Elites kept, and candidates of one generation.
    pub population: u32,
    /// Rounds in which a candidate is timed against the incumbent.
    pub rounds: u32,
    /// Sittings, each in a fresh process, of the A/A test and behind a claim; half as many choose the winner.
    pub sittings: u32,
    /// Rounds of each sitting.
    pub sitting_rounds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: strategy::Kind::Full,
            proposer: None,
            seed: 0,
            trials: 45,
            population: 5,
            rounds: 20,
            sittings: 10,
            sitting_rounds: 8,
        }
    }
}

impl Settings {
    /// What chooses the candidates.
    pub fn strategy(&self) -> Box<dyn Strategy> {
        let own = self.strategy.strategy();
        match &self.proposer {
            Some(proposer) => Box::new(strategy::External::new(proposer.clone(), own)),
            None => own,
        }
    }
}

/// A program outside that names candidates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposer {
    /// The command, for the shell.
    pub command: String,
    /// Seconds it may take to answer.
    pub seconds: u64,
}

/// What variants are checked on.
#[derive(Clone, Debug, PartialEq)]
pub struct Cases {
    /// Few and quick: before a variant is timed.
    pub gate: Vec<Case>,
    /// All: before a variant is an elite.
    pub suite: Vec<Case>,
}

/// What a library other than ours takes for the problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Library and backend.
    pub name: String,
    /// Hot times in microseconds.
    pub hot_us: Vec<f64>,
    /// Times with a flushed L2 in microseconds; may be empty.
    pub cold_us: Vec<f64>,
    /// Date and GPU of the record it is from; `None` if it was measured in this run, on this run's GPU.
    pub recorded: Option<String>,
}

/// All that others take, and why some of them are missing. One line each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// Those that ran.
    pub peers: Vec<Peer>,
    /// Why others did not, or what they ran on.
    pub notes: Vec<String>,
}

impl Peers {
    /// Takes in what was measured later: samples of the same peer are pooled.
    pub fn join(&mut self, later: Self) {
        for peer in later.peers {
            match self.peers.iter_mut().find(|known| known.name == peer.name && known.recorded == peer.recorded) {
                Some(known) if known.recorded.is_none() => {
                    known.hot_us.extend(peer.hot_us);
                    known.cold_us.extend(peer.cold_us);
                }
                Some(_) => {}
                None => self.peers.push(peer),
            }
        }
        for note in later.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }
}

/// Gives the devices of a run and what its winner is compared with.
pub trait Lab {
    /// A device in a process of its own.
    fn open(&mut self) -> Result<Box<dyn Device>, Failure>;

    /// Further devices like that of [`Lab::open`], each in a process of its own, which trials may run on at the same time.
    fn others(&mut self) -> Result<Vec<Hand>, Failure> {
        Ok(vec![])
    }

    /// What others take for the problem, now or as recorded.
    fn peers(&mut self, problem: &Problem) -> Peers;

    /// A CPU machine in a process of its own, where rewritten kernels run first.
    fn cpu_machine(&mut self) -> Result<Box<dyn Device>, Failure> {
        Err(Failure::Device("there is no CPU machine here".into()))
    }
}

//! The journal: every question put to the outside world, with its answer, in order.
//!
//! A run is a function of its settings and of these answers. A resumed run therefore starts from the beginning and is
//! answered by the journal until it ends; only then does it ask anew. That it asks the same questions is checked.

use std::path::Path;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use spec::Problem;

use super::{candidate::Candidate, earlier::Lesson, settings::Settings, trial::Verdict};
use crate::{
    device::{Description, TimingPlan},
    record::log::{Log, LogError},
};

/// Version of the journal's format.
pub const SCHEMA: u32 = 2;

/// What a journal belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What is asked of the variants.
    pub problem: Problem,
    /// Fingerprint of the space.
    pub space: String,
    /// Fingerprint of the correctness cases.
    pub cases: String,
    /// What made the code.
    pub toolchain: String,
    /// Where trials run.
    pub device: Description,
    /// Where trials run at the same time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Description>,
    /// What the run knew from before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learnt_from: Vec<Lesson>,
    /// How the run was started.
    pub settings: Settings,
}

/// What the engine asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Compile these.
    Compile(Vec<Candidate>),
    /// Run one on the short gate or the whole suite.
    Check {
        /// The candidate.
        variant: Candidate,
        /// Whether on the whole suite.
        whole: bool,
    },
    /// Time these in turns.
    Time {
        /// The candidates.
        variants: Vec<Candidate>,
        /// How.
        plan: TimingPlan,
    },
    /// Check one and time it in turns with the incumbent, on whichever device is free.
    Try {
        /// The candidate.
        variant: Candidate,
        /// What it is compared with.
        incumbent: Candidate,
        /// How.
        plan: TimingPlan,
    },
    /// Time what others offer.
    Peers,
    /// Ask a program outside for candidates.
    Propose {
        /// The generation.
        generation: u32,
        /// How many.
        count: usize,
    },
    /// Run one whose source was rewritten on the CPU machine.
    Rehearse(Candidate),
    /// Not asked but stated: the time was up here.
    TimeUp,
    /// Not asked but stated: what became of a candidate.
    Verdict(Verdict),
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A new run must not continue an old journal by accident.
    #[error("{0}: a journal is there already; resume it with --resume or name another file")]
    Exists(String),
    /// There is nothing to resume.
    #[error("{0}: there is no journal to resume")]
    Absent(String),
    /// It was written in another format.
    #[error("{path}: journal of schema {found}; this program reads schema {SCHEMA}")]
    Schema {
        /// The journal.
        path: String,
        /// Its schema.
        found: String,
    },
    /// It belongs to another run.
    #[error("{path}: the journal's {what} is {then}, this run's is {now}; it cannot be resumed")]
    Changed {
        /// The journal.
        path: String,
        /// What differs.
        what: &'static str,
        /// As the journal has it.
        then: String,
        /// As it is now.
        now: String,
    },
    /// An entry is not what this program would have written.
    #[error("{path}: entry {entry} does not answer this program's question; was it written by another version?")]
    Diverged {
        /// The journal.
        path: String,
        /// Number of the entry, the header being 0.
        entry: usize,
    },
    /// An answer is not representable in JSON.
    #[error("an answer cannot be written as JSON: {0}")]
    Unwritable(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Step<Q, A> {
    ask: Q,
    answer: A,
}

/// A journal in use.
#[derive(Debug)]
pub struct Journal {
    log: Option<Log>,
    path: String,
    known: std::vec::IntoIter<String>,
    entry: usize,
}

impl Journal {
    /// A journal that is not kept.
    pub fn unkept() -> Self {
        Self { log: None, path: String::new(), known: Vec::new().into_iter(), entry: 0 }
    }

    /// Starts a journal, or resumes one that belongs to the same run.
    pub fn open(path: &Path, header: &Header, resume: bool) -> Result<Self, JournalError> {
        let name = path.display().to_string();
        if resume && !path.exists() {
            return Err(JournalError::Absent(name));
        }
        let (mut log, mut known) = Log::open(path)?;
        match known.first() {
            None => log.append(&serde_json::to_string(header)?)?,
            Some(_) if !resume => return Err(JournalError::Exists(name)),
            Some(first) => {
                same_run(&name, first, header)?;
                known.remove(0);
            }
        }
        Ok(Self { log: Some(log), path: name, known: known.into_iter(), entry: 0 })
    }

    /// The journal's answer to a question, or else that of `find`, which is then written down. An error of `find` is
    /// not: the question stays open.
    pub fn step<A: Serialize + DeserializeOwned, E: From<JournalError>>(
        &mut self,
        ask: &Question,
        find: impl FnOnce() -> Result<A, E>,
    ) -> Result<A, E> {
        match self.recall(ask)? {
            Some(answer) => Ok(answer),
            None => {
                let answer = find()?;
                self.write(ask, &answer)?;
                Ok(answer)
            }
        }
    }

    /// Like [`Journal::step`] for several questions that are answered at the same time. `find` is told how many of them the
    /// journal answers, and hands over the answers to the others in their order; not all, if the time is up before, and none
    /// where the journal says that it was.
    pub fn steps<A: Serialize + DeserializeOwned, E: From<JournalError>>(
        &mut self,
        asks: &[Question],
        find: impl FnOnce(usize, &mut dyn FnMut(A) -> Result<(), E>) -> Result<(), E>,
    ) -> Result<Vec<A>, E> {
        let mut answers = Vec::with_capacity(asks.len());
        while let Some(ask) = asks.get(answers.len()) {
            if self.was_time_up() == Some(true) {
                return Ok(answers);
            }
            let Some(answer) = self.recall(ask)? else { break };
            answers.push(answer);
        }
        if answers.len() < asks.len() {
            find(answers.len(), &mut |answer| {
                if let Some(ask) = asks.get(answers.len()) {
                    self.write(ask, &answer)?;
                    answers.push(answer);
                }
                Ok(())
            })?;
        }
        Ok(answers)
    }

    /// States something that needs no answer.
    pub fn state(&mut self, what: &Question) -> Result<(), JournalError> {
        self.step(what, || Ok(()))
    }

    /// Whether the time was up here when the journal was written; `None` if it does not reach so far.
    pub fn was_time_up(&mut self) -> Option<bool> {
        let next = self.known.as_slice().first()?;
        Some(serde_json::from_str::<Step<Question, Value>>(next).is_ok_and(|step| step.ask == Question::TimeUp))
    }

    fn recall<A: DeserializeOwned>(&mut self, ask: &Question) -> Result<Option<A>, JournalError> {
        self.entry += 1;
        if let Some(line) = self.known.next() {
            let diverged = || JournalError::Diverged { path: self.path.clone(), entry: self.entry };
            let step: Step<Question, A> = serde_json::from_str(&line).map_err(|_| diverged())?;
            return if step.ask == *ask { Ok(Some(step.answer)) } else { Err(diverged()) };
        }
        Ok(None)
    }

    fn write<A: Serialize>(&mut self, ask: &Question, answer: &A) -> Result<(), JournalError> {
        match &mut self.log {
            Some(log) => Ok(log.append(&serde_json::to_string(&Step { ask, answer })?)?),
            None => Ok(()),
        }
    }
}

fn same_run(path: &str, line: &str, header: &Header) -> Result<(), JournalError> {
    let then: Value = serde_json::from_str(line)?;
    if then["schema"] != SCHEMA {
        return Err(JournalError::Schema { path: path.to_owned(), found: then["schema"].to_string() });
    }
    let now = serde_json::to_value(header)?;
    for what in ["problem", "device", "others", "toolchain", "space", "cases", "learnt_from", "settings"] {
        if then[what] != now[what] {
            let [then, now] = [&then, &now].map(|side| differing(&side[what], &then[what], &now[what]));
            return Err(JournalError::Changed { path: path.to_owned(), what, then, now });
        }
    }
    Ok(())
}

/// What of `side` differs between two values; of objects only the first field that does.
fn differing(side: &Value, a: &Value, b: &Value) -> String {
    match (side, a, b) {
        (Value::Object(side), Value::Object(a), Value::Object(b)) => side
            .iter()
            .find(|(key, _)| a.get(*key) != b.get(*key))
            .map_or_else(|| "absent".to_owned(), |(key, value)| format!("{key}={value}")),
        (Value::String(text), ..) => text.clone(),
        _ => side.to_string(),
    }
}

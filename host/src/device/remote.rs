//! A device in a process of its own: the caller's side, with a watchdog.
//!
//! A kernel may hang, break the GPU's context or take the process with it. The worker is then killed, the request gets its
//! [`Failure`], and the next request starts a fresh worker. No request is sent twice.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::worker::{Answer, Greeting, Request};
use super::{Correctness, Description, Device, Failure, Samples, Subject, TimingPlan};
use crate::cases::Case;
use crate::child::{Child, Silence, garbage};

/// How long a worker is waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// Until it greets.
    pub start: Duration,
    /// Until it answers, whatever it is asked.
    pub answer: Duration,
    /// In addition, for each case that is checked.
    pub per_case: Duration,
    /// In addition, for each round of each subject that is timed.
    pub per_round: Duration,
    /// Until it ends once it has nothing more to do.
    pub end: Duration,
}

impl Default for Patience {
    /// Long enough for the CPU machine on a busy computer.
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            answer: Duration::from_secs(30),
            per_case: Duration::from_secs(5),
            per_round: Duration::from_millis(500),
            end: Duration::from_secs(2),
        }
    }
}

/// A device that runs in a worker process.
#[derive(Debug)]
pub struct Remote {
    program: PathBuf,
    arguments: Vec<OsString>,
    patience: Patience,
    description: Description,
    deadline: Option<Instant>,
    worker: Option<Worker>,
}

impl Remote {
    /// Starts `program` with `arguments`, which must run [`super::worker::run`].
    ///
    /// # Errors
    ///
    /// [`Failure::Device`] if it does not start, does not greet in time, or has no device.
    pub fn start(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        patience: Patience,
    ) -> Result<Self, Failure> {
        let program = program.into();
        let arguments: Vec<_> = arguments.into_iter().map(Into::into).collect();
        let (worker, description) = Worker::start(&program, &arguments, &patience)?;
        Ok(Self { program, arguments, patience, description, deadline: None, worker: Some(worker) })
    }

    /// Process id of the worker; `None` between the end of one and the start of the next.
    pub fn pid(&self) -> Option<u32> {
        self.worker.as_ref().map(|worker| worker.0.id())
    }

    fn ask(&mut self, request: &Request, patience: Duration) -> Result<Answer, Failure> {
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.restart()?,
        };
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let answer = worker.ask(request, left.map_or(patience, |left| left.min(patience)));
        let failure = match &answer {
            Ok(Answer::Check(Ok(_)) | Answer::Time(Ok(_))) => None,
            Ok(Answer::Check(Err(failure)) | Answer::Time(Err(failure))) | Err(failure) => Some(failure.clone()),
            Ok(Answer::NoRequest(reason)) => {
                Some(Failure::Device(format!("the worker takes no such request: {reason}")))
            }
        };
        match failure {
            // The worker, or its context on the GPU, may be broken: the next request gets a fresh one.
            Some(failure @ (Failure::Fault(_) | Failure::Hang { .. } | Failure::Device(_))) => {
                worker.0.kill();
                Err(failure)
            }
            Some(failure) => {
                self.worker = Some(worker);
                Err(failure)
            }
            None => {
                self.worker = Some(worker);
                answer
            }
        }
    }

    fn restart(&self) -> Result<Worker, Failure> {
        let (worker, description) = Worker::start(&self.program, &self.arguments, &self.patience)?;
        if description == self.description {
            return Ok(worker);
        }
        Err(Failure::Device(format!(
            "the worker came back as another device: {} {}, before it was {} {}",
            description.name, description.uuid, self.description.name, self.description.uuid
        )))
    }

    /// Ends a worker that answers another question than it was asked.
    fn distrust(&mut self) -> Failure {
        if let Some(mut worker) = self.worker.take() {
            worker.0.kill();
        }
        Failure::Device("the worker answered another question".into())
    }
}

impl Device for Remote {
    fn description(&self) -> &Description {
        &self.description
    }

    fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
        let request = Request::Check { subject: Box::new(subject.clone()), cases: cases.to_vec() };
        let patience = self.patience.answer + self.patience.per_case * cases.len() as u32;
        match self.ask(&request, patience)? {
            Answer::Check(result) => result,
            _ => Err(self.distrust()),
        }
    }

    fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
        let request = Request::Time { subjects: subjects.to_vec(), plan: *plan };
        let rounds = (subjects.len() as u32).saturating_mul(plan.rounds);
        let patience = self.patience.answer + self.patience.per_round.saturating_mul(rounds);
        match self.ask(&request, patience)? {
            Answer::Time(result) => result,
            _ => Err(self.distrust()),
        }
    }

    fn answer_by(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }
}

/// A running worker. Dropping it ends it.
#[derive(Debug)]
struct Worker(Child);

impl Worker {
    fn start(program: &Path, arguments: &[OsString], patience: &Patience) -> Result<(Self, Description), Failure> {
        let device = |reason: String| Failure::Device(format!("worker {}: {reason}", program.display()));
        let mut command = Command::new(program);
        command.args(arguments);
        let mut child = Child::start(command, patience.end).map_err(|error| device(error.to_string()))?;
        let line = child.line(patience.start).map_err(|silence| match silence {
            Silence::Late(patience) => device(format!("no greeting within {} s", patience.as_secs_f64())),
            Silence::Gone(how) => device(format!("the worker {how}")),
            Silence::Broken(error) => device(error.to_string()),
        })?;
        let greeting: Greeting = serde_json::from_str(&line).map_err(|error| device(garbage(&line, &error)))?;
        Ok((Self(child), greeting.device?))
    }

    fn ask(&mut self, request: &Request, patience: Duration) -> Result<Answer, Failure> {
        let line = serde_json::to_vec(request).map_err(|error| Failure::Device(error.to_string()))?;
        self.0.say(line);
        let line = self.0.line(patience).map_err(|silence| match silence {
            Silence::Late(patience) => Failure::Hang { seconds: patience.as_secs_f64() },
            Silence::Gone(how) => Failure::Fault(format!("the worker {how}")),
            Silence::Broken(error) => Failure::Device(format!("worker: {error}")),
        })?;
        serde_json::from_str(&line).map_err(|error| Failure::Device(format!("worker: {}", garbage(&line, &error))))
    }
}

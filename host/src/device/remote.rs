//! A device in a process of its own: the caller's side, with a watchdog.
//!
//! A kernel may hang, break the GPU's context or take the process with it. The worker is then killed, the request gets its
//! [`Failure`], and the next request starts a fresh worker. No request is sent twice.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::worker::{Answer, Greeting, Request};
use super::{Correctness, Description, Device, Failure, Samples, Subject, TimingPlan};
use crate::cases::Case;

/// Longest answer, in bytes: samples of thousands of subjects.
const LONGEST_LINE: u64 = 64 << 20;

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
        self.worker.as_ref().map(|worker| worker.child.id())
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
                worker.kill();
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
            worker.kill();
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
struct Worker {
    child: Child,
    /// Lines for its input; a thread of its own writes them, because a worker that hangs does not read.
    requests: Option<Sender<Vec<u8>>>,
    answers: Receiver<io::Result<String>>,
    last_words: Arc<Mutex<String>>,
    end: Duration,
}

impl Worker {
    fn start(program: &Path, arguments: &[OsString], patience: &Patience) -> Result<(Self, Description), Failure> {
        let device = |reason: String| Failure::Device(format!("worker {}: {reason}", program.display()));
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| device(error.to_string()))?;
        let (requests, answers) = (mpsc::channel::<Vec<u8>>(), mpsc::channel());
        let last_words = Arc::default();
        if let Some(stdin) = child.stdin.take() {
            thread::spawn(move || write_requests(stdin, requests.1));
        }
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || read_lines(stdout, &answers.0));
        }
        if let Some(stderr) = child.stderr.take() {
            let (id, last_words) = (child.id(), Arc::clone(&last_words));
            thread::spawn(move || listen(stderr, id, &last_words));
        }
        let mut worker = Self { child, requests: Some(requests.0), answers: answers.1, last_words, end: patience.end };
        let line = worker.line(patience.start).map_err(|failure| match failure {
            Failure::Hang { seconds } => device(format!("no greeting within {seconds} s")),
            Failure::Fault(reason) => device(reason),
            failure => failure,
        })?;
        let greeting: Greeting = serde_json::from_str(&line).map_err(|error| device(garbage(&line, &error)))?;
        Ok((worker, greeting.device?))
    }

    fn ask(&mut self, request: &Request, patience: Duration) -> Result<Answer, Failure> {
        let mut line = serde_json::to_vec(request).map_err(|error| Failure::Device(error.to_string()))?;
        line.push(b'\n');
        // If the worker is gone, its output says so.
        let _ = self.requests.as_ref().map(|requests| requests.send(line));
        let line = self.line(patience)?;
        serde_json::from_str(&line).map_err(|error| Failure::Device(format!("worker: {}", garbage(&line, &error))))
    }

    /// The next line of the worker's output.
    fn line(&mut self, patience: Duration) -> Result<String, Failure> {
        match self.answers.recv_timeout(patience) {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(error)) => Err(Failure::Device(format!("worker: {error}"))),
            Err(RecvTimeoutError::Timeout) => Err(Failure::Hang { seconds: patience.as_secs_f64() }),
            Err(RecvTimeoutError::Disconnected) => Err(Failure::Fault(self.post_mortem())),
        }
    }

    /// How a worker ended that closed its output.
    fn post_mortem(&mut self) -> String {
        let ended = match self.wait(self.end) {
            Some(status) => format!("the worker ended with {status}"),
            None => "the worker closed its output".to_owned(),
        };
        // What it said last may be on its way: the listener lets go of it once all is said.
        let deadline = Instant::now() + self.end;
        while Arc::strong_count(&self.last_words) > 1 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let last_words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        if last_words.is_empty() { ended } else { format!("{ended}: {last_words}") }
    }

    /// Ends it at once, and waits for its end, but not for ever: a process can hang in the driver.
    fn kill(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.child.kill();
        if self.wait(self.end).is_none() {
            tracing::warn!("worker {} does not end although it was killed", self.child.id());
        }
    }

    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of its input asks it to end.
        self.requests = None;
        if self.wait(self.end).is_none() {
            self.kill();
        }
    }
}

fn write_requests(mut stdin: ChildStdin, requests: Receiver<Vec<u8>>) {
    for request in requests {
        // A worker that does not listen any more ends its output too, where it is noticed.
        if stdin.write_all(&request).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

fn read_lines(stdout: impl Read, answers: &Sender<io::Result<String>>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = vec![];
        let line = match (&mut stdout).take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) if line.ends_with(b"\n") => Ok(String::from_utf8_lossy(&line).into_owned()),
            Ok(_) if line.len() as u64 == LONGEST_LINE => {
                Err(io::Error::other(format!("an answer of more than {LONGEST_LINE} B")))
            }
            // It ended in the middle of an answer.
            Ok(_) => return,
            Err(error) => Err(error),
        };
        let broken = line.is_err();
        if answers.send(line).is_err() || broken {
            return;
        }
    }
}

/// Passes on what the worker says beside its answers, and keeps the last of it.
fn listen(stderr: impl Read, id: u32, last_words: &Mutex<String>) {
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        tracing::warn!(worker = id, "{line}");
        if !line.is_empty() {
            *last_words.lock().unwrap_or_else(PoisonError::into_inner) = line;
        }
    }
}

fn garbage(line: &str, error: &serde_json::Error) -> String {
    let start: String = line.trim_end().chars().take(80).collect();
    format!("no answer but {start:?} ({error})")
}

//! A program that is spoken to in lines, with a watchdog: whatever it does, whoever asks gets an answer in time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{self, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Longest line, in bytes: samples of thousands of subjects.
const LONGEST_LINE: u64 = 64 << 20;

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    /// Lines for its input; a thread of its own writes them, because a program that hangs does not read.
    requests: Option<Sender<Vec<u8>>>,
    answers: Receiver<io::Result<String>>,
    last_words: Arc<Mutex<String>>,
    end: Duration,
    /// The process group that ends with it.
    group: Option<Pid>,
}

/// Why there is no line.
#[derive(Debug)]
pub(crate) enum Silence {
    /// It was waited for so long.
    Late(Duration),
    /// The program closed its output: how it ended and what it said last.
    Gone(String),
    /// Its output cannot be read.
    Broken(io::Error),
}

impl Child {
    /// Starts a line of the shell, whose programs may take `end` to end once they have nothing more to do. What is left of
    /// them then is ended too.
    pub(crate) fn start_line(line: &str, end: Duration) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line).process_group(0);
        let mut child = Self::start(shell, end)?;
        child.group = Some(Pid::from_child(&child.process));
        Ok(child)
    }

    /// Starts a program, which may take `end` to end once it has nothing more to do.
    pub(crate) fn start(mut command: Command, end: Duration) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn()?;
        let (requests, answers) = (mpsc::channel::<Vec<u8>>(), mpsc::channel());
        let last_words = Arc::default();
        if let Some(stdin) = process.stdin.take() {
            thread::spawn(move || write_requests(stdin, requests.1));
        }
        if let Some(stdout) = process.stdout.take() {
            thread::spawn(move || read_lines(stdout, &answers.0));
        }
        if let Some(stderr) = process.stderr.take() {
            let (id, last_words) = (process.id(), Arc::clone(&last_words));
            thread::spawn(move || listen(stderr, id, &last_words));
        }
        Ok(Self { process, requests: Some(requests.0), answers: answers.1, last_words, end, group: None })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a line, given without its end. If it is gone, its output says so.
    pub(crate) fn say(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        let _ = self.requests.as_ref().map(|requests| requests.send(line));
    }

    /// The next line of its output.
    pub(crate) fn line(&mut self, patience: Duration) -> Result<String, Silence> {
        match self.answers.recv_timeout(patience) {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(error)) => Err(Silence::Broken(error)),
            Err(RecvTimeoutError::Timeout) => Err(Silence::Late(patience)),
            Err(RecvTimeoutError::Disconnected) => Err(Silence::Gone(self.post_mortem())),
        }
    }

    /// How a program ended that closed its output.
    fn post_mortem(&mut self) -> String {
        let ended = match self.wait(self.end) {
            Some(status) => format!("ended with {status}"),
            None => "closed its output".to_owned(),
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
    pub(crate) fn kill(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.process.kill();
        self.kill_group();
        if self.wait(self.end).is_none() {
            tracing::warn!("process {} does not end although it was killed", self.process.id());
        }
    }

    fn kill_group(&self) {
        // An error means that nothing is left of it.
        let _ = self.group.map(|group| kill_process_group(group, Signal::KILL));
    }

    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The end of its input asks it to end.
        self.requests = None;
        match self.wait(self.end) {
            Some(_) => self.kill_group(),
            None => self.kill(),
        }
    }
}

fn write_requests(mut stdin: ChildStdin, requests: Receiver<Vec<u8>>) {
    for request in requests {
        // A program that does not listen any more ends its output too, where it is noticed.
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

/// Passes on what the program says beside its answers, and keeps the last of it.
fn listen(stderr: impl Read, id: u32, last_words: &Mutex<String>) {
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        tracing::warn!(process = id, "{line}");
        if !line.is_empty() {
            *last_words.lock().unwrap_or_else(PoisonError::into_inner) = line;
        }
    }
}

/// What a line is that should have been an answer.
pub(crate) fn garbage(line: &str, error: &serde_json::Error) -> String {
    let start: String = line.trim_end().chars().take(80).collect();
    format!("no answer but {start:?} ({error})")
}

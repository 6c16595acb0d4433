//! A device in a process of its own: the process's side.
//!
//! The worker greets with one line, then answers each line of its input with one line of its output, all of them JSON. It
//! ends when its input does. [`crate::device::remote`] is the other side.

use std::io::{self, BufRead, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Correctness, Description, Device, Failure, Samples, Subject, TimingPlan};
use crate::cases::Case;

/// The greeting: what the device is, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Greeting {
    /// What [`Device::description`] says.
    pub device: Result<Description, Failure>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// [`Device::check`].
    Check {
        /// What is checked.
        subject: Box<Subject>,
        /// On what.
        cases: Vec<Case>,
    },
    /// [`Device::time`].
    Time {
        /// What is timed.
        subjects: Vec<Subject>,
        /// How.
        plan: TimingPlan,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Check`].
    Check(Result<Correctness, Failure>),
    /// To [`Request::Time`].
    Time(Result<Vec<Samples>, Failure>),
    /// To a line that is no request, and why it is none.
    NoRequest(String),
}

/// How long a worker whose input has ended may go on with a request.
const GRACE: Duration = Duration::from_secs(5);

/// Serves a device on standard input and output until the input ends.
///
/// # Errors
///
/// Input or output broke.
pub fn run(open: impl FnOnce() -> Result<Box<dyn Device>, Failure>) -> io::Result<()> {
    let (sender, lines) = mpsc::channel();
    // Whoever started this process may be gone while a kernel hangs: the input's end must be seen at once.
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
        drop(sender);
        thread::sleep(GRACE);
        std::process::abort();
    });
    serve(open, lines, io::stdout().lock())
}

/// Serves a device until the lines end.
///
/// # Errors
///
/// Lines or output broke.
pub fn serve(
    open: impl FnOnce() -> Result<Box<dyn Device>, Failure>,
    lines: impl IntoIterator<Item = io::Result<String>>,
    mut output: impl Write,
) -> io::Result<()> {
    let opened = open();
    let device = opened.as_ref().map(|device| device.description().clone()).map_err(Clone::clone);
    say(&mut output, &Greeting { device })?;
    let Ok(mut device) = opened else { return Ok(()) };
    for line in lines {
        let answer = match serde_json::from_str(&line?) {
            Ok(request) => answer(device.as_mut(), request),
            Err(error) => Answer::NoRequest(error.to_string()),
        };
        say(&mut output, &answer)?;
    }
    Ok(())
}

fn answer(device: &mut dyn Device, request: Request) -> Answer {
    match request {
        Request::Check { subject, cases } => Answer::Check(device.check(&subject, &cases)),
        Request::Time { subjects, plan } => Answer::Time(device.time(&subjects, &plan)),
    }
}

fn say(output: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

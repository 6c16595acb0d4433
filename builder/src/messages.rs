//! What cargo says of a build: JSON messages, and text where the compiler crashed.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

/// The line that tells most of what cargo printed for people.
pub(crate) fn first_error(complaint: &str) -> String {
    let mut lines = complaint.lines().map(str::trim);
    let telling =
        lines.clone().find(|line| line.starts_with("LLVM ERROR")).or_else(|| lines.find(|l| l.starts_with("error")));
    telling.unwrap_or("it ended without a message").to_owned()
}

/// What cargo's messages say of the batches.
#[derive(Default)]
pub(crate) struct Report {
    /// Crates that were built.
    pub(crate) done: HashSet<String>,
    /// The first error of each batch.
    pub(crate) errors: HashMap<String, String>,
    /// The first error of a crate that is no batch.
    pub(crate) elsewhere: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "reason")]
enum Message {
    #[serde(rename = "compiler-artifact")]
    Artifact { target: Target },
    #[serde(rename = "compiler-message")]
    Diagnostic { target: Target, message: Diagnostic },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    message: String,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    line_start: u32,
    is_primary: bool,
}

impl Report {
    /// Reads the lines of `--message-format=json`; `names` are the batches.
    pub(crate) fn read(messages: &str, names: &[String]) -> Self {
        let mut report = Self::default();
        // Programs that cargo runs may print lines of their own: what is no message is skipped.
        for message in messages.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            match message {
                Message::Artifact { target } => {
                    report.done.insert(target.name);
                }
                Message::Diagnostic { target, message } if message.level.starts_with("error") => {
                    if names.contains(&target.name) {
                        report.errors.entry(target.name).or_insert_with(|| message.line());
                    } else {
                        report.elsewhere.get_or_insert_with(|| message.line());
                    }
                }
                Message::Diagnostic { .. } | Message::Other => {}
            }
        }
        report
    }
}

impl Diagnostic {
    fn line(&self) -> String {
        let what = self.message.lines().next().unwrap_or_default();
        match self.spans.iter().find(|span| span.is_primary) {
            Some(span) => format!("{what} ({}:{})", span.file_name, span.line_start),
            None => what.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_crate() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"batch_0"},"fresh":false}
noise
{"reason":"compiler-message","target":{"name":"batch_1"},"message":{"level":"warning","message":"w","spans":[]}}
{"reason":"compiler-message","target":{"name":"batch_1"},"message":{"level":"error","message":"first\nmore","spans":[{"file_name":"src/lib.rs","line_start":3,"is_primary":true}]}}
{"reason":"compiler-message","target":{"name":"batch_1"},"message":{"level":"error","message":"second","spans":[]}}
{"reason":"build-finished","success":false}"#;
        let names = ["batch_0".to_owned(), "batch_1".to_owned()];
        let report = Report::read(messages, &names);
        assert!(report.done.contains("batch_0") && !report.done.contains("batch_1"));
        assert_eq!(report.errors["batch_1"], "first (src/lib.rs:3)");
        assert_eq!(report.elsewhere, None);
        assert_eq!(Report::read(messages, &names[..1]).elsewhere.as_deref(), Some("first (src/lib.rs:3)"));
    }

    #[test]
    fn a_crash_of_the_compiler_is_told_by_its_own_line() {
        let crash = "   Compiling batch_0\nLLVM ERROR: Cannot select: 0x1\nerror: could not compile `batch_0` (lib)\n";
        assert_eq!(first_error(crash), "LLVM ERROR: Cannot select: 0x1");
        assert_eq!(first_error("error: no network\n"), "error: no network");
    }
}

//! Running other programs.

use std::process::{Command, Output, Stdio};

use crate::BuildError;

/// Runs a program to its end; `Err` only if it cannot be started.
pub(crate) fn output(command: &mut Command) -> Result<Output, BuildError> {
    command.stdin(Stdio::null()).output().map_err(|error| failed(command, error.to_string()))
}

/// Runs a program and returns what it printed; `Err` with its last line of complaint if it fails.
pub(crate) fn stdout(command: &mut Command) -> Result<String, BuildError> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let line = complaint.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(failed(command, format!("{}: {line}", output.status)))
}

fn failed(command: &Command, reason: String) -> BuildError {
    BuildError::Tool { tool: command.get_program().to_string_lossy().into_owned(), reason }
}

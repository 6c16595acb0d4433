//! Python packages that tests need and the program does not.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Has pip put packages into a folder of their own, unless they are there; what was named before counts for as long as the
/// folder is kept. `Err` says why pip cannot.
pub(crate) fn fetch(name: &str, arguments: &[&[&str]]) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let complete = folder.join("complete");
    if complete.is_file() {
        return Ok(folder);
    }
    for arguments in arguments {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]).arg(&folder).args(*arguments);
        let run = pip.output().map_err(|error| format!("python3: {error}"))?;
        if !run.status.success() {
            let complaint = String::from_utf8_lossy(&run.stderr);
            return Err(format!("pip: {}", complaint.trim().lines().last().unwrap_or_default()));
        }
    }
    std::fs::write(&complete, "").map_err(|error| format!("{}: {error}", complete.display()))?;
    Ok(folder)
}

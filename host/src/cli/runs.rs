//! Where a run's files go.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use spec::Problem;

/// Folder of all runs that name none, within the current one.
const RUNS: &str = "target/evolve";

/// The folder for a run: a new one, or the last one if it is to be resumed.
pub(super) fn folder(problem: &Problem, resume: bool) -> Result<PathBuf> {
    let runs = Path::new(RUNS).join(problem.to_string().replace('/', "_"));
    let last = last(&runs)?;
    match (resume, last) {
        (true, Some(last)) => Ok(runs.join(format!("run-{last}"))),
        (true, None) => anyhow::bail!("{}: there is no run to resume", runs.display()),
        (false, last) => Ok(runs.join(format!("run-{}", last.map_or(1, |last| last + 1)))),
    }
}

fn last(runs: &Path) -> Result<Option<u32>> {
    let entries = match std::fs::read_dir(runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| runs.display().to_string()),
    };
    let numbers = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_prefix("run-")?.parse().ok()
    });
    Ok(numbers.max())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_has_the_largest_number() {
        let runs = tempfile::tempdir().unwrap();
        assert_eq!(last(&runs.path().join("absent")).unwrap(), None);
        for name in ["run-2", "run-10", "run-x", "other"] {
            std::fs::create_dir(runs.path().join(name)).unwrap();
        }
        assert_eq!(last(runs.path()).unwrap(), Some(10));
    }
}

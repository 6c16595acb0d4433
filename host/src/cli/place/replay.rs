//! A record as the place.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use builder::Project;
use spec::Problem;

use super::{Origin, Place};
use crate::{
    cases,
    device::{Device, Failure, replay::Replay},
    evolve::{
        settings::{Cases, Lab, Peer, Peers},
        space::Space,
    },
    record::sweep::Sweep,
};

/// Where the shipped records are, within the project.
const SHIPPED: &str = "records/sweeps";
/// How records are named.
const EXTENSION: &str = ".jsonl.zst";

/// The record in `file`, or the newest shipped one of the problem.
pub(super) fn open(file: Option<&Path>, problem: &Problem) -> Result<Place> {
    let (path, sweep) = match file {
        Some(file) => (file.to_owned(), Sweep::read(file)?),
        None => shipped(problem)?,
    };
    let recorded = sweep.header.problem;
    ensure!(recorded == *problem, "{}: the record is of {recorded}, not of {problem}", path.display());
    let mut introduction = format!(
        "Replaying {} variants measured {} ({}): nothing is measured now.",
        sweep.rows.len(),
        sweep.provenance(),
        path.display()
    );
    if sweep.unknown > 0 {
        introduction += &format!(" {} rows are of variants that this program does not know.", sweep.unknown);
    }
    let variants = sweep.rows.iter().map(|(variant, _)| *variant);
    let device = Replay::new(&sweep);
    Ok(Place {
        introduction,
        space: Space::listed(*problem, sweep.header.device.limits, variants),
        source: Box::new(device.clone()),
        lab: Box::new(Archive { device: device.clone(), peers: recorded_peers(&sweep) }),
        // Nothing is checked again, so no more can be stated than the record does.
        cases: Cases { gate: cases::gate(problem), suite: cases::gate(problem) },
        origin: Origin::Record(device),
    })
}

fn shipped(problem: &Problem) -> Result<(PathBuf, Sweep)> {
    let folder = Project::find()?.root().join(SHIPPED);
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.to_string_lossy().ends_with(EXTENSION) {
            let sweep = Sweep::read(&path)?;
            records.push((path, sweep));
        }
    }
    records.sort_by(|a, b| a.1.header.date.cmp(&b.1.header.date));
    let known: Vec<String> = records.iter().map(|(_, sweep)| sweep.header.problem.to_string()).collect();
    let fitting = records.into_iter().rfind(|(_, sweep)| sweep.header.problem == *problem);
    fitting.with_context(|| {
        format!("no GPU is used and no record of {problem} is shipped; there are records of: {}", known.join(", "))
    })
}

fn recorded_peers(sweep: &Sweep) -> Peers {
    let provenance = sweep.provenance();
    let recorded = |peer: &Peer| Peer { recorded: Some(provenance.clone()), ..peer.clone() };
    Peers { peers: sweep.peers.peers.iter().map(recorded).collect(), notes: sweep.peers.notes.clone() }
}

/// A record gives the same device whenever it is opened.
struct Archive {
    device: Replay,
    peers: Peers,
}

impl Lab for Archive {
    fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
        Ok(Box::new(self.device.clone()))
    }

    fn peers(&mut self, _: &Problem) -> Peers {
        self.peers.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{
        fixture,
        log::Log,
        sweep::{Entry, finish},
    };

    /// Writes a record as a sweep would.
    fn write(sweep: &Sweep, folder: &Path) -> PathBuf {
        let (log, record) = (folder.join("log"), folder.join("record.jsonl.zst"));
        let (mut lines, _) = Log::open(&log).unwrap();
        let rows = sweep.rows.iter().map(|(_, row)| Entry::Row(row.clone()));
        for entry in std::iter::once(Entry::Header(sweep.header.clone())).chain(rows) {
            lines.append(&serde_json::to_string(&entry).unwrap()).unwrap();
        }
        finish(&log, &record).unwrap();
        record
    }

    #[test]
    fn a_record_opens_its_own_problem_only() {
        let folder = tempfile::tempdir().unwrap();
        let sweep = fixture::sweep(50, 0.01, 1);
        let path = write(&sweep, folder.path());
        let place = open(Some(&path), &Problem::SEED).unwrap();
        let members = sweep.rows.len();
        let introduction = format!("Replaying {members} variants measured 2000-01-01 on Test GPU, driver 1.0");
        assert!(place.introduction.starts_with(&introduction), "{}", place.introduction);
        assert_eq!(place.space.members().len(), members);
        let causal = "b1-h8-s512-d64-f16-causal".parse().unwrap();
        let error = open(Some(&path), &causal).err().unwrap().to_string();
        assert!(error.contains("the record is of b1-hq8-hk8-sq512-sk512-dqk64-dv64-f16-full-bshd, not of"), "{error}");
    }

    #[test]
    fn a_damaged_record_is_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&fixture::sweep(50, 0.01, 1), folder.path());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = open(Some(&path), &Problem::SEED).err().unwrap().to_string();
        assert!(error.starts_with(&path.display().to_string()) && error.lines().count() == 1, "{error}");
    }
}

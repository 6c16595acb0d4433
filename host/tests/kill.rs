//! The program itself, killed at any moment and resumed.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Kills, each of a run of its own.
const KILLS: u64 = 20;
/// Far longer than a run takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run on the committed record, with what it leaves in `folder`.
fn run(folder: &Path, resume: bool) -> Child {
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("../records/sweeps/seed-h100.jsonl.zst");
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.args(["evolve", "--seed", "5", "--trials", "20", "--device"]);
    command.arg(format!("replay:{}", record.display())).arg("--out").arg(folder);
    if resume {
        command.arg("--resume");
    }
    // Where there is no project nothing can be compiled for the CPU machine, which takes long and is not what is tested.
    command.env("EVOATTN_ROOT", "absent");
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn journal(folder: &Path) -> PathBuf {
    folder.join("journal.jsonl")
}

/// Kills the run (SIGKILL) once its journal has so many bytes; whether it was still running.
fn kill_at(mut child: Child, journal: &Path, bytes: u64) -> bool {
    let begun = Instant::now();
    while std::fs::metadata(journal).map_or(0, |file| file.len()) < bytes {
        assert!(begun.elapsed() < PATIENCE, "the journal never got to {bytes} bytes");
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

/// The moments are places in the journal, so that they are spread over the run however fast it is; where within the
/// program's work they fall is up to the system.
#[test]
fn a_run_killed_at_twenty_random_moments_ends_as_if_it_had_not_been() {
    let whole = tempfile::tempdir().unwrap();
    finish(run(whole.path(), false));
    let expected = std::fs::read(journal(whole.path())).unwrap();
    let outcome = std::fs::read(whole.path().join("outcome.json")).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    let mut killed = 0;
    for kill in 0..KILLS {
        let folder = tempfile::tempdir().unwrap();
        let bytes = rng.random_range(0..expected.len() as u64);
        killed += u32::from(kill_at(run(folder.path(), false), &journal(folder.path()), bytes));
        // A run that was killed before it began has no journal to resume.
        let resume = journal(folder.path()).exists();
        finish(run(folder.path(), resume));
        assert!(std::fs::read(journal(folder.path())).unwrap() == expected, "kill {kill} at {bytes} bytes: journal");
        let found = std::fs::read(folder.path().join("outcome.json")).unwrap();
        assert!(found == outcome, "kill {kill} at {bytes} bytes: trials or winner differ");
    }
    assert!(killed >= 15, "only {killed} of {KILLS} runs were still running when they were killed");
}

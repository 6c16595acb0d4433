//! A proposer that rewrites a kernel: the source it sends is really compiled, and runs on the CPU machine.

use std::process::Command;

use serde_json::Value;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/proposers/rewrite.py");

/// The outcome of a run of two trials: the first incumbent and one more.
fn evolve(arguments: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_host"))
        .args(["evolve", "--device", "simt", "--problem", "b1-h1-s64-d64-f16", "--trials", "2", "--population", "2"])
        .args(["--json", "--out"])
        .arg(folder.path())
        .arg("--proposer")
        .arg(format!("python3 {EXAMPLE} {arguments}"))
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{complaint}");
    serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {complaint}"))
}

#[test]
fn a_right_edit_is_compiled_run_and_counted_as_a_trial() {
    let outcome = evolve("");
    let trials = outcome["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 2, "{outcome:#}");
    let edit = trials[1]["operator"]["edited"].as_str().unwrap_or_else(|| panic!("{:#}", trials[1]));
    assert_eq!(edit.len(), 16);
    assert_eq!(trials[1]["identity"]["sha256"].as_str().unwrap().len(), 64);
    assert!(trials[1]["correctness"]["cases"].as_u64().unwrap() >= 3);
}

#[test]
fn a_wrong_edit_is_refused_as_wrong_and_another_trial_takes_its_place() {
    let outcome = evolve("--forget");
    let refusal = &outcome["refusals"][0];
    assert_eq!(refusal["reason"], "wrong", "{outcome:#}");
    assert!(refusal["why"].as_str().unwrap().starts_with("wrong on gate/"), "{refusal:#}");
    assert!(refusal["variant"].as_str().unwrap().contains('@'), "{refusal:#}");
    assert_eq!(outcome["budget"]["spent"], 2);
}

//! A proposer that rewrites a kernel: the source it sends is really compiled, and runs on the CPU machine.

use std::process::Command;

use serde_json::Value;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/proposers/rewrite.py");

/// One run, since every edit takes a build of the CPU machine's library and one of PTX.
#[test]
fn a_wrong_edit_is_refused_and_a_right_one_compiled_run_and_counted_as_a_trial() {
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_host"))
        .args(["evolve", "--device", "simt", "--problem", "b1-h1-s64-d64-f16", "--trials", "2", "--population", "2"])
        .args(["--json", "--out"])
        .arg(folder.path())
        .arg("--proposer")
        .arg(format!("python3 {EXAMPLE} --forget"))
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{complaint}");
    let outcome: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {complaint}"));
    let refusal = &outcome["refusals"][0];
    assert_eq!(refusal["reason"], "wrong", "{outcome:#}");
    assert!(refusal["why"].as_str().unwrap().starts_with("wrong on gate/"), "{refusal:#}");
    assert!(refusal["variant"].as_str().unwrap().contains('@'), "{refusal:#}");

    let trials = outcome["trials"].as_array().unwrap();
    assert_eq!((trials.len(), &outcome["budget"]["spent"]), (2, &Value::from(2)), "{outcome:#}");
    let edit = trials[1]["operator"]["edited"].as_str().unwrap_or_else(|| panic!("{:#}", trials[1]));
    assert_eq!(edit.len(), 16);
    assert!(!refusal["variant"].as_str().unwrap().ends_with(edit), "{refusal:#}");
    assert_eq!(trials[1]["identity"]["sha256"].as_str().unwrap().len(), 64);
    assert!(trials[1]["correctness"]["cases"].as_u64().unwrap() >= 3);
}

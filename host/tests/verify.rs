//! `host verify` on records of kernels that are really here, on the CPU machine.

use std::{path::Path, process::Command};

use builder::Library;
use host::dispatch::{Dispatch, Entry};
use spec::{DeviceLimits, Problem};

/// Records of the first default for a problem on an H100, with its code as it is here.
fn records() -> Dispatch {
    let problem: Problem = "b1-h2-s512-d64-f16".parse().unwrap();
    let limits = DeviceLimits::H100;
    let variant = spec::defaults(&problem, &limits).next().unwrap();
    let artifact = Library::open().unwrap().ptx(&[variant.kernel(&problem)], limits.sm).remove(0).unwrap();
    let mut records = Dispatch::new("NVIDIA H100 80GB HBM3");
    records.put(Entry {
        problem,
        variant: variant.to_string(),
        sha256: artifact.sha256,
        hot_us: 5.0,
        driver: "580.1".into(),
        record: "a test".into(),
    });
    records
}

/// What it says of a file, and whether it holds.
fn verify(path: &Path) -> (String, bool) {
    let run = Command::new(env!("CARGO_BIN_EXE_host")).args(["verify", "--device", "simt"]).arg(path).output().unwrap();
    let text = [run.stdout, run.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (text, run.status.success())
}

#[test]
fn a_record_of_code_at_hand_runs_and_an_edited_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.json");
    records().write(&path).unwrap();
    let (said, holds) = verify(&path);
    assert!(holds, "{said}");
    assert!(said.contains("correct on 3 cases") && said.contains("1 of 1 records hold"), "{said}");
    assert!(said.contains("at b1-hq2-hk2-sq256-sk256"), "the CPU machine ran a smaller shape and must say so: {said}");

    let text = std::fs::read_to_string(&path).unwrap();
    let sha256 = records().entries()[0].sha256.clone();
    std::fs::write(&path, text.replace(&sha256, &"0".repeat(64))).unwrap();
    let (said, holds) = verify(&path);
    assert!(!holds && said.contains("is stale") && said.contains("1 of 1 records do not hold"), "{said}");
}

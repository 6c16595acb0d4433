//! T4 results as the program writes them, against the schema that Kernel Tuner ships. Both are fetched by pip; where it
//! cannot, the test is ignored and says why.

mod pip;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Failed, Trial};

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../records/sweeps/seed-h100.jsonl.zst");
const VALIDATE: &str = "
import json, pathlib, sys
import jsonschema
results, schema = (json.loads(pathlib.Path(path).read_text()) for path in sys.argv[1:])
jsonschema.validate(results, schema)
";

fn main() {
    let arguments = Arguments::from_args();
    // Listing tests must not fetch anything.
    let absent = if arguments.list { None } else { packages().err() };
    let name = "exported_results_follow_kernel_tuners_schema";
    let trial = match absent {
        None => Trial::test(name, exported_results_follow_the_schema),
        Some(reason) => {
            let kind = reason.clone();
            Trial::test(name, move || Err(reason.into())).with_ignored_flag(true).with_kind(kind)
        }
    };
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

/// Of Kernel Tuner only the schema is wanted, not what it needs to run.
fn packages() -> Result<PathBuf, String> {
    pip::fetch("kernel-tuner", &[&["--no-deps", "kernel_tuner==1.5.0"], &["jsonschema"]])
}

fn last_line(run: &Output) -> String {
    String::from_utf8_lossy(&run.stderr).trim().lines().last().unwrap_or_default().to_owned()
}

fn host(arguments: [&str; 4]) -> Result<(), Failed> {
    let run = Command::new(env!("CARGO_BIN_EXE_host")).args(arguments).output()?;
    if run.status.success() { Ok(()) } else { Err(last_line(&run).into()) }
}

/// Empty if the file follows the schema, else the validator's last word.
fn objection(results: &Path) -> Result<String, Failed> {
    let packages = packages()?;
    let schema = packages.join("kernel_tuner/schema/T4/1.0.0/results-schema.json");
    let run = Command::new("python3")
        .env("PYTHONPATH", &packages)
        .args(["-c", VALIDATE])
        .arg(results)
        .arg(schema)
        .output()?;
    Ok(if run.status.success() { String::new() } else { String::from_utf8_lossy(&run.stderr).into_owned() })
}

fn exported_results_follow_the_schema() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let [results, record] = ["results.json", "record.jsonl.zst"].map(|name| folder.path().join(name));
    let [results_name, record_name] = [&results, &record].map(|path| path.display().to_string());
    host(["record", "to-t4", RECORD, &results_name])?;
    let objection_to_ours = objection(&results)?;
    if !objection_to_ours.is_empty() {
        return Err(objection_to_ours.into());
    }
    // The schema does refuse what it should.
    let text = std::fs::read_to_string(&results)?;
    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, text.replacen("\"invalidity\":\"correct\"", "\"invalidity\":\"lucky\"", 1))?;
    if !objection(&broken)?.contains("'lucky' is not one of") {
        return Err("the validator takes anything".into());
    }

    host(["record", "from-t4", &results_name, &record_name])?;
    let [original, back] = [Path::new(RECORD), &record].map(host::record::sweep::Sweep::read);
    let (original, back) = (original?, back?);
    let variants = |sweep: &host::record::sweep::Sweep| -> Vec<_> {
        sweep.rows.iter().map(|(variant, row)| (*variant, row.sha256.clone(), row.result.is_ok())).collect()
    };
    if back.header != original.header || variants(&back) != variants(&original) {
        return Err("the record did not come back".into());
    }
    Ok(())
}

//! A sweep in shares: by hand, as a Slurm array's tasks, and by HyperQueue where pip can fetch it.

mod pip;

use std::path::{Path, PathBuf};
use std::process::Command;

use host::record::sweep::Sweep;
use libtest_mimic::{Arguments, Failed, Trial};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/cluster");
/// Times come from the shipped record: what is measured where does not matter here.
const SWEEP: [&str; 6] = ["--sample", "6", "--family", "mma", "--rounds", "8"];

fn main() {
    let arguments = Arguments::from_args();
    // Listing tests must not fetch anything.
    let hyperqueue = if arguments.list { Err("not asked for".to_owned()) } else { hyperqueue() };
    let with_hyperqueue = match hyperqueue {
        Ok(packages) => Trial::test("hyperqueue_runs_the_shares", move || hyperqueue_runs_the_shares(&packages)),
        Err(reason) => {
            let kind = reason.clone();
            Trial::test("hyperqueue_runs_the_shares", move || Err(reason.into()))
                .with_ignored_flag(true)
                .with_kind(kind)
        }
    };
    let trials = vec![
        Trial::test("the_shares_of_an_array_make_the_whole", the_shares_of_an_array_make_the_whole),
        Trial::test("results_are_whole_or_not_there", results_are_whole_or_not_there),
        with_hyperqueue,
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn hyperqueue() -> Result<PathBuf, String> {
    pip::fetch("hyperqueue", &[&["hyperqueue"]])
}

fn run(command: &mut Command) -> Result<(), Failed> {
    let run = command.output()?;
    if run.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&run.stderr).into_owned().into()) }
}

fn host() -> Command {
    Command::new(env!("CARGO_BIN_EXE_host"))
}

/// The variants and times of a record.
fn read(path: &Path) -> Result<Vec<(String, String)>, Failed> {
    let rows = Sweep::read(path)?.rows.into_iter();
    let mut rows: Vec<_> = rows.map(|(variant, row)| (variant.to_string(), format!("{:?}", row.result))).collect();
    rows.sort();
    Ok(rows)
}

/// The variants of a sweep that nobody shared out.
fn whole(folder: &Path) -> Result<Vec<String>, Failed> {
    let path = folder.join("whole.jsonl.zst");
    run(host().args(["sweep", "--device", "replay"]).args(SWEEP).arg("--out").arg(&path))?;
    Ok(read(&path)?.into_iter().map(|(variant, _)| variant).collect())
}

fn the_shares_of_an_array_make_the_whole() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let shares = folder.path().join("shares");
    run(host().args(["sweep", "--device", "replay", "--split", "3"]).args(SWEEP).arg("--out").arg(&shares))?;
    let mut results = vec![];
    for task in ["0", "1", "2"] {
        let script = Path::new(EXAMPLES).join("slurm/sweep.sbatch");
        let mut bash = Command::new("bash");
        bash.env("SLURM_ARRAY_TASK_ID", task).env("HOST", env!("CARGO_BIN_EXE_host"));
        run(bash.arg(script).arg(&shares).args(["--device", "replay"]))?;
        results.push(shares.join(format!("results-{task}.jsonl.zst")));
    }
    let joined = folder.path().join("joined.jsonl.zst");
    run(host().args(["record", "join"]).arg(&joined).args(&results))?;
    let variants: Vec<_> = read(&joined)?.into_iter().map(|(variant, _)| variant).collect();
    if variants != whole(folder.path())? {
        return Err(format!("{variants:?}").into());
    }
    Ok(())
}

fn results_are_whole_or_not_there() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (trials, results) = (folder.path().join("trials-0.json"), folder.path().join("results"));
    run(host().args(["sweep", "--device", "replay", "--split", "1"]).args(SWEEP).arg("--out").arg(folder.path()))?;
    let mut work = host();
    work.args(["work", "--device", "replay", "--in"]).arg(&trials).arg("--out").arg(&results);
    let text = std::fs::read_to_string(&trials)?;
    std::fs::write(&trials, &text[..text.len() / 2])?;
    let Err(failed) = run(&mut work) else { return Err("half a file was accepted".into()) };
    let message = failed.message().unwrap_or_default().to_owned();
    if results.exists() || !message.contains("trials-0.json: EOF") || message.lines().count() != 1 {
        return Err(message.into());
    }
    std::fs::write(&trials, &text)?;
    run(&mut work)?;
    let left: Vec<_> =
        std::fs::read_dir(folder.path())?.map(|entry| entry.map(|e| e.file_name())).collect::<Result<_, _>>()?;
    if left.len() != 2 || read(&results)?.is_empty() {
        return Err(format!("{left:?}").into());
    }
    Ok(())
}

fn hyperqueue_runs_the_shares(packages: &Path) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let shares = folder.path().join("shares");
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", packages).arg(Path::new(EXAMPLES).join("hyperqueue/sweep.py"));
    python.args([
        "--host",
        env!("CARGO_BIN_EXE_host"),
        "--device",
        "replay",
        "--split",
        "3",
        "--at-once",
        "2",
        "--out",
    ]);
    run(python.arg(&shares).arg("--").args(SWEEP))?;
    let variants: Vec<_> = read(&shares.join("sweep.jsonl.zst"))?.into_iter().map(|(variant, _)| variant).collect();
    if variants != whole(folder.path())? {
        return Err(format!("{variants:?}").into());
    }
    Ok(())
}

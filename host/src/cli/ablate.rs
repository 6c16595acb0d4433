//! `host ablate`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::{
    evolve::{
        ablation::{Ablation, Plan, SCHEMA, ablate},
        earlier::Earlier,
        strategy::Kind,
    },
    record::{file, sweep::Sweep},
    report,
};

/// Arguments of `host ablate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Records of sweeps, for example records/sweeps/seed-h100.jsonl.zst.
    #[arg(required = true, value_name = "RECORD")]
    records: Vec<PathBuf>,
    /// Runs of each strategy on each record.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Trials of a run.
    #[arg(long, default_value_t = 45)]
    trials: u32,
    /// Elites kept, and candidates of one generation.
    #[arg(long, default_value_t = 5)]
    population: u32,
    /// Strategies to compare.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["random", "free", "insight", "full"])]
    strategies: Vec<Kind>,
    /// Let strategies that learn start from earlier records of sweeps and journals of runs, of any problem.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    learn_from: Vec<PathBuf>,
    /// Folder of the results, ablation.json and ablation.html.
    #[arg(long, value_name = "DIR", default_value = "target/ablation")]
    out: PathBuf,
    /// Print the results as JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(args: Args) -> Result<()> {
    ensure!(args.seeds >= 1, "--seeds is 0; at least 1 is needed");
    ensure!(args.trials >= 1, "--trials is 0; at least 1 is needed");
    ensure!(args.population >= 1, "--population is 0; at least 1 is needed");
    let Args { strategies, seeds, trials, population, .. } = args;
    let plan = Plan { strategies, seeds, trials, population };
    let mut records = Vec::new();
    for path in &args.records {
        let sweep = Sweep::read(path)?;
        let earlier = Earlier::read(&args.learn_from, &sweep.header.problem)?;
        ensure!(!earlier.is_taught_by(path)?, "{}: a record cannot be both learnt from and searched", path.display());
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        eprintln!("{name}: {seeds} seeds of {} strategies on {} rows.", plan.strategies.len(), sweep.rows.len());
        records.push(ablate(&name, &sweep, &plan, &earlier).with_context(|| path.display().to_string())?);
    }
    let ablation = Ablation { schema: SCHEMA, plan, records };
    let json = serde_json::to_string_pretty(&ablation).context("the results cannot be written as JSON")?;
    let page = args.out.join("ablation.html");
    file::write(&args.out.join("ablation.json"), json.as_bytes())?;
    file::write(&page, report::ablation::page(&ablation).as_bytes())?;
    if args.json {
        println!("{json}");
    } else {
        print!("{}", report::ablation::table(&ablation));
        println!("report: {}", page.display());
    }
    Ok(())
}

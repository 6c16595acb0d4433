//! `host evolve`.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use spec::Problem;

use super::{choice::Choice, place::Place, progress, rehearsal, runs};
use crate::{
    evolve::{
        earlier::Earlier,
        engine::{Run, evolve},
        journal::Journal,
        settings::{Proposer, Settings},
        strategy,
    },
    record::file,
    report,
};

/// Arguments of `host evolve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to compute: batch, heads, length, head_dim, dtype, for example b1-h8-s512-d64-f16 or
    /// b2-hq32-hk8-s4096-d128-bf16-causal.
    #[arg(long, default_value_t = Problem::SEED, value_parser = super::problem)]
    problem: Problem,
    /// How candidates are chosen.
    #[arg(long, value_enum, default_value_t = strategy::Kind::Full)]
    strategy: strategy::Kind,
    /// Ask this program for candidates first, and choose by the strategy only what it does not name: see docs/proposer.md.
    #[arg(long, value_name = "COMMAND")]
    proposer: Option<String>,
    /// Seconds the proposer may take to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "proposer")]
    proposer_limit: u64,
    /// Distinct, valid, measured trials.
    #[arg(long, default_value_t = 45)]
    trials: u32,
    /// Elites kept, and candidates of one generation.
    #[arg(long, default_value_t = 5)]
    population: u32,
    /// Seed of everything drawn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Start from what earlier records of sweeps and journals of runs, of any problem, say of the genes. A lesson of few
    /// variants can cost more than it gives.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    learn_from: Vec<PathBuf>,
    /// Where trials run: auto, cuda:N, replay, replay:FILE or simt.
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// Numbers of the GPUs that trials run on at the same time, for example 0,1; with a replay or simt, that many of them.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    devices: Vec<u32>,
    /// A store of compiled kernels that was filled elsewhere.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The journal; in the run's folder unless named.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// The run's folder; a new one under target/evolve unless named.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the outcome as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Go on with a run that was interrupted.
    #[arg(long)]
    resume: bool,
    /// Search for so many seconds at most; a trial that is under way then is given up.
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u64>,
}

/// Runs it.
pub(super) fn run(args: Args) -> Result<()> {
    ensure!(args.trials >= 1, "--trials is 0; at least 1 is needed");
    ensure!(args.population >= 1, "--population is 0; at least 1 is needed");
    ensure!(
        args.learn_from.is_empty() || args.strategy.learns(),
        "--learn-from goes with strategies that learn, insight and full, and not with {}",
        args.strategy.name()
    );
    let earlier = Earlier::read(&args.learn_from, &args.problem)?;
    let deadline = args.time_limit.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut place = Place::open(&args.device, &args.devices, &args.problem, args.store.as_deref())?;
    let out = match args.out {
        Some(out) => out,
        None => runs::folder(&args.problem, args.resume)?,
    };
    let journal = args.journal.unwrap_or_else(|| out.join("journal.jsonl"));
    let settings = Settings {
        strategy: args.strategy,
        proposer: args.proposer.map(|command| Proposer { command, seconds: args.proposer_limit }),
        seed: args.seed,
        trials: args.trials,
        population: args.population,
        ..Settings::default()
    };
    eprintln!("{}", place.introduction);

    let bar = progress::bar(u64::from(args.trials));
    let run = Run {
        settings: &settings,
        space: &place.space,
        source: place.source.as_mut(),
        lab: place.lab.as_mut(),
        cases: &place.cases,
        earlier: &earlier,
        deadline,
        progress: &mut |event| progress::show(&bar, event),
    };
    let mut outcome = evolve(run, |header| Ok(Journal::open(&journal, header, args.resume)?))?;
    bar.finish_and_clear();
    if place.is_recorded() {
        eprintln!("Running generation 0 and the winner on the CPU machine.");
        rehearsal::rehearse(&mut outcome, &place.cases.gate);
    }

    let json = serde_json::to_string_pretty(&outcome).context("the outcome cannot be written as JSON")?;
    let page = out.join("report.html");
    file::write(&out.join("outcome.json"), json.as_bytes())?;
    file::write(&page, report::html::page(&outcome).as_bytes())?;
    if args.json {
        println!("{json}");
    } else {
        print!("{}", report::terminal::table(&outcome, &page.display().to_string()));
    }
    Ok(())
}

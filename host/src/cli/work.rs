//! `host work`: trials from a file, results to a file, for engines that share out work among machines.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use spec::Problem;

use super::{choice::Choice, place::Place};
use crate::{
    device::{Device, Failure},
    evolve::{
        settings::{Lab, Peers},
        sweep::{Plan, Summary, sweep},
    },
    record::trials::Trials,
};

/// Arguments of `host work`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Trials, as `host sweep --split` writes them.
    #[arg(long = "in", value_name = "FILE")]
    trials: PathBuf,
    /// Results: a record of these trials. It appears once it is whole.
    #[arg(long = "out", value_name = "FILE")]
    results: PathBuf,
    /// Where trials run: auto, cuda:N, replay, replay:FILE or simt.
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// A store of compiled kernels that was filled elsewhere.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

/// Runs it.
pub(super) fn run(args: Args) -> Result<()> {
    let trials = Trials::read(&args.trials)?;
    ensure!(trials.rounds >= 6, "{}: rounds is {}; at least 6 are needed", args.trials.display(), trials.rounds);
    let mut place = Place::open(&args.device, &[], &trials.problem, args.store.as_deref())?;
    eprintln!("{}", place.introduction);
    let plan = Plan {
        space: &place.space,
        variants: &trials.variants,
        part: trials.part.clone(),
        cases: &place.cases,
        rounds: trials.rounds,
        seed: trials.seed,
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        again: false,
        deadline: None,
        out: &args.results,
    };
    let mut lab = Alone(place.lab.as_mut());
    let Summary { measured, failed, .. } = sweep(&plan, place.source.as_mut(), &mut lab, &mut |_| ())?;
    println!("{}: {measured} variants measured, {failed} failed", args.results.display());
    Ok(())
}

/// A lab for one share of a sweep: others need not be timed in each.
struct Alone<'a>(&'a mut dyn Lab);

impl Lab for Alone<'_> {
    fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
        self.0.open()
    }

    fn peers(&mut self, _: &Problem) -> Peers {
        Peers::default()
    }
}

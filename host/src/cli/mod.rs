//! The command line: arguments, then a validated plan, then the run.
//!
//! Exit codes: 0 done, 1 not done for the reason given in one line, 2 arguments that are not understood.

mod ablate;
mod attend;
mod bench;
mod choice;
mod evolve;
mod place;
mod progress;
mod record;
mod rehearsal;
mod runs;
mod sweep;
mod verify;
mod work;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Attention kernels in Rust: choose the fastest correct one, and prove it.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attend with Q to K and V from safetensors files.
    Attend(attend::Args),
    /// Search the fastest correct kernel for a problem.
    Evolve(evolve::Args),
    /// Measure many variants of a problem and keep them as a record.
    Sweep(sweep::Args),
    /// Time the recorded variants, or given ones, on suites of shapes: one line of JSON each.
    Bench(bench::Args),
    /// Compare the strategies over many seeds on records of sweeps.
    Ablate(ablate::Args),
    /// Measure the trials in a file and write the results to a file: a sweep's share of a cluster's machine.
    Work(work::Args),
    /// Join records of sweeps, turn them into other formats and back; write README's table of a bench.
    #[command(subcommand)]
    Record(record::Command),
    /// Check dispatch records again: their schema, GPU and code, and what they run, for correctness and speed.
    Verify(verify::Args),
    /// Serve a device on standard input and output; other commands start it.
    #[command(hide = true)]
    Worker(worker::Args),
}

/// Runs the program on its arguments.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Attend(args) => attend::run(args),
        Command::Evolve(args) => evolve::run(args),
        Command::Sweep(args) => sweep::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Ablate(args) => ablate::run(args),
        Command::Work(args) => work::run(args),
        Command::Record(command) => record::run(command),
        Command::Verify(args) => verify::run(args),
        Command::Worker(args) => worker::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A problem on the command line.
fn problem(text: &str) -> Result<spec::Problem, String> {
    text.parse::<spec::Problem>().map_err(|error| error.to_string())
}

//! The project's chores; one verb per file, thin over `builder`.

use clap::{Parser, Subcommand};

mod build_ptx;
mod check_ptx;
mod ci;
mod doctor;
mod package;
mod selection;
mod setup;
mod stranger;
mod test;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's chores")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch the kernel toolchain and ptxas into target/, where they are not here already.
    Setup,
    /// Compile kernels to PTX; only those that changed.
    BuildPtx(build_ptx::Arguments),
    /// Check compiled kernels without a GPU: local memory, calls, registers, serialisation, dead genes.
    CheckPtx(check_ptx::Arguments),
    /// Say what is here, what is missing and what to do about it.
    Doctor,
    /// Copy what the crates consist of, for a crate that depends on them by path.
    Package(package::Arguments),
    /// Build the example crate outside the workspace from a packaged copy, and run it.
    Stranger,
    /// Format, lints, all tests, PTX and catalog checks.
    Test(test::Arguments),
    /// Everything `test --setup` does, and whether a second build gives the same bytes.
    Ci,
}

fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false).with_level(false).init();
    let done = match Arguments::parse().verb {
        Verb::Setup => setup::run(),
        Verb::BuildPtx(arguments) => build_ptx::run(&arguments),
        Verb::CheckPtx(arguments) => check_ptx::run(&arguments),
        Verb::Doctor => doctor::run(),
        Verb::Package(arguments) => package::run(&arguments),
        Verb::Stranger => stranger::run().map(|no_gpu| no_gpu.into_iter().for_each(|line| println!("{line}"))),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Ci => ci::run(),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

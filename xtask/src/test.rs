//! `test`: everything a change must pass, on a machine with or without a GPU and a kernel toolchain.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use builder::{CatalogState, Library};
use clap::Args;

use crate::selection::Selection;
use crate::{check_ptx, setup, stranger};

/// Kernels of each family and target that are compiled and checked.
const PTX_SAMPLE: usize = 6;

#[derive(Args)]
pub(crate) struct Arguments {
    /// First fetch what is missing, as `setup` does.
    #[arg(long)]
    pub(crate) setup: bool,
}

/// How a step went.
enum Outcome {
    Passed,
    Ignored(String),
}

/// Counts over all steps, those of cargo's own tests included.
#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    ignored: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    if arguments.setup {
        println!("==> setup");
        // Only kernels from source need it; whoever cannot have it tests the rest.
        if let Err(error) = setup::run() {
            println!("kernels cannot be compiled here: {error:#}");
        }
    }
    let mut tally = Tally::default();
    tally.step("format", || cargo(&["fmt", "--all", "--check"]));
    tally.step("lints", || cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]));
    let tests = tally.tests();
    tally.step("tests", || tests);
    tally.step("compiled kernels", compiled_kernels);
    tally.step("catalog", catalog);
    tally.step("a stranger's crate", strangers_crate);

    let Tally { passed, failed, ignored } = tally;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out; finished in {seconds:.2}s"
    );
    ensure!(failed == 0, "{failed} failed");
    Ok(())
}

impl Tally {
    fn step(&mut self, name: &str, run: impl FnOnce() -> Result<Outcome>) {
        println!("==> {name}");
        match run() {
            Ok(Outcome::Passed) => {
                self.passed += 1;
                println!("test {name} ... ok");
            }
            Ok(Outcome::Ignored(reason)) => {
                self.ignored += 1;
                println!("test {name} ... ignored, {reason}");
            }
            Err(error) => {
                self.failed += 1;
                println!("test {name} ... FAILED: {error:#}");
            }
        }
    }

    /// Runs cargo's tests, optimised: the CPU machine executes whole kernels. Passes their output on and counts.
    fn tests(&mut self) -> Result<Outcome> {
        let mut child = Command::new(program())
            .args(["test", "--workspace", "--release", "--no-fail-fast"])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run cargo")?;
        let output = child.stdout.take().context("cargo has no output")?;
        for line in BufReader::new(output).lines() {
            let line = line.context("cannot read cargo's output")?;
            println!("{line}");
            self.add(&line);
        }
        let status = child.wait().context("cannot wait for cargo")?;
        ensure!(status.success(), "cargo test: {status}");
        Ok(Outcome::Passed)
    }

    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; other lines say nothing.
    fn add(&mut self, line: &str) {
        if !line.starts_with("test result: ") {
            return;
        }
        let count = |unit: &str| {
            let number = line.split_once(unit)?.0.rsplit(' ').next()?;
            number.parse::<u32>().ok()
        };
        self.passed += count(" passed").unwrap_or(0);
        self.failed += count(" failed").unwrap_or(0);
        self.ignored += count(" ignored").unwrap_or(0);
    }
}

fn cargo(arguments: &[&str]) -> Result<Outcome> {
    let status = Command::new(program()).args(arguments).status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {}: {status}", arguments[0]);
    Ok(Outcome::Passed)
}

pub(crate) fn program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn compiled_kernels() -> Result<Outcome> {
    let library = Library::open()?;
    if let Err(error) = library.toolchain() {
        return Ok(Outcome::Ignored(error.to_string()));
    }
    let selection = Selection::sample(PTX_SAMPLE);
    check_ptx::check(&library, &selection, false)?;
    for sm in selection.targets() {
        library.fixtures_ptx(sm)?;
    }
    Ok(Outcome::Passed)
}

fn catalog() -> Result<Outcome> {
    let library = Library::open()?;
    match library.check_catalog()? {
        CatalogState::Same { kernels } => println!("{kernels} kernels of the catalog compile to its very bytes"),
        CatalogState::Unbuilt { reason } => {
            println!("the catalog is whole and of these sources; not rebuilt: {reason}")
        }
        CatalogState::OtherCompiler { objections } => {
            println!("warning: the catalog was made by another compiler, so bytes are not compared");
            if !objections.is_empty() {
                bail!("compiled here, its kernels take more than it says: {}", objections.join("; "));
            }
        }
    }
    Ok(Outcome::Passed)
}

fn strangers_crate() -> Result<Outcome> {
    if let Some(line) = stranger::run()? {
        println!("it was built from a packaged copy, and says: {line}");
    }
    Ok(Outcome::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_cargo_are_added() {
        let mut tally = Tally::default();
        tally.add("test a::b ... ok");
        tally.add("test result: ok. 33 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 5.99s");
        tally.add("test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        assert_eq!((tally.passed, tally.failed, tally.ignored), (34, 1, 2));
    }
}

//! `check-ptx`: what can be said of kernels without a GPU.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use builder::check::{GenePairs, objections};
use builder::{Library, Machine, space};
use clap::Args;
use spec::{DeviceLimits, Family, Problem, Sm};

use crate::selection::Selection;

/// Enough to see what a family is like, few enough for every change.
const SAMPLE: usize = 20;
/// Pairs of variants that show whether a gene reaches anything.
const PAIRS: usize = 3;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Count spills, stack frames and ptxas's remarks as errors.
    #[arg(long)]
    strict: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let library = Library::open()?;
    check(&library, &arguments.selection.or_sample(SAMPLE), arguments.strict)
}

/// Prints what it finds; `Err` with the number of errors if there are any.
pub(crate) fn check(library: &Library, selection: &Selection, strict: bool) -> Result<()> {
    if library.ptxas().is_none() {
        println!("there is no ptxas: registers, spills and remarks go unchecked (`cargo xtask setup` fetches it)");
    }
    let mut errors = 0;
    for sm in selection.targets() {
        errors += kernels(library, selection, sm, strict)?;
        for family in selection.families().into_iter().filter(|family| family.runs_on(sm)) {
            let limits = DeviceLimits::of(sm);
            let has_variants = |problem: &&Problem| space::variants(problem, family, &limits).next().is_some();
            // A gene that shows itself in one space is alive.
            if let Some(problem) = selection.problems().iter().find(has_variants) {
                errors += genes(library, problem, family, sm, selection.seed())?;
            }
        }
    }
    ensure!(errors == 0, "{errors} errors in compiled kernels");
    Ok(())
}

fn kernels(library: &Library, selection: &Selection, sm: Sm, strict: bool) -> Result<usize> {
    let kernels = selection.kernels(sm)?;
    let (mut clean, mut errors) = (0, 0);
    let mut objected: BTreeMap<String, usize> = BTreeMap::new();
    let mut machines: Vec<Machine> = Vec::new();
    for result in library.ptx(&kernels, sm) {
        match result {
            Ok(artifact) => {
                machines.extend(artifact.facts.as_ref().and_then(|facts| facts.machine));
                match objections(&artifact).as_slice() {
                    [] => clean += 1,
                    found => {
                        let line = found.join("; ");
                        if strict {
                            println!("error: {sm} {}: {line}", artifact.kernel);
                            errors += 1;
                        }
                        *objected.entry(line).or_default() += 1;
                    }
                }
            }
            Err(error) if error.is_of_one_kernel() => {
                println!("error: {sm} {error}");
                errors += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!("{sm}: {} kernels, {clean} without objection", kernels.len());
    for (line, count) in objected.iter().filter(|_| !strict) {
        println!("  {count} kernels: {line}");
    }
    if !machines.is_empty() {
        let most = |of: fn(&Machine) -> u32| machines.iter().map(of).max().unwrap_or_default();
        println!(
            "  main loops of {} on warpgroups: at most {} instructions, {} moves, {} spills",
            machines.len(),
            most(|machine| machine.loop_instructions),
            most(|machine| machine.loop_moves),
            most(|machine| machine.loop_spills),
        );
    }
    Ok(errors)
}

fn genes(library: &Library, problem: &Problem, family: Family, sm: Sm, seed: u64) -> Result<usize> {
    let pairs = GenePairs::draw(problem, family, sm, PAIRS, seed);
    let dead = pairs.dead(library)?;
    for (gene, compared) in &dead {
        println!("error: {sm} {family}: gene {} changes nothing in {compared} pairs of variants", gene.name());
    }
    println!("{sm} {family}: {} genes, {} dead", family.domains().len(), dead.len());
    Ok(dead.len())
}

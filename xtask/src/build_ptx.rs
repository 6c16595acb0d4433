//! `build-ptx`: kernels to PTX, into the project's store, one for another machine, or the catalog.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use builder::{Library, PtxArtifact};
use clap::Args;
use spec::Sm;

use crate::selection::Selection;

/// Enough of each family and target for an evolution without a compiler.
const CATALOG_SAMPLE: usize = 60;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Keep the result in this folder, to be carried to a machine that has no Rust: `host evolve --store DIR` reads it.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Write the shipped catalog anew from these kernels.
    #[arg(long, conflicts_with = "store")]
    catalog: bool,
    /// With --catalog, compile only what the catalog does not have of the same sources: minutes instead of half an hour.
    #[arg(long, requires = "catalog")]
    extend: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut library = Library::open()?;
    if let Some(folder) = &arguments.store {
        library = library.keeping_in(folder);
    }
    // Compiled afresh and in its own batches, so that a check can repeat it.
    let scratch = tempfile::tempdir().context("cannot create a folder for the catalog's kernels")?;
    if arguments.catalog {
        library = library.keeping_in(scratch.path()).for_catalog();
    }
    let selection =
        if arguments.catalog { arguments.selection.for_catalog(CATALOG_SAMPLE) } else { arguments.selection.clone() };
    let mut artifacts = Vec::new();
    for sm in selection.targets() {
        if arguments.extend {
            let taken = library.take_up_catalog(sm)?;
            println!("{sm}: {taken} kernels are in the catalog");
        }
        artifacts.extend(build(&library, &selection, sm)?);
        if arguments.store.is_some() {
            // For the tests of machine and device, which a machine without Rust runs too.
            library.probes_ptx(sm)?;
            library.fixtures_ptx(sm)?;
        }
    }
    if arguments.catalog {
        let size = library.ship(&artifacts)?;
        println!("catalog: {} kernels in {:.1} MB", artifacts.len(), size as f64 / 1e6);
    }
    Ok(())
}

fn build(library: &Library, selection: &Selection, sm: Sm) -> Result<Vec<PtxArtifact>> {
    let kernels = selection.kernels(sm)?;
    let missing = library.missing(&kernels, sm)?.len();
    let begun = Instant::now();
    let (mut built, mut refused) = (Vec::new(), 0);
    for result in library.ptx(&kernels, sm) {
        match result {
            Ok(artifact) => built.push(artifact),
            Err(error) if error.is_of_one_kernel() => {
                refused += 1;
                println!("refused: {sm} {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let modules: std::collections::BTreeSet<_> = built.iter().map(|artifact| &artifact.sha256).collect();
    let state = match missing {
        0 => "nothing to do".to_owned(),
        _ => format!("{missing} compiled in {:.1} s", begun.elapsed().as_secs_f64()),
    };
    let kept = library.store().root().display();
    println!("{sm}: {} kernels, {} modules, {refused} refused; {state} ({kept})", built.len(), modules.len());
    Ok(built)
}

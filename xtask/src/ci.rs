//! `ci`: `test --setup`, then whether building twice gives the same bytes.

use anyhow::{Context, Result, ensure};
use builder::Library;

use crate::selection::Selection;
use crate::test;

/// Kernels of each family and target that are built twice.
const SAMPLE: usize = 4;

pub(crate) fn run() -> Result<()> {
    test::run(&test::Arguments { setup: true })?;
    // Both builds start from nothing: what the project's store holds was compiled in other batches, which can show.
    let scratch = tempfile::tempdir().context("cannot create a folder for the two builds")?;
    let [first, second] = ["first", "second"].map(|folder| scratch.path().join(folder));
    let (library, again) = (Library::open()?.keeping_in(&first), Library::open()?.keeping_in(&second));
    let selection = Selection::sample(SAMPLE);
    for sm in selection.targets() {
        let kernels = selection.kernels(sm)?;
        for (first, second) in library.ptx(&kernels, sm).into_iter().zip(again.ptx(&kernels, sm)) {
            let (first, second) = (first?, second?);
            ensure!(first.sha256 == second.sha256, "{sm} {}: two builds gave different PTX", first.kernel);
        }
        println!("{sm}: {} kernels built twice, to the same bytes", kernels.len());
    }
    Ok(())
}

//! `setup`: the kernel toolchain and ptxas.

use anyhow::Result;
use builder::{Project, setup};

pub(crate) fn run() -> Result<()> {
    let project = Project::find()?;
    let toolchain = setup::toolchain(&project)?;
    println!("kernels: {} ({})", toolchain.version().summary(), toolchain.rustc().display());
    // Kernels build and run without it; only what it says of them is then unknown.
    match setup::assembler(&project) {
        Ok(ptxas) => println!("ptxas:   {} ({})", ptxas.version(), ptxas.program().display()),
        Err(error) => println!("ptxas:   none, kernels go unchecked: {error}"),
    }
    Ok(())
}

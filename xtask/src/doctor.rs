//! `doctor`: what is here, what is missing, what to do.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use builder::{Library, Project, Toolchain};
use spec::Sm;

pub(crate) fn run() -> Result<()> {
    let project = Project::find()?;
    println!("project    {}", project.root().display());
    println!("host       {}", host_compiler());

    let (toolchain, passed_over) = Toolchain::search(&project)?;
    match &toolchain {
        Some(toolchain) => println!("kernels    {} ({})", toolchain.version().summary(), toolchain.rustc().display()),
        None => println!("kernels    no toolchain: run `cargo xtask setup`; without it the catalog serves"),
    }
    for passed_over in passed_over {
        println!("           passed over {}: {}", passed_over.rustc.display(), passed_over.reason);
    }

    let library = Library::open()?;
    match library.ptxas() {
        Some(ptxas) => println!("ptxas      {} ({})", ptxas.version(), ptxas.program().display()),
        None => println!("ptxas      none: run `cargo xtask setup`; without it registers and spills are unknown"),
    }
    println!("catalog    {}", catalog(&library));
    for sm in Sm::ALL {
        println!("           {sm}: {} kernels at hand without compiling", library.available(sm)?.len());
    }
    println!("GPU        {}", driver());
    Ok(())
}

fn host_compiler() -> String {
    match Command::new("rustc").arg("-V").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => format!("no rustc on PATH ({error}): install rustup from https://rustup.rs"),
    }
}

fn catalog(library: &Library) -> String {
    let made_by = |catalog: &builder::Catalog| catalog.manifest().toolchain.summary().to_owned();
    match (library.catalog(), library.fresh_catalog()) {
        (None, _) => "none: `cargo xtask build-ptx --catalog` writes it".to_owned(),
        (Some(_), None) => "of other sources than these: `cargo xtask build-ptx --catalog` writes it anew".to_owned(),
        (Some(catalog), Some(_)) => format!("made of these sources by {}", made_by(catalog)),
    }
}

fn driver() -> String {
    let version = Path::new("/proc/driver/nvidia/version");
    match std::fs::read_to_string(version) {
        Ok(text) => text.lines().next().unwrap_or_default().trim_start_matches("NVRM version: ").to_owned(),
        Err(_) => "no NVIDIA driver: evolve replays its record and runs kernels on the CPU machine".to_owned(),
    }
}

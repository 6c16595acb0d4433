//! The example crate outside the workspace, built from a packaged copy and run without any of the project's files.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use builder::Project;

use crate::package::{copy, copy_file};

/// The example's exit code where there is no GPU.
const NO_GPU: i32 = 3;
/// The example's files.
const FILES: [&str; 3] = ["Cargo.toml", ".cargo/config.toml", "src/main.rs"];

/// Builds and runs it; `Ok(Some(line))` where there is no GPU, with the line in which it says so.
pub(crate) fn run() -> Result<Option<String>> {
    let project = Project::find()?;
    let target = project.target().join("stranger");
    // Always the same place, or cargo would compile the copies anew.
    let place = target.join("crate");
    let evoattn = place.join("evoattn");
    remove(&evoattn)?;
    for file in FILES {
        copy_file(&project.root().join("examples/stranger").join(file), &place.join(file))?;
    }
    copy(&evoattn)?;
    // The versions that the project is tested with.
    copy_file(&project.root().join("Cargo.lock"), &place.join("Cargo.lock"))?;

    let elsewhere = std::env::temp_dir();
    let mut build = Command::new(crate::test::program());
    // From outside the project, whose settings cargo would find otherwise; the example's own are named instead.
    build.current_dir(&elsewhere).env_remove("CUDA_LIBRARY_PATH").arg("--config").arg(place.join(FILES[1]));
    build.args(["build", "--quiet", "--manifest-path"]).arg(place.join(FILES[0]));
    build.env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0");
    let status = build.status().context("cannot run cargo")?;
    ensure!(status.success(), "the stranger's example does not build: {status}");

    remove(&evoattn)?;
    let program = target.join("debug/stranger");
    let output = Command::new(&program).current_dir(&elsewhere).env_remove("EVOATTN_ROOT").output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    match output.status.code() {
        Some(0) => {
            print!("{}", String::from_utf8_lossy(&output.stdout));
            Ok(None)
        }
        Some(NO_GPU) if !said.is_empty() && !said.contains('\n') => Ok(Some(said)),
        _ => bail!("the stranger's example ends with {}: {said}", output.status),
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

//! `package`: a copy of what the crates consist of, for a crate that depends on them by path.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use builder::Project;
use clap::Args;
use serde_json::Value;

/// Files that all crates share: the manifest, the versions and the licences that it names.
const SHARED: [&str; 4] = ["Cargo.toml", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"];

#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to; the folder must be empty or absent.
    folder: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = &arguments.folder;
    let empty = fs::read_dir(folder).map_or(true, |mut files| files.next().is_none());
    ensure!(empty, "{} is not empty", folder.display());
    copy(folder)
}

/// Copies the files that cargo would package of each crate, and what they share.
pub(crate) fn copy(folder: &Path) -> Result<()> {
    let project = Project::find()?;
    let metadata: Value = serde_json::from_slice(&cargo(&project, &["metadata", "--no-deps", "--format-version=1"])?)?;
    let crates = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    for package in crates {
        let text = |key: &str| package[key].as_str().with_context(|| format!("cargo metadata has no {key}"));
        let (name, manifest) = (text("name")?, Path::new(text("manifest_path")?));
        let root = manifest.parent().context("a manifest without a folder")?;
        let place = folder.join(root.strip_prefix(project.root()).context("a crate outside the project")?);
        let list = cargo(&project, &["package", "--quiet", "--list", "--allow-dirty", "--package", name])?;
        // The list also names what packaging would generate.
        for file in String::from_utf8(list)?.lines().filter(|file| root.join(file).is_file()) {
            copy_file(&root.join(file), &place.join(file))?;
        }
    }
    SHARED.iter().try_for_each(|file| copy_file(&project.root().join(file), &folder.join(file)))
}

pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let copy = || -> io::Result<()> {
        fs::copy(from, to)?;
        // By this cargo tells what has changed since it last compiled the copy.
        File::open(to)?.set_modified(fs::metadata(from)?.modified()?)
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn cargo(project: &Project, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(crate::test::program()).current_dir(project.root()).args(arguments).output();
    let output = output.context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {}: {}", arguments[0], said.trim_end());
    Ok(output.stdout)
}

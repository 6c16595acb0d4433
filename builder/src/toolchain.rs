//! Finds a rustc that can compile kernels: one that has its own library source, so that `core` can be built for the GPU.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::files::list;
use crate::process::stdout;
use crate::{BuildError, Project};

/// The oldest release whose NVPTX backend the kernels are written for.
pub(crate) const OLDEST: (u32, u32) = (1, 96);

/// What compiled some PTX, as records name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolchainVersion {
    /// `rustc -vV`.
    pub rustc: String,
    /// File names of the distribution packages it was unpacked from; empty elsewhere.
    pub packages: Vec<String>,
}

impl ToolchainVersion {
    /// Whether both make the same PTX of the same sources. Packages only say where a compiler came from.
    pub fn same_compiler(&self, other: &Self) -> bool {
        self.rustc == other.rustc
    }

    /// The first line of `rustc -vV`.
    pub fn summary(&self) -> &str {
        self.rustc.lines().next().unwrap_or_default()
    }
}

/// A rustc with its own library source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    rustc: PathBuf,
    libraries: Option<PathBuf>,
    version: ToolchainVersion,
}

/// A rustc that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// The program.
    pub rustc: PathBuf,
    /// Why not.
    pub reason: String,
}

impl Toolchain {
    /// The first usable one of: `EVOATTN_RUSTC`, what `setup` unpacked, rustup's toolchains, `rustc` on `PATH`.
    pub fn find(project: &Project) -> Result<Self, BuildError> {
        let (found, passed_over) = Self::search(project)?;
        found.ok_or_else(|| {
            let seen: Vec<_> = passed_over.iter().map(|p| format!("{} {}", p.rustc.display(), p.reason)).collect();
            let reason = if seen.is_empty() { "no rustc found".to_owned() } else { seen.join(", ") };
            BuildError::NoToolchain { reason, remedy: "run `cargo xtask setup`" }
        })
    }

    /// Like [`Toolchain::find`], with what was passed over on the way.
    pub fn search(project: &Project) -> Result<(Option<Self>, Vec<PassedOver>), BuildError> {
        if let Some(rustc) = std::env::var_os("EVOATTN_RUSTC") {
            // Who names a compiler wants that one and no other.
            return Ok(match Self::probe(Path::new(&rustc), &[]) {
                Ok(toolchain) => (Some(toolchain), Vec::new()),
                Err(passed_over) => (None, vec![passed_over]),
            });
        }
        let unpacked = unpacked_root(project).join("usr/bin/rustc");
        let packages = unpacked_packages(project)?;
        let mut candidates = Vec::new();
        if unpacked.is_file() {
            candidates.push((unpacked, packages));
        }
        candidates.extend(rustup_toolchains()?.into_iter().map(|rustc| (rustc, Vec::new())));
        candidates.extend(on_path("rustc").map(|rustc| (rustc, Vec::new())));

        let mut passed_over = Vec::new();
        for (rustc, packages) in candidates {
            match Self::probe(&rustc, &packages) {
                Ok(toolchain) => return Ok((Some(toolchain), passed_over)),
                Err(reason) => passed_over.push(reason),
            }
        }
        Ok((None, passed_over))
    }

    fn probe(rustc: &Path, packages: &[String]) -> Result<Self, PassedOver> {
        let pass_over = |reason: String| PassedOver { rustc: rustc.to_owned(), reason };
        let libraries = driver_libraries(rustc);
        let mut toolchain = Self {
            rustc: rustc.to_owned(),
            libraries,
            version: ToolchainVersion { rustc: String::new(), packages: packages.to_vec() },
        };
        let ask = |argument: &[&str]| {
            stdout(toolchain.command(rustc).args(argument)).map_err(|error| pass_over(error.to_string()))
        };
        let version = ask(&["-vV"])?;
        let release = release(&version).ok_or_else(|| pass_over("does not say its release".to_owned()))?;
        if release < OLDEST {
            let (major, minor) = OLDEST;
            return Err(pass_over(format!("is {}.{}, older than {major}.{minor}", release.0, release.1)));
        }
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim_end());
        if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
            return Err(pass_over("has no library source (component rust-src)".to_owned()));
        }
        toolchain.version.rustc = version.trim_end().to_owned();
        Ok(toolchain)
    }

    /// The program.
    pub fn rustc(&self) -> &Path {
        &self.rustc
    }

    /// What it is.
    pub fn version(&self) -> &ToolchainVersion {
        &self.version
    }

    /// One that fails whatever it is asked.
    #[cfg(test)]
    pub(crate) fn broken() -> Self {
        let version = ToolchainVersion { rustc: "rustc 1.96.0".to_owned(), packages: Vec::new() };
        Self { rustc: PathBuf::from("/bin/false"), libraries: None, version }
    }

    /// A program that itself runs this rustc or is it, with what it needs to start.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// Where `setup` unpacks the distribution's packages.
pub(crate) fn unpacked_root(project: &Project) -> PathBuf {
    project.target().join("toolchain/root")
}

/// Where `setup` keeps the packages it fetched.
pub(crate) fn package_folder(project: &Project) -> PathBuf {
    project.target().join("toolchain/debs")
}

fn unpacked_packages(project: &Project) -> Result<Vec<String>, BuildError> {
    let names = list(&package_folder(project))?;
    Ok(names.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
}

/// A rustc that was unpacked rather than installed does not find its own libraries.
fn driver_libraries(rustc: &Path) -> Option<PathBuf> {
    let lib = rustc.parent()?.parent()?.join("lib");
    let holds_driver = |folder: &PathBuf| {
        list(folder).is_ok_and(|files| {
            files.iter().any(|f| f.file_name().is_some_and(|n| n.to_string_lossy().starts_with("librustc_driver")))
        })
    };
    list(&lib).ok()?.into_iter().filter(|path| path.is_dir()).find(holds_driver)
}

fn rustup_toolchains() -> Result<Vec<PathBuf>, BuildError> {
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup")));
    let Some(home) = home else { return Ok(Vec::new()) };
    let toolchains = list(&home.join("toolchains"))?;
    Ok(toolchains.into_iter().map(|folder| folder.join("bin/rustc")).filter(|rustc| rustc.is_file()).collect())
}

/// The first program of this name on `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

fn release(version: &str) -> Option<(u32, u32)> {
    version.lines().find_map(|line| line.strip_prefix("release: ")).and_then(major_and_minor)
}

/// The first two numbers of a version such as `1.96.0` or `1.96.0+dfsg1-1`.
pub(crate) fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-', '+']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(release("rustc 1.96.0 (x)\nrelease: 1.96.0\n"), Some((1, 96)));
        assert_eq!(release("release: 1.100.3-nightly"), Some((1, 100)));
        assert_eq!(release("release: new"), None);
    }

    #[test]
    fn what_is_no_rustc_is_passed_over_with_the_reason() {
        let passed_over = Toolchain::probe(Path::new("/nonexistent/rustc"), &[]).unwrap_err();
        assert!(passed_over.reason.starts_with("/nonexistent/rustc: "), "{}", passed_over.reason);
        let passed_over = Toolchain::probe(Path::new("/bin/true"), &[]).unwrap_err();
        assert_eq!(passed_over.reason, "does not say its release");
    }
}

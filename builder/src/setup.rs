//! Fetches what compiles kernels, without root and without touching the user's system.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::files::list;
use crate::process::stdout;
use crate::toolchain::{OLDEST, major_and_minor, on_path, package_folder, unpacked_root};
use crate::{BuildError, Project, Ptxas, Toolchain};

/// Debian's packages of a rustc with its library source. Which version they have is Debian's choice.
const PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];
/// Those of their dependencies that the compiler cannot do without; the rest is on any system or not needed here.
const NEEDED_DEPENDENCIES: [&str; 2] = ["libstd-rust-web", "libllvm"];
/// What to do where apt cannot help.
const BY_RUSTUP: &str =
    "run `rustup toolchain install 1.96.0 --component rust-src`, or set EVOATTN_RUSTC to a rustc that has rust-src";
/// ptxas and, for looking at its machine code, the disassembler.
const ASSEMBLER_WHEELS: [&str; 3] = ["nvidia-cuda-nvcc", "nvidia-cuda-nvdisasm", "nvidia-cuda-cuobjdump"];

/// The kernel toolchain: one that is here already, else Debian's, unpacked under `target/`. `Err` says what to run
/// where neither is to be had.
pub fn toolchain(project: &Project) -> Result<Toolchain, BuildError> {
    let reason = match Toolchain::find(project) {
        Err(BuildError::NoToolchain { reason, .. }) => reason,
        found_or_failed => return found_or_failed,
    };
    let by_hand = |reason: String| BuildError::NoToolchain { reason, remedy: BY_RUSTUP };
    if std::env::var_os("EVOATTN_RUSTC").is_some() {
        return Err(by_hand(format!("EVOATTN_RUSTC names {reason}")));
    }
    if on_path("apt-get").is_none() || on_path("dpkg").is_none() {
        return Err(by_hand(format!("{reason}, and there is no apt to fetch one with")));
    }
    unpack_debian(project).map_err(|error| by_hand(format!("{reason}, and {error}")))?;
    Toolchain::find(project)
}

/// ptxas: one that is here already, else PyPI's, unpacked under `target/`.
pub fn assembler(project: &Project) -> Result<Ptxas, BuildError> {
    if let Some(found) = Ptxas::find(project)? {
        return Ok(found);
    }
    let folder = project.target().join("ptxas");
    let partial = fresh(&project.target().join("ptxas.partial"))?;
    stdout(
        Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&partial)
            .args(ASSEMBLER_WHEELS),
    )?;
    replace(&partial, &folder)?;
    Ptxas::find(project)?.ok_or_else(|| BuildError::Tool {
        tool: "pip".to_owned(),
        reason: format!("{} brought no ptxas", ASSEMBLER_WHEELS[0]),
    })
}

fn unpack_debian(project: &Project) -> Result<(), BuildError> {
    let debs = fresh(&package_folder(project))?;
    let apt = Apt::open(project)?;
    let packages = apt.with_dependencies(&PACKAGES)?;
    tracing::info!("fetching {}", packages.join(" "));
    stdout(apt.command("apt-get").arg("download").args(&packages).current_dir(&debs))?;

    let root = unpacked_root(project);
    let partial = fresh(&root.with_extension("partial"))?;
    for deb in list(&debs)? {
        stdout(Command::new("dpkg").arg("-x").arg(&deb).arg(&partial))?;
    }
    replace(&partial, &root)
}

/// apt with the system's package lists, or where they do not know the packages, or only older ones than kernels need
/// (lists age), with lists of the project's own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn open(project: &Project) -> Result<Self, BuildError> {
        let system = Self { options: Vec::new() };
        if system.offers_new_enough(PACKAGES[0]) {
            return Ok(system);
        }
        let folder = project.target().join("toolchain/apt");
        for inner in ["lists/partial", "cache/archives/partial"] {
            let inner = folder.join(inner);
            fs::create_dir_all(&inner).map_err(BuildError::io("create", &inner))?;
        }
        let option = |name: &str, inner: &str| format!("-o{name}={}", folder.join(inner).display());
        // Without the user apt would drop to, which cannot write here.
        let options = vec![
            option("Dir::State::Lists", "lists"),
            option("Dir::Cache", "cache"),
            "-oAPT::Sandbox::User=".to_owned(),
        ];
        let own = Self { options };
        tracing::info!("fetching package lists");
        stdout(own.command("apt-get").arg("update"))?;
        if own.offers_new_enough(PACKAGES[0]) {
            return Ok(own);
        }
        let (major, minor) = OLDEST;
        let reason =
            format!("package {} {major}.{minor} or newer is in none of the sources of this system", PACKAGES[0]);
        Err(BuildError::Tool { tool: "apt-get".to_owned(), reason })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).env("LC_ALL", "C");
        command
    }

    fn offers_new_enough(&self, package: &str) -> bool {
        stdout(self.command("apt-cache").args(["show", "--no-all-versions", package]))
            .is_ok_and(|text| offered(&text).is_some_and(|version| version >= OLDEST))
    }

    fn with_dependencies(&self, packages: &[&str]) -> Result<Vec<String>, BuildError> {
        let mut all: Vec<String> = packages.iter().map(|&package| package.to_owned()).collect();
        let mut next = 0;
        while let Some(package) = all.get(next) {
            let said = stdout(self.command("apt-cache").args(["depends", package]))?;
            for dependency in needed(&said) {
                if !all.contains(&dependency) {
                    all.push(dependency);
                }
            }
            next += 1;
        }
        Ok(all)
    }
}

/// The version of the package that `apt-cache show` describes.
fn offered(said: &str) -> Option<(u32, u32)> {
    said.lines().find_map(|line| line.strip_prefix("Version: ")).and_then(major_and_minor)
}

/// The needed ones among the dependencies that `apt-cache depends` lists.
fn needed(said: &str) -> Vec<String> {
    let depends = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    depends.filter(|name| NEEDED_DEPENDENCIES.iter().any(|start| name.starts_with(start))).map(str::to_owned).collect()
}

/// The folder, empty.
fn fresh(folder: &Path) -> Result<std::path::PathBuf, BuildError> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(BuildError::io("empty", folder))?;
    }
    fs::create_dir_all(folder).map_err(BuildError::io("create", folder))?;
    // Programs are started elsewhere: the path has to hold there too.
    folder.canonicalize().map_err(BuildError::io("find", folder))
}

/// Puts a finished folder in its place.
fn replace(finished: &Path, place: &Path) -> Result<(), BuildError> {
    if place.exists() {
        fs::remove_dir_all(place).map_err(BuildError::io("remove", place))?;
    }
    fs::rename(finished, place).map_err(BuildError::io("create", place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_own_libraries_are_needed_and_no_others() {
        let said = "rustc-web\n  Depends: libc6\n  Depends: libstd-rust-web-dev\n    libstd-rust-web-dev:i386\n  \
                    Depends: gcc\n |Depends: x\n  Recommends: llvm\n  Depends: libllvm22\n";
        assert_eq!(needed(said), ["libstd-rust-web-dev", "libllvm22"]);
    }

    #[test]
    fn the_offered_version_is_read_and_an_aged_list_is_seen_to_be_old() {
        let offer = |version: &str| offered(&format!("Package: rustc-web\nVersion: {version}\nPriority: optional\n"));
        assert!(offer("1.96.0+dfsg1-1~deb12u1").unwrap() >= OLDEST);
        assert!(offer("1.85.0+dfsg3-1~deb12u3").unwrap() < OLDEST);
        assert_eq!(offered(""), None);
    }

    #[test]
    fn a_finished_folder_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let (partial, place) = (fresh(&dir.path().join("new.partial")).unwrap(), dir.path().join("new"));
        fs::create_dir(&place).unwrap();
        fs::write(place.join("old"), "").unwrap();
        fs::write(partial.join("file"), "").unwrap();
        replace(&partial, &place).unwrap();
        assert_eq!(list(&place).unwrap(), [place.join("file")]);
        assert!(!partial.exists());
    }
}

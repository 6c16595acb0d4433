//! Runs cargo on a workspace of batches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::batch::Batch;
use crate::files::{list, read_text_if_any, sha256, write_if_changed, write_whole};
use crate::messages::{Report, first_error};
use crate::process::{output, stdout};
use crate::{BuildError, Project};

/// Flags of every PTX build but the target's name.
///
/// The linker has nothing to do, since the compiler's assembly output is the linked PTX. Without the unroll threshold
/// loops over accumulators stay loops, which puts the accumulators into local memory.
const PTX_FLAGS: &str =
    "-Ctarget-feature=+ptx83 -Clinker=/bin/true -Zunstable-options -Cllvm-args=-unroll-threshold=5000";

/// Hash of what makes PTX of sources besides the compiler: flags, profile, generated text and canonical form.
pub(crate) fn recipe() -> String {
    let parts = [PTX_FLAGS, PTX_PROFILE, &Batch::of(&[]).source(), &crate::ptx::FORM.to_string()];
    sha256(parts.join("\n").as_bytes())
}

/// What makes a library for the CPU machine of sources: the host's compiler and the profile.
pub(crate) fn simt_recipe() -> Result<String, BuildError> {
    Ok(stdout(Command::new("rustc").arg("-vV"))? + SIMT_PROFILE + &Batch::of(&[]).source())
}

/// The workspace's `ptx` profile is the same as the project's. The assembly is asked for here, since it is wanted of
/// the batches alone.
const PTX_PROFILE: &str = "\
cargo-features = [\"profile-rustflags\"]

[workspace]
resolver = \"3\"
members = [\"batches/*\"]

[profile.ptx]
inherits = \"release\"
lto = \"fat\"
codegen-units = 1
panic = \"abort\"
debug = false
overflow-checks = false
rustflags = [\"--emit=asm\"]

[profile.ptx.package.\"*\"]
rustflags = []
";

/// Kernels on the CPU machine should be fast too, but their code is generic and large: no link-time optimisation.
const SIMT_PROFILE: &str = "\
[workspace]
resolver = \"3\"
members = [\"batches/*\"]

[profile.release]
debug = \"line-tables-only\"
";

const GPU_TARGET: &str = "nvptx64-nvidia-cuda";

/// A folder in which cargo builds batches, one process at a time.
pub(crate) struct Workspace<'a> {
    project: &'a Project,
    folder: PathBuf,
    manifest: &'static str,
    /// Held while the folder is in use; the system releases it however the process ends.
    _lock: fs::File,
}

/// How one batch went.
pub(crate) enum Built {
    /// The compiler's output.
    Done(PathBuf),
    /// The compiler's first error.
    Failed(String),
}

impl<'a> Workspace<'a> {
    /// The folder of PTX builds for one target.
    pub(crate) fn ptx(project: &'a Project, target_cpu: &str) -> Result<Self, BuildError> {
        Self::open(project, target_cpu, PTX_PROFILE)
    }

    /// The folder of builds for the CPU machine.
    pub(crate) fn simt(project: &'a Project) -> Result<Self, BuildError> {
        Self::open(project, "simt", SIMT_PROFILE)
    }

    fn open(project: &'a Project, name: &str, manifest: &'static str) -> Result<Self, BuildError> {
        let folder = project.target().join("evoattn").join(name);
        fs::create_dir_all(&folder).map_err(BuildError::io("create", &folder))?;
        let path = folder.join("lock");
        let lock = fs::File::create(&path).map_err(BuildError::io("create", &path))?;
        lock.lock().map_err(BuildError::io("lock", &path))?;
        Ok(Self { project, folder, manifest, _lock: lock })
    }

    /// Compiles the batches to PTX; one result each, in their order.
    pub(crate) fn build_ptx(
        &self,
        toolchain: &crate::Toolchain,
        target_cpu: &str,
        batches: &[Batch],
    ) -> Result<Vec<Built>, BuildError> {
        let mut cargo = toolchain.command(&cargo_program());
        cargo.args(["build", "-Zbuild-std=core", "--target", GPU_TARGET, "--profile", "ptx"]);
        cargo.env("RUSTC", toolchain.rustc()).env("RUSTC_BOOTSTRAP", "1");
        cargo.env("RUSTFLAGS", format!("-Ctarget-cpu={target_cpu} {PTX_FLAGS}"));
        let output = self.folder.join("target").join(GPU_TARGET).join("ptx");
        self.build(cargo, batches, &output, |name| format!("deps/{name}.s"))
    }

    /// Compiles the batches to libraries for the CPU machine with the toolchain of the host.
    pub(crate) fn build_simt(&self, batches: &[Batch]) -> Result<Vec<Built>, BuildError> {
        let mut cargo = Command::new(cargo_program());
        cargo.args(["build", "--release"]).env_remove("RUSTC").env_remove("RUSTC_BOOTSTRAP").env_remove("RUSTFLAGS");
        let output = self.folder.join("target/release");
        let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        self.build(cargo, batches, &output, |name| format!("{prefix}{name}{suffix}"))
    }

    fn build(
        &self,
        mut cargo: Command,
        batches: &[Batch],
        output_folder: &Path,
        output_name: impl Fn(&str) -> String,
    ) -> Result<Vec<Built>, BuildError> {
        forget_batches(output_folder)?;
        let names = self.write(batches)?;
        cargo
            .current_dir(&self.folder)
            .args(["--workspace", "--keep-going", "--message-format=json"])
            .env("CARGO_TARGET_DIR", self.folder.join("target"))
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        let run = output(&mut cargo)?;
        let complaint = String::from_utf8_lossy(&run.stderr);
        let report = Report::read(&String::from_utf8_lossy(&run.stdout), &names);
        if let Some(reason) = report.elsewhere {
            return Err(BuildError::Sources { reason });
        }
        if !run.status.success() && report.errors.is_empty() && !complaint.contains("could not compile `batch_") {
            return Err(BuildError::Tool { tool: "cargo".to_owned(), reason: first_error(&complaint) });
        }
        let built = names.iter().map(|name| {
            let path = output_folder.join(output_name(name));
            // The report and the file must both say so: neither an old file nor a half-written one may pass.
            if report.done.contains(name) && path.is_file() {
                Built::Done(path)
            } else {
                Built::Failed(report.errors.get(name).cloned().unwrap_or_else(|| first_error(&complaint)))
            }
        });
        Ok(built.collect())
    }

    fn write(&self, batches: &[Batch]) -> Result<Vec<String>, BuildError> {
        let folder = self.folder.join("batches");
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(BuildError::io("empty", &folder))?;
        }
        write_if_changed(&self.folder.join("Cargo.toml"), self.manifest.as_bytes())?;
        // The same dependencies as the project's; cargo drops what is not needed and adds the batches.
        if let Some(lock) = read_text_if_any(&self.project.root().join("Cargo.lock"))? {
            write_whole(&self.folder.join("Cargo.lock"), lock.as_bytes())?;
        }
        let kernels = self.project.kernels();
        let kernels = fs::canonicalize(&kernels).map_err(BuildError::io("find", &kernels))?;
        let mut names = Vec::new();
        for (i, batch) in batches.iter().enumerate() {
            let name = format!("batch_{i}");
            write_whole(&folder.join(&name).join("Cargo.toml"), batch.manifest(&name, &kernels).as_bytes())?;
            write_whole(&folder.join(&name).join("src/lib.rs"), batch.source().as_bytes())?;
            names.push(name);
        }
        Ok(names)
    }
}

/// Removes what earlier batches left, so that nothing of theirs can be taken for a result of these.
fn forget_batches(output_folder: &Path) -> Result<(), BuildError> {
    for folder in ["", "deps", ".fingerprint"] {
        for path in list(&output_folder.join(folder))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.trim_start_matches("lib").starts_with("batch_") {
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(BuildError::io("remove", &path))?;
            }
        }
    }
    Ok(())
}

fn cargo_program() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

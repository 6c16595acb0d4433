//! Kernels to PTX or to a library, in batches; one that does not compile takes no other with it.

use std::num::NonZero;
use std::path::PathBuf;

use spec::{Kernel, Sm};

use crate::batch::Batch;
use crate::cargo::{Built, Workspace};
use crate::files::read_text;
use crate::ptx::{Launch, Module};
use crate::{BuildError, Fixture, Project, Toolchain};

/// One kernel's canonical module, or why there is none.
pub(crate) type Compiled = (Kernel, Result<String, Rejection>);

/// What is wrong with one kernel.
pub(crate) enum Rejection {
    /// It does not compile; the compiler's first error.
    Uncompilable(String),
    /// Its PTX is not what a kernel's may be.
    Refused(String),
}

/// Batches of one run of cargo for each processor: results are kept after every run, so that little is lost when the
/// process ends early.
const BATCHES_PER_PROCESSOR: usize = 4;

/// Compiles distinct kernels to one canonical PTX module each and hands them to `keep` as they come, in no particular
/// order; in at least `parallel` batches unless they would be very small. `Err` if nothing can be built, for a reason that
/// is no kernel's fault.
pub(crate) fn ptx(
    project: &Project,
    toolchain: &Toolchain,
    sm: Sm,
    kernels: &[Kernel],
    parallel: usize,
    mut keep: impl FnMut(Vec<Compiled>) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let workspace = Workspace::ptx(project, sm.name())?;
    let mut pending = Batch::share_out(kernels, parallel);
    while !pending.is_empty() {
        let later = pending.split_off(pending.len().min(BATCHES_PER_PROCESSOR * parallelism()));
        let now = pending.iter().map(|batch| batch.kernels.len()).sum::<usize>();
        let left = later.iter().map(|batch| batch.kernels.len()).sum::<usize>();
        tracing::info!("compiling {now} kernels for {sm} in {} batches, {left} to come", pending.len());
        let mut failed = Vec::new();
        for (batch, built) in pending.iter().zip(workspace.build_ptx(toolchain, sm.name(), &pending)?) {
            match (built, batch.kernels.as_slice()) {
                (Built::Done(path), kernels) => keep(split(&read_text(&path)?, kernels))?,
                (Built::Failed(reason), [kernel]) => {
                    keep(vec![(*kernel, Err(Rejection::Uncompilable(reason)))])?;
                }
                // One of them is at fault; the others are found by halves.
                (Built::Failed(_), _) => failed.extend(batch.halves()),
            }
        }
        pending = failed;
        pending.extend(later);
    }
    Ok(())
}

fn split(text: &str, kernels: &[Kernel]) -> Vec<Compiled> {
    let module = Module::parse(text);
    let entry = |kernel: &Kernel| {
        let module = module.as_ref().map_err(Clone::clone)?;
        module.entry(&kernel.symbol().to_string(), Launch::of(kernel))
    };
    kernels.iter().map(|kernel| (*kernel, entry(kernel).map_err(Rejection::Refused))).collect()
}

/// Compiles what a feature of the kernels crate exports to one PTX module, names and all.
pub(crate) fn ptx_of_feature(
    project: &Project,
    toolchain: &Toolchain,
    sm: Sm,
    feature: &'static str,
) -> Result<String, BuildError> {
    let workspace = Workspace::ptx(project, sm.name())?;
    match only(workspace.build_ptx(toolchain, sm.name(), &[Batch::of_feature(feature)])?)? {
        Built::Done(path) => read_text(&path),
        Built::Failed(reason) => Err(BuildError::Sources { reason }),
    }
}

/// Compiles each fixture to a canonical PTX module, as that of the kernel it stands in for.
pub(crate) fn ptx_of_fixtures(
    project: &Project,
    toolchain: &Toolchain,
    sm: Sm,
    fixtures: &[Fixture],
) -> Result<Vec<String>, BuildError> {
    let workspace = Workspace::ptx(project, sm.name())?;
    let batches: Vec<_> = fixtures.iter().copied().map(Batch::of_fixture).collect();
    let built = workspace.build_ptx(toolchain, sm.name(), &batches)?;
    let module = |(fixture, built): (&Fixture, Built)| {
        let kernel = fixture.kernel();
        match built {
            Built::Done(path) => Module::parse(&read_text(&path)?)
                .and_then(|module| module.entry(&kernel.symbol().to_string(), Launch::of(&kernel)))
                .map_err(|reason| BuildError::Ptx { entry: fixture.to_string(), reason }),
            Built::Failed(reason) => Err(BuildError::Sources { reason }),
        }
    };
    fixtures.iter().zip(built).map(module).collect()
}

/// Compiles each fixture to a library for the CPU machine and hands it to `keep`, before another build can replace it.
pub(crate) fn simt_of_fixtures(
    project: &Project,
    fixtures: &[Fixture],
    mut keep: impl FnMut(Fixture, PathBuf) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let workspace = Workspace::simt(project)?;
    let batches: Vec<_> = fixtures.iter().copied().map(Batch::of_fixture).collect();
    let built = workspace.build_simt(&batches)?;
    fixtures.iter().zip(built).try_for_each(|(fixture, built)| match built {
        Built::Done(path) => keep(*fixture, path),
        Built::Failed(reason) => Err(BuildError::Sources { reason }),
    })
}

/// Compiles kernels to one library for the CPU machine and hands its path to `keep`, before another build can
/// replace it.
pub(crate) fn simt<T>(
    project: &Project,
    kernels: &[Kernel],
    keep: impl FnOnce(PathBuf) -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    let workspace = Workspace::simt(project)?;
    match only(workspace.build_simt(&[Batch::of(kernels)])?)? {
        Built::Done(path) => keep(path),
        Built::Failed(reason) => Err(BuildError::Sources { reason }),
    }
}

fn only(built: Vec<Built>) -> Result<Built, BuildError> {
    let nothing = || BuildError::Tool { tool: "cargo".to_owned(), reason: "it reported no batch".to_owned() };
    built.into_iter().next().ok_or_else(nothing)
}

/// Programs worth running at a time.
pub(crate) fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

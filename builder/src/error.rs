//! Everything that can go wrong between a kernel's name and its code.

use std::path::{Path, PathBuf};

use spec::{Kernel, Sm};

/// Why something was not found, built, read or written. One line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A file operation failed.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was tried, e.g. `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// No checkout of the project is at hand.
    #[error(
        "no folder with kernels/ or catalog/ found from {} upwards; run inside the checkout or set EVOATTN_ROOT to it",
        start.display()
    )]
    NoRoot {
        /// Where the search began.
        start: PathBuf,
    },
    /// No usable compiler for kernels.
    #[error("no Rust toolchain that can compile kernels: {reason}; {remedy}")]
    NoToolchain {
        /// What was looked at or tried, and why it was not enough.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A program is absent, or failed for a reason that is not the kernel's.
    #[error("{tool}: {reason}")]
    Tool {
        /// The program.
        tool: String,
        /// What it said.
        reason: String,
    },
    /// The kernels do not compile, whichever entry is asked for.
    #[error("the kernels crate does not compile: {reason}")]
    Sources {
        /// The compiler's first error.
        reason: String,
    },
    /// One kernel does not compile.
    #[error("{kernel} does not compile: {reason}")]
    Compile {
        /// The kernel.
        kernel: Box<Kernel>,
        /// The compiler's first error.
        reason: String,
    },
    /// The compiler's PTX is not what a kernel may be.
    #[error("PTX of {entry} refused: {reason}")]
    Ptx {
        /// The entry point.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// ptxas does not take the PTX of a kernel.
    #[error("ptxas refuses {}: {reason}", module.display())]
    Assembly {
        /// The file.
        module: PathBuf,
        /// Its first complaint.
        reason: String,
    },
    /// No source of code has the kernel.
    #[error("{kernel} for {sm} is in no source: {reason}")]
    Unavailable {
        /// The kernel.
        kernel: Box<Kernel>,
        /// The target.
        sm: Sm,
        /// What was looked at, and why each did not help.
        reason: String,
    },
    /// A file holds something else than it should.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

impl BuildError {
    /// Whether one kernel is at fault, so that others can still be had.
    pub const fn is_of_one_kernel(&self) -> bool {
        matches!(self, Self::Compile { .. } | Self::Ptx { .. } | Self::Assembly { .. } | Self::Unavailable { .. })
    }

    /// For `map_err` on an operation on `path`.
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> Self + 'a {
        move |error| Self::Io { action, path: path.to_owned(), reason: error.to_string() }
    }

    /// For `map_err` on reading the contents of `path`.
    pub(crate) fn malformed<'a, E: std::fmt::Display>(path: &'a Path) -> impl Fn(E) -> Self + 'a {
        move |error| Self::Malformed { path: path.to_owned(), reason: error.to_string() }
    }
}

//! Where plans get their kernels from.

use std::fs;

use builder::{BuildError, Catalog, Entry, Library, PtxArtifact};
use spec::{Kernel, Sm};

/// A source of compiled kernels: the builder's [`Library`], which may compile them, or a [`Catalog`], which needs no files if
/// it is the one [inside this library](crate::shipped::catalog). A program may bring a source of its own.
pub trait Kernels {
    /// What is known of a kernel before its code is needed.
    type Artifact;

    /// A kernel for a target.
    ///
    /// # Errors
    ///
    /// The source does not have it.
    fn find(&self, kernel: &Kernel, sm: Sm) -> Result<Self::Artifact, BuildError>;

    /// SHA-256 of its PTX, by which records name it.
    fn sha256<'a>(&self, artifact: &'a Self::Artifact) -> &'a str;

    /// Its PTX; the entry point is [`builder::ptx::ENTRY`].
    fn ptx(&self, artifact: &Self::Artifact) -> Result<String, BuildError>;
}

impl Kernels for Library {
    type Artifact = PtxArtifact;

    fn find(&self, kernel: &Kernel, sm: Sm) -> Result<PtxArtifact, BuildError> {
        // One kernel, one answer.
        Self::ptx(self, &[*kernel], sm).swap_remove(0)
    }

    fn sha256<'a>(&self, artifact: &'a PtxArtifact) -> &'a str {
        &artifact.sha256
    }

    fn ptx(&self, PtxArtifact { path, .. }: &PtxArtifact) -> Result<String, BuildError> {
        let unreadable =
            |error: std::io::Error| BuildError::Io { action: "read", path: path.clone(), reason: error.to_string() };
        fs::read_to_string(path).map_err(unreadable)
    }
}

impl Kernels for Catalog {
    type Artifact = (Entry, Sm);

    fn find(&self, kernel: &Kernel, sm: Sm) -> Result<(Entry, Sm), BuildError> {
        let entry = self.entries(sm).find(|entry| entry.kernel == *kernel);
        let unavailable =
            || BuildError::Unavailable { kernel: Box::new(*kernel), sm, reason: "the catalog does not have it".into() };
        Ok((entry.ok_or_else(unavailable)?.clone(), sm))
    }

    fn sha256<'a>(&self, (entry, _): &'a (Entry, Sm)) -> &'a str {
        &entry.sha256
    }

    fn ptx(&self, (entry, sm): &(Entry, Sm)) -> Result<String, BuildError> {
        self.text(entry, *sm)
    }
}

//! Variants as PTX from the library: compiled here, or taken from a store or the catalog.

use std::path::Path;

use builder::{BuildError, Library, PtxArtifact, Store};
use spec::{DeviceLimits, Kernel, Problem, Sm, Variant};

use super::{
    source::{Compiled, Source},
    space::Space,
};
use crate::device::{Code, Failure};

/// PTX for one problem and target.
#[derive(Debug)]
pub struct PtxSource {
    library: Library,
    problem: Problem,
    sm: Sm,
    toolchain: String,
}

impl PtxSource {
    /// PTX of variants for `problem`, from the store in `store` first if one is named.
    pub fn open(problem: Problem, sm: Sm, store: Option<&Path>) -> Result<Self, BuildError> {
        let library = Library::open()?;
        let library = match store {
            Some(folder) => library.with_store(folder)?,
            None => library,
        };
        let toolchain = toolchain(&library, sm, store)?;
        Ok(Self { library, problem, sm, toolchain })
    }

    /// What can be had for the problem: every legal variant where kernels can be compiled, else what was compiled.
    pub fn space(&self, limits: DeviceLimits) -> Result<Space, BuildError> {
        if self.library.can_build() {
            Ok(Space::whole(self.problem, limits))
        } else {
            Ok(Space::of_kernels(self.problem, limits, &self.library.available(self.sm)?))
        }
    }

    /// The library behind it.
    pub fn library(&self) -> &Library {
        &self.library
    }
}

impl Source for PtxSource {
    fn toolchain(&self) -> String {
        self.toolchain.clone()
    }

    fn compile(&mut self, variants: &[Variant]) -> Vec<Result<Compiled, Failure>> {
        let kernels: Vec<Kernel> = variants.iter().map(|variant| variant.kernel(&self.problem)).collect();
        let compiled = |answer: Result<PtxArtifact, BuildError>| {
            let PtxArtifact { sha256, path, facts, .. } = answer.map_err(|error| Failure::Build(error.to_string()))?;
            Ok(Compiled { code: Code::Ptx { sha256: sha256.clone(), path }, sha256, facts })
        };
        self.library.ptx(&kernels, self.sm).into_iter().map(compiled).collect()
    }
}

/// The compiler behind the PTX that this library gives first.
fn toolchain(library: &Library, sm: Sm, store: Option<&Path>) -> Result<String, BuildError> {
    if let Some(folder) = store
        && let Some(index) = Store::at(folder).indexes(sm)?.first()
    {
        return Ok(index.origin().toolchain.summary().to_owned());
    }
    if library.can_build() {
        return Ok(library.toolchain()?.version().summary().to_owned());
    }
    match library.fresh_catalog() {
        Some(catalog) => Ok(catalog.manifest().toolchain.summary().to_owned()),
        None => Ok("none".to_owned()),
    }
}

//! Variants from the library: as PTX, compiled here or taken from a store or the catalog, or as a library for the CPU
//! machine.

use std::path::Path;

use builder::{BuildError, Library, PtxArtifact, Store};
use spec::{DeviceLimits, Kernel, Problem, Sm, Variant};

use super::{
    source::{Compiled, Rewrite, Source},
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
        ptx(&self.library, &kernels(&self.problem, variants), self.sm)
    }

    fn compile_rewritten(
        &mut self,
        Rewrite { family, text }: Rewrite<'_>,
        variants: &[Variant],
    ) -> Vec<Result<Compiled, Failure>> {
        match self.library.with_family_source(family, text) {
            Ok(library) => ptx(&library, &kernels(&self.problem, variants), self.sm),
            Err(error) => vec![Err(not_built(error)); variants.len()],
        }
    }

    fn rehearsal(&mut self, Rewrite { family, text }: Rewrite<'_>, variant: &Variant) -> Result<Code, Failure> {
        let library = self.library.with_family_source(family, text).map_err(not_built)?;
        let path = library.simt(&[variant.kernel(&self.problem)]).map_err(not_built)?;
        Ok(Code::Library { path })
    }
}

fn kernels(problem: &Problem, variants: &[Variant]) -> Vec<Kernel> {
    variants.iter().map(|variant| variant.kernel(problem)).collect()
}

fn ptx(library: &Library, kernels: &[Kernel], sm: Sm) -> Vec<Result<Compiled, Failure>> {
    let compiled = |answer: Result<PtxArtifact, BuildError>| {
        let PtxArtifact { sha256, path, facts, .. } = answer.map_err(not_built)?;
        Ok(Compiled { code: Code::Ptx { sha256: sha256.clone(), path }, sha256, facts })
    };
    library.ptx(kernels, sm).into_iter().map(compiled).collect()
}

fn not_built(error: BuildError) -> Failure {
    Failure::Build(error.to_string())
}

/// Libraries for the CPU machine, for one problem.
#[derive(Debug)]
pub struct SimtSource {
    library: Library,
    problem: Problem,
    sm: Sm,
}

impl SimtSource {
    /// Libraries of variants for `problem` as a GPU of this target would run them.
    pub fn open(problem: Problem, sm: Sm) -> Result<Self, BuildError> {
        Ok(Self { library: Library::open()?, problem, sm })
    }
}

impl Source for SimtSource {
    fn toolchain(&self) -> String {
        "the host's compiler".to_owned()
    }

    /// The variants share one file. Code is told apart by kernel: the CPU machine shows nothing finer.
    fn compile(&mut self, variants: &[Variant]) -> Vec<Result<Compiled, Failure>> {
        let kernels = kernels(&self.problem, variants);
        let built = self.library.simt(&kernels).map_err(not_built);
        let compiled = |kernel: &Kernel| {
            let path = built.clone()?;
            let sha256 = builder::sha256(kernel.to_string().as_bytes());
            Ok(Compiled { code: Code::Library { path }, sha256, facts: None })
        };
        kernels.iter().map(compiled).collect()
    }

    /// Code is told apart by its PTX where that can be compiled, and by its source elsewhere.
    fn compile_rewritten(&mut self, rewrite: Rewrite<'_>, variants: &[Variant]) -> Vec<Result<Compiled, Failure>> {
        let Rewrite { family, text } = rewrite;
        let kernels = kernels(&self.problem, variants);
        let built = self.library.with_family_source(family, text).and_then(|library| {
            let path = library.simt(&kernels)?;
            Ok((library, path))
        });
        let (library, path) = match built {
            Ok(built) => built,
            Err(error) => return vec![Err(not_built(error)); variants.len()],
        };
        let code = Code::Library { path };
        if library.can_build() {
            let on_cpu = |compiled: Compiled| Compiled { code: code.clone(), ..compiled };
            return ptx(&library, &kernels, self.sm).into_iter().map(|answer| answer.map(on_cpu)).collect();
        }
        let compiled = |kernel: &Kernel| {
            let sha256 = builder::sha256(format!("{kernel}\n{text}").as_bytes());
            Ok(Compiled { code: code.clone(), sha256, facts: None })
        };
        kernels.iter().map(compiled).collect()
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

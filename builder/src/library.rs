//! "Give me this kernel's code", from whichever source is here: a store made elsewhere, the project's own store and
//! compiler, the shipped catalog.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use spec::{Kernel, Sm};

use crate::batch::CATALOG_PARALLELISM;
use crate::cargo::{recipe, simt_recipe};
use crate::catalog::Entry;
use crate::compile::{self, Rejection};
use crate::files::{read_text, sha256, write_whole};
use crate::store::Index;
use crate::{BuildError, Catalog, Facts, Fixture, Origin, Outcome, Project, Ptxas, Store, Toolchain};

/// A compiled kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtxArtifact {
    /// The kernel.
    pub kernel: Kernel,
    /// The target.
    pub sm: Sm,
    /// Hash of the module: the identity of the code.
    pub sha256: String,
    /// The module's file; its entry point is [`crate::ptx::ENTRY`].
    pub path: PathBuf,
    /// What ptxas says of it; `None` where neither ptxas nor a note of its report is here.
    pub facts: Option<Facts>,
}

/// All sources of code.
#[derive(Clone, Debug)]
pub struct Library {
    project: Project,
    /// The project's own store.
    own: Store,
    elsewhere: Option<Store>,
    toolchain: Result<Toolchain, BuildError>,
    ptxas: Option<Ptxas>,
    catalog: Option<Catalog>,
    /// Hash of the sources at hand; `None` where there are none.
    sources: Option<String>,
    /// Batches that kernels are shared out to at least.
    parallel: usize,
}

/// A module found in a source.
struct Found {
    sha256: String,
    path: PathBuf,
    facts: Option<Facts>,
}

type Results = HashMap<Kernel, Result<Found, BuildError>>;

impl Library {
    /// The library of the project that is found from here.
    pub fn open() -> Result<Self, BuildError> {
        let project = Project::find()?;
        let toolchain = Toolchain::find(&project);
        let ptxas = Ptxas::find(&project)?;
        Self::of(project, toolchain, ptxas)
    }

    /// The library of a project, with these tools.
    pub fn of(
        project: Project,
        toolchain: Result<Toolchain, BuildError>,
        ptxas: Option<Ptxas>,
    ) -> Result<Self, BuildError> {
        let sources = if project.has_sources() { Some(project.ptx_sources()?) } else { None };
        let (own, catalog) = (Store::at(&project.store()), Catalog::open(&project.catalog())?);
        let parallel = compile::parallelism();
        Ok(Self { project, own, elsewhere: None, toolchain, ptxas, catalog, sources, parallel })
    }

    /// The same library, which looks into the store in `folder` first. `Err` if there is none.
    pub fn with_store(mut self, folder: &Path) -> Result<Self, BuildError> {
        if !folder.join("index").is_dir() {
            let reason = "is no store; `cargo xtask build-ptx --store DIR` makes one".to_owned();
            return Err(BuildError::Malformed { path: folder.to_owned(), reason });
        }
        self.elsewhere = Some(Store::at(folder));
        Ok(self)
    }

    /// The same library, which keeps what it builds in `folder` instead of the project's own store.
    pub fn keeping_in(mut self, folder: &Path) -> Self {
        self.own = Store::at(folder);
        self
    }

    /// The same library, which compiles as for the catalog: in batches that depend on the list of kernels alone. What it
    /// keeps in should be empty, since what is there is not compiled again.
    pub fn for_catalog(mut self) -> Self {
        self.parallel = CATALOG_PARALLELISM;
        self
    }

    /// The project.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// The kernel toolchain, or why there is none.
    pub fn toolchain(&self) -> Result<&Toolchain, BuildError> {
        self.toolchain.as_ref().map_err(Clone::clone)
    }

    /// The assembler, where there is one.
    pub fn ptxas(&self) -> Option<&Ptxas> {
        self.ptxas.as_ref()
    }

    /// The store that is kept in.
    pub fn store(&self) -> &Store {
        &self.own
    }

    /// The shipped catalog, whatever it was made of.
    pub fn catalog(&self) -> Option<&Catalog> {
        self.catalog.as_ref()
    }

    /// The shipped catalog if it was made of the sources at hand, or there are none.
    pub fn fresh_catalog(&self) -> Option<&Catalog> {
        self.catalog.as_ref().filter(|catalog| {
            let manifest = catalog.manifest();
            self.sources.as_ref().is_none_or(|sources| *sources == manifest.sources && recipe() == manifest.recipe)
        })
    }

    /// Puts what the catalog has for a target into the store that is kept in, so that it is not compiled again. Only if the
    /// catalog was made of the sources and by the compiler at hand; says how many kernels that were.
    pub fn take_up_catalog(&self, sm: Sm) -> Result<usize, BuildError> {
        let origin = self.origin(sm)?;
        let fresh = self.fresh_catalog().filter(|catalog| catalog.manifest().toolchain == origin.toolchain);
        let Some(catalog) = fresh else { return Ok(0) };
        let index = self.own.index(&origin)?;
        let kernels: Vec<_> = catalog.entries(sm).map(|entry| entry.kernel).collect();
        for (kernel, Entry { sha256, facts, .. }) in catalog.extract(&kernels, sm, &self.own)? {
            if let Some(facts) = facts {
                self.own.put_facts(&sha256, &facts)?;
            }
            index.put(&kernel, &Outcome::Built { sha256 })?;
        }
        Ok(kernels.len())
    }

    /// Whether any kernel can be compiled here; otherwise only [`Library::available`] ones can be had.
    pub fn can_build(&self) -> bool {
        self.toolchain.is_ok() && self.sources.is_some()
    }

    /// What PTX built here is made of. `Err` where nothing can be built.
    pub fn origin(&self, sm: Sm) -> Result<Origin, BuildError> {
        let toolchain = self.toolchain()?.version().clone();
        let sources =
            self.sources.clone().ok_or_else(|| BuildError::NoRoot { start: self.project.root().to_owned() })?;
        Ok(Origin { sm, sources, toolchain, recipe: recipe() })
    }

    /// Kernels that can be had without compiling anything, in order.
    pub fn available(&self, sm: Sm) -> Result<Vec<Kernel>, BuildError> {
        let mut kernels = BTreeSet::new();
        for store in self.elsewhere.iter().chain([&self.own]) {
            for index in self.fitting(store, sm)? {
                kernels.extend(index.kernels()?);
            }
        }
        kernels.extend(self.fresh_catalog().into_iter().flat_map(|c| c.entries(sm)).map(|entry| entry.kernel));
        Ok(kernels.into_iter().collect())
    }

    /// Those of the kernels that would have to be compiled.
    pub fn missing(&self, kernels: &[Kernel], sm: Sm) -> Result<Vec<Kernel>, BuildError> {
        let index = self.own.index(&self.origin(sm)?)?;
        let mut missing = BTreeSet::new();
        for kernel in kernels {
            if index.get(kernel)?.is_none() {
                missing.insert(*kernel);
            }
        }
        Ok(missing.into_iter().collect())
    }

    /// The kernels' modules, one result each, in their order.
    pub fn ptx(&self, kernels: &[Kernel], sm: Sm) -> Vec<Result<PtxArtifact, BuildError>> {
        let found = match self.find(kernels, sm) {
            Ok(found) => found,
            Err(error) => return vec![Err(error); kernels.len()],
        };
        let artifact = |kernel: &Kernel| match &found[kernel] {
            Ok(Found { sha256, path, facts }) => Ok(PtxArtifact {
                kernel: *kernel,
                sm,
                sha256: sha256.clone(),
                path: path.clone(),
                facts: facts.clone(),
            }),
            Err(error) => Err(error.clone()),
        };
        kernels.iter().map(artifact).collect()
    }

    /// A library for the CPU machine that exports each kernel under its symbol.
    pub fn simt(&self, kernels: &[Kernel]) -> Result<PathBuf, BuildError> {
        let kernels: Vec<_> = BTreeSet::from_iter(kernels.iter().copied()).into_iter().collect();
        let names: Vec<_> = kernels.iter().map(Kernel::to_string).collect();
        let key = format!("{}\n{}\n{}", self.project.simt_sources()?, simt_recipe()?, names.join("\n"));
        let path = self.own.simt_path(&sha256(key.as_bytes()));
        if !path.is_file() {
            compile::simt(&self.project, &kernels, |built| {
                write_whole(&path, &std::fs::read(&built).map_err(BuildError::io("read", &built))?)
            })?;
        }
        Ok(path)
    }

    /// One module with every entry that the kernels crate exports under its feature `probes`, by their own names.
    ///
    /// Where nothing can be built, one that was made of the sources at hand and put into a store will do.
    pub fn probes_ptx(&self, sm: Sm) -> Result<PathBuf, BuildError> {
        if let Some(path) = self.made_before("probes", sm)? {
            return Ok(path);
        }
        let path = self.own.feature_path("probes", &self.origin(sm)?);
        let text = compile::ptx_of_feature(&self.project, self.toolchain()?, sm, "probes")?;
        write_whole(&path, text.as_bytes())?;
        Ok(path)
    }

    /// The modules of [`Fixture::ALL`], in that order, where [`Library::probes_ptx`] has its module from.
    pub fn fixtures_ptx(&self, sm: Sm) -> Result<Vec<PtxArtifact>, BuildError> {
        let mut paths = HashMap::new();
        for fixture in Fixture::ALL {
            if let Some(path) = self.made_before(&feature(fixture), sm)? {
                paths.insert(fixture, path);
            }
        }
        let missing: Vec<_> = Fixture::ALL.into_iter().filter(|fixture| !paths.contains_key(fixture)).collect();
        if !missing.is_empty() {
            let origin = self.origin(sm)?;
            let texts = compile::ptx_of_fixtures(&self.project, self.toolchain()?, sm, &missing)?;
            for (fixture, text) in missing.into_iter().zip(texts) {
                let path = self.own.feature_path(&feature(fixture), &origin);
                write_whole(&path, text.as_bytes())?;
                paths.insert(fixture, path);
            }
        }
        let artifact = |fixture: Fixture| {
            let path = paths[&fixture].clone();
            let sha256 = sha256(read_text(&path)?.as_bytes());
            Ok(PtxArtifact { kernel: fixture.kernel(), sm, sha256, path, facts: None })
        };
        Fixture::ALL.into_iter().map(artifact).collect()
    }

    /// Libraries of [`Fixture::ALL`] for the CPU machine, in that order, each with the symbol of its kernel.
    pub fn fixtures_simt(&self) -> Result<Vec<PathBuf>, BuildError> {
        let made_of = format!("{}\n{}", self.project.simt_sources()?, simt_recipe()?);
        let path = |fixture| self.own.simt_path(&sha256(format!("{made_of}\n{}", feature(fixture)).as_bytes()));
        let missing: Vec<_> = Fixture::ALL.into_iter().filter(|fixture| !path(*fixture).is_file()).collect();
        if !missing.is_empty() {
            compile::simt_of_fixtures(&self.project, &missing, |fixture, built| {
                write_whole(&path(fixture), &std::fs::read(&built).map_err(BuildError::io("read", &built))?)
            })?;
        }
        Ok(Fixture::ALL.map(path).into())
    }

    /// PTX of a feature of the kernels crate that was compiled from the sources at hand; in any store where nothing can be
    /// built.
    fn made_before(&self, feature: &str, sm: Sm) -> Result<Option<PathBuf>, BuildError> {
        let mut paths = Vec::new();
        if self.can_build() {
            paths.push(self.own.feature_path(feature, &self.origin(sm)?));
        } else {
            for store in self.elsewhere.iter().chain([&self.own]) {
                paths.extend(self.fitting(store, sm)?.iter().map(|index| store.feature_path(feature, index.origin())));
            }
        }
        Ok(paths.into_iter().find(|path| path.is_file()))
    }

    fn find(&self, kernels: &[Kernel], sm: Sm) -> Result<Results, BuildError> {
        let mut found = HashMap::new();
        let mut wanted = BTreeSet::from_iter(kernels.iter().copied());
        if let Some(store) = &self.elsewhere {
            self.take_from(store, sm, &mut wanted, &mut found)?;
        }
        let mut obstacles = Vec::new();
        if self.can_build() {
            match self.build(sm, &mut wanted, &mut found) {
                Ok(()) => {}
                // The compiler cannot be run here, say without a network; what was compiled before can still be had.
                Err(error @ BuildError::Tool { .. }) => obstacles.push(error.to_string()),
                Err(error) => return Err(error),
            }
        } else if let Err(error) = &self.toolchain {
            obstacles.push(error.to_string());
        }
        self.take_from(&self.own, sm, &mut wanted, &mut found)?;
        self.take_from_catalog(sm, &mut wanted, &mut found)?;
        obstacles.push(self.why_not_in_catalog());
        let reason = obstacles.join("; ");
        found.extend(wanted.into_iter().map(|kernel| {
            (kernel, Err(BuildError::Unavailable { kernel: Box::new(kernel), sm, reason: reason.clone() }))
        }));
        self.add_facts(&mut found)?;
        Ok(found)
    }

    /// The store's indexes that belong to the sources at hand.
    fn fitting<'a>(&self, store: &'a Store, sm: Sm) -> Result<Vec<Index<'a>>, BuildError> {
        let mut indexes = store.indexes(sm)?;
        if let Some(sources) = &self.sources {
            indexes.retain(|index| index.origin().sources == *sources && index.origin().recipe == recipe());
        }
        Ok(indexes)
    }

    fn take_from(
        &self,
        store: &Store,
        sm: Sm,
        wanted: &mut BTreeSet<Kernel>,
        found: &mut Results,
    ) -> Result<(), BuildError> {
        for index in self.fitting(store, sm)? {
            for kernel in wanted.clone() {
                if let Some(outcome) = index.get(&kernel)? {
                    wanted.remove(&kernel);
                    found.insert(kernel, settled(&kernel, outcome, store));
                }
            }
        }
        Ok(())
    }

    fn build(&self, sm: Sm, wanted: &mut BTreeSet<Kernel>, found: &mut Results) -> Result<(), BuildError> {
        let index = self.own.index(&self.origin(sm)?)?;
        let missing = self.missing(&wanted.iter().copied().collect::<Vec<_>>(), sm)?;
        if !missing.is_empty() {
            compile::ptx(&self.project, self.toolchain()?, sm, &missing, self.parallel, |compiled| {
                compiled.into_iter().try_for_each(|(kernel, result)| {
                    let outcome = match result {
                        Ok(text) => Outcome::Built { sha256: self.own.put_ptx(&text)? },
                        Err(Rejection::Uncompilable(reason)) => Outcome::Uncompilable { reason },
                        Err(Rejection::Refused(reason)) => Outcome::Refused { reason },
                    };
                    index.put(&kernel, &outcome)
                })
            })?;
        }
        for kernel in std::mem::take(wanted) {
            if let Some(outcome) = index.get(&kernel)? {
                found.insert(kernel, settled(&kernel, outcome, &self.own));
            } else {
                wanted.insert(kernel);
            }
        }
        Ok(())
    }

    fn take_from_catalog(&self, sm: Sm, wanted: &mut BTreeSet<Kernel>, found: &mut Results) -> Result<(), BuildError> {
        let Some(catalog) = self.fresh_catalog() else { return Ok(()) };
        let kernels: Vec<_> = wanted.iter().copied().collect();
        for (kernel, entry) in catalog.extract(&kernels, sm, &self.own)? {
            wanted.remove(&kernel);
            let path = self.own.ptx_path(&entry.sha256);
            found.insert(kernel, Ok(Found { sha256: entry.sha256, path, facts: entry.facts }));
        }
        Ok(())
    }

    /// Asks ptxas about the modules that nothing is known of yet. A module that ptxas refuses is no kernel.
    fn add_facts(&self, found: &mut Results) -> Result<(), BuildError> {
        let version = self.ptxas.as_ref().map(Ptxas::version);
        let mut unknown: BTreeMap<PathBuf, String> = BTreeMap::new();
        for module in found.values_mut().flatten() {
            for store in self.elsewhere.iter().chain([&self.own]) {
                if module.facts.is_none() {
                    module.facts = store.facts(&module.sha256, version)?;
                }
            }
            if module.facts.is_none() {
                unknown.insert(module.path.clone(), module.sha256.clone());
            }
        }
        let Some(ptxas) = &self.ptxas else { return Ok(()) };
        let paths: Vec<_> = unknown.keys().cloned().collect();
        let facts: HashMap<_, _> = unknown.values().zip(ptxas.facts(&paths)).collect();
        for (sha256, facts) in &facts {
            if let Ok(facts) = facts {
                self.own.put_facts(sha256, facts)?;
            }
        }
        for module in found.values_mut() {
            if let Ok(Found { sha256, facts: slot @ None, .. }) = module {
                match &facts[sha256] {
                    Ok(facts) => *slot = Some(facts.clone()),
                    Err(error) => *module = Err(error.clone()),
                }
            }
        }
        Ok(())
    }

    fn why_not_in_catalog(&self) -> String {
        match (&self.catalog, self.fresh_catalog()) {
            (None, _) => format!("there is no catalog in {}", self.project.catalog().display()),
            (Some(_), None) => "the catalog was made of other sources than these".to_owned(),
            (Some(_), Some(_)) => "the catalog does not have it".to_owned(),
        }
    }
}

/// Under which name a fixture is kept.
fn feature(fixture: Fixture) -> String {
    format!("fixture-{fixture}")
}

fn settled(kernel: &Kernel, outcome: Outcome, store: &Store) -> Result<Found, BuildError> {
    match outcome {
        Outcome::Built { sha256 } => Ok(Found { path: store.ptx_path(&sha256), sha256, facts: None }),
        Outcome::Uncompilable { reason } => Err(BuildError::Compile { kernel: Box::new(*kernel), reason }),
        Outcome::Refused { reason } => Err(BuildError::Ptx { entry: kernel.to_string(), reason }),
    }
}

#[cfg(test)]
mod tests {
    use spec::{Family, Problem, Variant};

    use super::*;
    use crate::Shipped;
    use crate::files::write_whole;

    #[test]
    fn a_compiler_that_cannot_be_run_leaves_the_catalog() {
        let dir = tempfile::tempdir().unwrap();
        write_whole(&dir.path().join("kernels/Cargo.toml"), b"[package]").unwrap();
        let project = Project::at(dir.path()).unwrap();
        let broken = Toolchain::broken();
        let kernel = Variant::smallest(Family::Mma).kernel(&Problem::SEED);
        let other = Variant::smallest(Family::Tiled).kernel(&Problem::SEED);
        let shipped = Shipped { kernel, sm: Sm::Sm80, text: "text".to_owned(), facts: None };
        let sources = project.ptx_sources().unwrap();
        Catalog::write(&project.catalog(), &sources, &recipe(), broken.version(), vec![shipped]).unwrap();

        let library = Library::of(project, Ok(broken), None).unwrap();
        let results = library.ptx(&[kernel, other], Sm::Sm80);
        assert_eq!(std::fs::read_to_string(&results[0].as_ref().unwrap().path).unwrap(), "text");
        let error = results[1].as_ref().unwrap_err().to_string();
        assert!(error.contains("cargo: ") && error.ends_with("the catalog does not have it"), "{error}");
    }

    #[test]
    fn a_catalog_of_the_same_sources_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        write_whole(&dir.path().join("kernels/Cargo.toml"), b"[package]").unwrap();
        let project = Project::at(dir.path()).unwrap();
        let kernel = Variant::smallest(Family::Mma).kernel(&Problem::SEED);
        let catalog_of = |sources: &str| {
            let shipped = Shipped { kernel, sm: Sm::Sm80, text: "text".to_owned(), facts: None };
            Catalog::write(&project.catalog(), sources, &recipe(), Toolchain::broken().version(), vec![shipped])
                .unwrap();
            Library::of(project.clone(), Ok(Toolchain::broken()), None).unwrap()
        };
        let library = catalog_of("others");
        assert_eq!(library.take_up_catalog(Sm::Sm80).unwrap(), 0);
        assert_eq!(library.missing(&[kernel], Sm::Sm80).unwrap(), [kernel]);
        let library = catalog_of(&project.ptx_sources().unwrap());
        assert_eq!(library.take_up_catalog(Sm::Sm80).unwrap(), 1);
        assert_eq!(library.missing(&[kernel], Sm::Sm80).unwrap(), []);
        assert_eq!(library.missing(&[kernel], Sm::Sm90a).unwrap(), [kernel]);
    }
}

//! Writing the catalog, and holding it against the sources.

use spec::{Family, Kernel, Sm};

use crate::files::read_text;
use crate::{BuildError, Catalog, Facts, Library, PtxArtifact, Shipped, Store, space};

/// How a catalog that is whole and of the sources at hand compares with what they compile to here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogState {
    /// The sampled kernels compile to its bytes, or, for a few, to as much in another order.
    Same {
        /// How many were compared.
        kernels: usize,
        /// How many came out byte for byte.
        bytes: usize,
    },
    /// Nothing can be compiled here.
    Unbuilt {
        /// Why not.
        reason: String,
    },
    /// Another compiler made it, so that only what ptxas says is compared.
    OtherCompiler {
        /// Kernels that take more here than the catalog says, one line each.
        objections: Vec<String>,
    },
}

impl Library {
    /// Writes the shipped catalog anew from modules that were built here. Returns the size of its shards in bytes.
    pub fn ship(&self, artifacts: &[PtxArtifact]) -> Result<usize, BuildError> {
        let origin = self.origin(Sm::Sm80)?;
        let shipped = artifacts.iter().map(|artifact| {
            let PtxArtifact { kernel, sm, path, facts, .. } = artifact;
            Ok(Shipped { kernel: *kernel, sm: *sm, text: read_text(path)?, facts: facts.clone() })
        });
        let shipped = shipped.collect::<Result<Vec<_>, BuildError>>()?;
        Catalog::write(&self.project().catalog(), &origin.sources, &origin.recipe, &origin.toolchain, shipped)
    }

    /// Checks that the catalog is whole and made of the sources at hand, and compiles `per_shard` kernels of each family
    /// and target again, where that can be done. A new compiler alone is no error.
    pub fn check_catalog(&self, per_shard: usize) -> Result<CatalogState, BuildError> {
        let folder = self.project().catalog();
        let stale = |reason: &str| BuildError::Malformed {
            path: folder.clone(),
            reason: format!("{reason}; `cargo xtask build-ptx --catalog` writes it anew"),
        };
        if self.catalog().is_none() {
            return Err(stale("there is no catalog"));
        }
        let catalog = self.fresh_catalog().ok_or_else(|| stale("the catalog was made of other sources than these"))?;
        check_whole(catalog)?;
        let toolchain = match self.toolchain() {
            Ok(toolchain) => toolchain,
            Err(error) => return Ok(CatalogState::Unbuilt { reason: error.to_string() }),
        };
        let same_compiler = toolchain.version().same_compiler(&catalog.manifest().toolchain);
        let (mut compared, mut same, mut objections) = (0, 0, Vec::new());
        for sm in Sm::ALL {
            let kernels = sample(catalog, sm, per_shard);
            for (kernel, built) in kernels.iter().zip(self.ptx(&kernels, sm)) {
                let built = built?;
                let Some(entry) = catalog.entries(sm).find(|entry| entry.kernel == *kernel) else { continue };
                compared += 1;
                if same_compiler && built.sha256 == entry.sha256 {
                    same += 1;
                } else {
                    objections.extend(takes_more(&built, entry.facts.as_ref()));
                }
            }
        }
        // A few kernels come out with instructions in another order when they are compiled beside others than before;
        // those must take the same resources. If it is more than a few, something else is the reason.
        if same_compiler && (same * 4 < compared * 3 || !objections.is_empty()) {
            let more = objections.join("; ");
            return Err(stale(&format!(
                "the same compiler gives the PTX of only {same} of {compared} kernels; {more}"
            )));
        }
        Ok(if same_compiler {
            CatalogState::Same { kernels: compared, bytes: same }
        } else {
            CatalogState::OtherCompiler { objections }
        })
    }
}

/// Unpacks every shard.
fn check_whole(catalog: &Catalog) -> Result<(), BuildError> {
    let scratch = tempfile::tempdir().map_err(BuildError::io("create a folder in", &std::env::temp_dir()))?;
    let store = Store::at(scratch.path());
    for sm in Sm::ALL {
        let kernels: Vec<_> = catalog.entries(sm).map(|entry| entry.kernel).collect();
        catalog.extract(&kernels, sm, &store)?;
    }
    Ok(())
}

fn sample(catalog: &Catalog, sm: Sm, per_shard: usize) -> Vec<Kernel> {
    let of = |family: Family| catalog.entries(sm).map(|e| e.kernel).filter(move |kernel| kernel.family() == family);
    Family::ALL.into_iter().flat_map(|family| space::sample(of(family), per_shard, 1)).collect()
}

/// Spills that the catalog's module does not have. Registers may differ from compiler to compiler.
fn takes_more(built: &PtxArtifact, shipped: Option<&Facts>) -> Option<String> {
    let (here, there) = (built.facts.as_ref()?, shipped?);
    (here.spill_store_bytes > there.spill_store_bytes).then(|| {
        format!("{} spills {} B instead of {} B", built.kernel, here.spill_store_bytes, there.spill_store_bytes)
    })
}

//! Writing the catalog, and holding it against the sources.

use std::collections::BTreeSet;

use spec::{Kernel, Sm};
use tempfile::TempDir;

use crate::batch::{Batch, CATALOG_PARALLELISM, decodes};
use crate::files::read_text;
use crate::{BuildError, Catalog, Facts, Library, PtxArtifact, Shipped, Store};

/// How a catalog that is whole and of the sources at hand compares with what they compile to here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogState {
    /// The kernels compiled again come to its very bytes.
    Same {
        /// How many were compared.
        kernels: usize,
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

    /// Checks that the catalog is whole and made of the sources at hand, and compiles some of each target again, where
    /// that can be done. A new compiler alone is no error.
    ///
    /// They are batches that the catalog was made with: a kernel's PTX can depend on which others are compiled beside it.
    pub fn check_catalog(&self) -> Result<CatalogState, BuildError> {
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
        let scratch = scratch()?;
        let afresh = self.clone().keeping_in(scratch.path()).for_catalog();
        let (mut compared, mut objections) = (0, Vec::new());
        for sm in Sm::ALL {
            let kernels = some_batches(catalog, sm);
            for (kernel, built) in kernels.iter().zip(afresh.ptx(&kernels, sm)) {
                let built = built?;
                let Some(entry) = catalog.entries(sm).find(|entry| entry.kernel == *kernel) else { continue };
                compared += 1;
                if !same_compiler {
                    objections.extend(takes_more(&built, entry.facts.as_ref()));
                } else if built.sha256 != entry.sha256 {
                    return Err(stale(&format!("the same compiler makes other PTX of {kernel} for {sm}")));
                }
            }
        }
        Ok(if same_compiler {
            CatalogState::Same { kernels: compared }
        } else {
            CatalogState::OtherCompiler { objections }
        })
    }
}

fn scratch() -> Result<TempDir, BuildError> {
    tempfile::tempdir().map_err(BuildError::io("create a folder in", &std::env::temp_dir()))
}

/// Unpacks every shard.
fn check_whole(catalog: &Catalog) -> Result<(), BuildError> {
    let scratch = scratch()?;
    let store = Store::at(scratch.path());
    for sm in Sm::ALL {
        let kernels: Vec<_> = catalog.entries(sm).map(|entry| entry.kernel).collect();
        catalog.extract(&kernels, sm, &store)?;
    }
    Ok(())
}

/// Some of the batches that a target's kernels were compiled in: the middle one, where all other families are near, and of those that
/// decode.
fn some_batches(catalog: &Catalog, sm: Sm) -> Vec<Kernel> {
    let kernels: BTreeSet<_> = catalog.entries(sm).map(|entry| entry.kernel).collect();
    let (decoding, others): (Vec<_>, Vec<_>) = kernels.into_iter().partition(decodes);
    let middle = |kernels: Vec<Kernel>| {
        let batches = Batch::share_out(&kernels, CATALOG_PARALLELISM);
        batches.get(batches.len() / 2).map_or(Vec::new(), |batch| batch.kernels.clone())
    };
    [middle(others), middle(decoding)].concat()
}

/// Spills that the catalog's module does not have. Registers may differ from compiler to compiler.
fn takes_more(built: &PtxArtifact, shipped: Option<&Facts>) -> Option<String> {
    let (here, there) = (built.facts.as_ref()?, shipped?);
    (here.spill_store_bytes > there.spill_store_bytes).then(|| {
        format!("{} spills {} B instead of {} B", built.kernel, here.spill_store_bytes, there.spill_store_bytes)
    })
}

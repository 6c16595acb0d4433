//! The whole path on a tiny project: sources, compiler, store, catalog. Where no kernel toolchain is installed these
//! tests say so and end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use builder::{BuildError, CatalogState, Library, Project, PtxArtifact, Ptxas, Toolchain};
use spec::{Family, Gene, Kernel, Problem, Sm, Variant};
use tempfile::TempDir;

const SM: Sm = Sm::Sm80;
const KERNELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/project/kernels");
const NO_TOOLCHAIN: BuildError = BuildError::NoToolchain { reason: String::new(), remedy: "" };

/// A copy of the fixture to edit, and a folder for its store.
struct Checkout {
    folder: TempDir,
    toolchain: Toolchain,
}

impl Checkout {
    /// `None`, with a printed reason, where nothing can be compiled.
    fn new() -> Option<Self> {
        let toolchain = match Toolchain::find(&Project::find().unwrap()) {
            Ok(toolchain) => toolchain,
            Err(error) => {
                println!("skipped: {error}");
                return None;
            }
        };
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("kernels/src");
        fs::create_dir_all(&source).unwrap();
        for file in ["Cargo.toml", "src/lib.rs", "src/helper.rs"] {
            fs::copy(Path::new(KERNELS).join(file), folder.path().join("kernels").join(file)).unwrap();
        }
        // `core` takes long to build and is the same for all.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixture");
        fs::create_dir_all(&target).unwrap();
        std::os::unix::fs::symlink(target, folder.path().join("target")).unwrap();
        Some(Self { folder, toolchain })
    }

    fn project(&self) -> Project {
        Project::at(self.folder.path()).unwrap()
    }

    fn store(&self) -> std::path::PathBuf {
        self.folder.path().join("store")
    }

    /// With the compiler and the checkout's own store.
    fn library(&self) -> Library {
        let ptxas = Ptxas::find(&Project::find().unwrap()).unwrap();
        Library::of(self.project(), Ok(self.toolchain.clone()), ptxas).unwrap().keeping_in(&self.store())
    }

    /// Where there is no compiler, and the store is empty.
    fn library_without_compiler(&self) -> Library {
        let empty = self.folder.path().join("empty");
        Library::of(self.project(), Err(NO_TOOLCHAIN), None).unwrap().keeping_in(&empty)
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.folder.path().join("kernels/src").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(&path, text.replace(from, to)).unwrap();
    }
}

fn kernel(changes: &[(Gene, u16)]) -> Kernel {
    let start = Variant::smallest(Family::Tiled);
    changes.iter().fold(start, |v, (gene, value)| v.with(*gene, *value).unwrap()).kernel(&Problem::SEED)
}

/// Two kernels with the same code, launch bounds aside two with other code.
fn good() -> [Kernel; 4] {
    [
        kernel(&[]),
        kernel(&[(Gene::TileKv, 32)]),
        kernel(&[(Gene::TileQ, 32)]),
        kernel(&[(Gene::TileQ, 32), (Gene::Warps, 4)]),
    ]
}

fn hashes(results: Vec<Result<PtxArtifact, BuildError>>) -> Vec<String> {
    results.into_iter().map(|result| result.unwrap().sha256).collect()
}

#[test]
fn one_bad_kernel_costs_no_other() {
    let Some(checkout) = Checkout::new() else { return };
    let uncompilable = kernel(&[(Gene::Warps, 16)]);
    let in_local_memory = kernel(&[(Gene::ExpPoly, 1)]);
    let [a, b, c, d] = good();
    let results = checkout.library().ptx(&[a, uncompilable, b, in_local_memory, c, d, a], SM);

    let error = |i: usize| results[i].as_ref().unwrap_err().to_string();
    assert!(error(1).starts_with(&format!("{uncompilable} does not compile: ")), "{}", error(1));
    assert!(error(1).contains("too many warps"), "{}", error(1));
    assert_eq!(error(3), format!("PTX of {in_local_memory} refused: keeps data in local memory (.local)"));
    for i in [0, 2, 4, 5, 6] {
        let artifact = results[i].as_ref().unwrap();
        let text = fs::read_to_string(&artifact.path).unwrap();
        assert_eq!(builder::sha256(text.as_bytes()), artifact.sha256);
        let bounds = artifact.kernel.launch_bounds();
        assert!(text.contains(&format!(".maxntid {}, 1, 1\n.minnctapersm {}\n", bounds.threads, bounds.blocks_per_sm)));
        assert!(artifact.facts.as_ref().is_none_or(|facts| facts.registers > 0 && facts.spill_store_bytes == 0));
    }
    assert_eq!(results[0], results[6]);
    let modules: BTreeSet<_> = results.iter().flatten().map(|artifact| &artifact.sha256).collect();
    assert_eq!(modules.len(), 3, "the same code has the same hash");
}

#[test]
fn only_what_changed_is_built_and_unchanged_code_keeps_its_hash() {
    let Some(checkout) = Checkout::new() else { return };
    let library = checkout.library();
    assert_eq!(library.missing(&good(), SM).unwrap().len(), 4);
    let first = hashes(library.ptx(&good(), SM));
    assert_eq!(library.missing(&good(), SM).unwrap(), []);

    checkout.edit("helper.rs", "value * TILE", "/* the same */ value * TILE");
    let library = checkout.library();
    assert_eq!(library.missing(&good(), SM).unwrap().len(), 4, "any edit of the sources rebuilds");
    assert_eq!(hashes(library.ptx(&good(), SM)), first);

    checkout.edit("helper.rs", "value * TILE", "if TILE == 32 { value + 7 } else { value * TILE }");
    let third = hashes(checkout.library().ptx(&good(), SM));
    assert_eq!(third[..2], first[..2]);
    assert!(third[2] != first[2] && third[3] != first[3]);
}

#[test]
fn two_checkouts_make_the_same_bytes() {
    let (Some(here), Some(there)) = (Checkout::new(), Checkout::new()) else { return };
    let mut other_order = good();
    other_order.reverse();
    let mut built_there = hashes(there.library().ptx(&other_order, SM));
    built_there.reverse();
    assert_eq!(hashes(here.library().ptx(&good(), SM)), built_there);
}

#[test]
fn broken_sources_are_no_kernels_fault() {
    let Some(checkout) = Checkout::new() else { return };
    checkout.edit("helper.rs", "value * TILE", "value * tile");
    let library = checkout.library();
    for result in library.ptx(&good(), SM) {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("the kernels crate does not compile: cannot find value `tile`"), "{error}");
    }
    assert_eq!(library.missing(&good(), SM).unwrap().len(), 4, "it is not held against them");
}

#[test]
fn a_store_made_elsewhere_serves_without_a_compiler() {
    let Some(checkout) = Checkout::new() else { return };
    let built = hashes(checkout.library().ptx(&good()[..2], SM));
    let library = checkout.library_without_compiler().with_store(&checkout.store()).unwrap();
    assert_eq!(library.available(SM).unwrap(), good()[..2]);
    assert_eq!(hashes(library.ptx(&good()[..2], SM)), built);
    let error = library.ptx(&good()[2..3], SM).remove(0).unwrap_err();
    assert!(matches!(error, BuildError::Unavailable { .. }), "{error}");

    checkout.edit("helper.rs", "value * TILE", "value + TILE");
    let library = checkout.library_without_compiler().with_store(&checkout.store()).unwrap();
    assert_eq!(library.available(SM).unwrap(), [], "it was made of other sources");
    let error = library.with_store(&checkout.folder.path().join("nowhere")).unwrap_err().to_string();
    assert!(error.ends_with("is no store; `cargo xtask build-ptx --store DIR` makes one"), "{error}");
}

#[test]
fn the_catalog_serves_without_a_compiler_while_it_is_fresh() {
    let Some(checkout) = Checkout::new() else { return };
    let library = checkout.library();
    let artifacts: Vec<_> = library.ptx(&good(), SM).into_iter().map(Result::unwrap).collect();
    library.ship(&artifacts).unwrap();
    assert_eq!(checkout.library().check_catalog().unwrap(), CatalogState::Same { kernels: good().len() });

    let library = checkout.library_without_compiler();
    let shipped: Vec<_> = library.ptx(&good(), SM).into_iter().map(Result::unwrap).collect();
    for (built, shipped) in artifacts.iter().zip(&shipped) {
        assert_eq!((&built.sha256, &built.facts), (&shipped.sha256, &shipped.facts));
        assert_eq!(fs::read(&built.path).unwrap(), fs::read(&shipped.path).unwrap());
    }
    assert!(matches!(library.check_catalog(), Ok(CatalogState::Unbuilt { .. })));

    checkout.edit("helper.rs", "value * TILE", "value + TILE");
    let library = checkout.library_without_compiler();
    let error = library.ptx(&good()[..1], SM).remove(0).unwrap_err().to_string();
    assert!(error.ends_with("the catalog was made of other sources than these"), "{error}");
    assert!(library.check_catalog().is_err());
}

#[test]
fn features_of_the_kernels_crate_come_with_their_own_names() {
    let Some(checkout) = Checkout::new() else { return };
    let path = checkout.library().probes_ptx(SM).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains(".visible .entry probe_table("));
    assert_eq!(checkout.library().probes_ptx(SM).unwrap(), path);
}

#[test]
fn the_cpu_machine_gets_the_same_kernels() {
    let Some(checkout) = Checkout::new() else { return };
    let path = checkout.library().simt(&good()).unwrap();
    let symbol = good()[2].symbol().to_string();
    // SAFETY: the library was just built from the fixture and runs nothing when it is loaded.
    let library = unsafe { libloading::Library::new(&path) }.unwrap();
    // SAFETY: the fixture exports its entries with this signature off the GPU.
    let entry = unsafe { library.get::<extern "C" fn(u32) -> u32>(symbol.as_bytes()) }.unwrap();
    assert_eq!(entry(2), 4 * 32);

    let mut reversed = good();
    reversed.reverse();
    assert_eq!(checkout.library().simt(&reversed).unwrap(), path, "the same kernels need no second build");
    checkout.edit("helper.rs", "value * TILE", "value + TILE");
    assert_ne!(checkout.library().simt(&good()).unwrap(), path);
}

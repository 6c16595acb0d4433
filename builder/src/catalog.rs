//! The shipped PTX: what a user who has a driver but no kernel toolchain runs.
//!
//! `manifest.json` says what is in it and what it was made of; `<family>-<sm>.shard` holds modules one after the other,
//! compressed as one, since kernels of a family are much alike. The same modules make the same bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::{Family, Kernel, Sm};

use crate::files::{list, sha256, write_whole};
use crate::store::{read_json, write_json};
use crate::{BuildError, Facts, Store, ToolchainVersion};

const MANIFEST: &str = "manifest.json";
/// Number of the format of manifest and shards.
const FORMAT: u32 = 1;
/// Size of all shards together at most, in bytes: it is part of every clone.
const LARGEST: usize = 20 << 20;
/// The slowest levels gain little more.
const COMPRESSION_LEVEL: i32 = 19;
/// Matches reach back over a whole shard: 2^27 bytes, the most a decoder accepts unasked.
const WINDOW_LOG: u32 = 27;

/// The shipped PTX.
#[derive(Clone, Debug)]
pub struct Catalog {
    files: Files,
    manifest: Manifest,
}

/// Where the files are.
#[derive(Clone, Debug)]
enum Files {
    Folder(PathBuf),
    /// By name, inside the program.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl Files {
    /// How an error names a file.
    fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(name),
            Self::Embedded(_) => Path::new("the program's own catalog").join(name),
        }
    }

    fn read(&self, name: &str) -> Result<Cow<'static, [u8]>, BuildError> {
        let path = self.path(name);
        match self {
            Self::Folder(_) => std::fs::read(&path).map(Cow::Owned).map_err(BuildError::io("read", &path)),
            Self::Embedded(files) => files
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, bytes)| Cow::Borrowed(*bytes))
                .ok_or_else(|| BuildError::Malformed { path, reason: "there is no such file".to_owned() }),
        }
    }
}

/// What a catalog was made of and holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// Hash of the sources.
    pub sources: String,
    /// Hash of flags, profile and canonical form.
    pub recipe: String,
    /// The compiler.
    pub toolchain: ToolchainVersion,
    shards: Vec<Shard>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shard {
    family: Family,
    sm: Sm,
    /// Hash of the shard's file.
    sha256: String,
    /// In the order of kernels.
    entries: Vec<Entry>,
}

/// One kernel of a catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The kernel.
    pub kernel: Kernel,
    /// Hash of its module.
    pub sha256: String,
    /// What ptxas said of it, where it was asked.
    pub facts: Option<Facts>,
    /// Start of the module in the uncompressed shard.
    offset: usize,
    /// Length of the module.
    bytes: usize,
}

/// A module to be shipped.
#[derive(Clone, Debug)]
pub struct Shipped {
    /// The kernel.
    pub kernel: Kernel,
    /// The target.
    pub sm: Sm,
    /// Its canonical module.
    pub text: String,
    /// What ptxas said of it.
    pub facts: Option<Facts>,
}

impl Shard {
    fn file(&self) -> String {
        format!("{}-{}.shard", self.family, self.sm)
    }
}

impl Catalog {
    /// The catalog in this folder; `None` where there is none.
    pub fn open(folder: &Path) -> Result<Option<Self>, BuildError> {
        let Some(manifest) = read_json::<Manifest>(&folder.join(MANIFEST))? else { return Ok(None) };
        Self::of(Files::Folder(folder.to_owned()), manifest).map(Some)
    }

    /// The catalog whose files, by name, are part of the program.
    pub fn embedded(files: &'static [(&'static str, &'static [u8])]) -> Result<Self, BuildError> {
        let files = Files::Embedded(files);
        let manifest = serde_json::from_slice(&files.read(MANIFEST)?);
        let manifest = manifest.map_err(BuildError::malformed(&files.path(MANIFEST)))?;
        Self::of(files, manifest)
    }

    fn of(files: Files, manifest: Manifest) -> Result<Self, BuildError> {
        if manifest.format != FORMAT {
            let reason = format!("format is {}; this program reads {FORMAT}", manifest.format);
            return Err(BuildError::Malformed { path: files.path(MANIFEST), reason });
        }
        Ok(Self { files, manifest })
    }

    /// What it was made of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its kernels for a target.
    pub fn entries(&self, sm: Sm) -> impl Iterator<Item = &Entry> {
        self.manifest.shards.iter().filter(move |shard| shard.sm == sm).flat_map(|shard| &shard.entries)
    }

    /// The entries of these kernels, their modules put into `store`; one for each that the catalog has.
    pub fn extract(&self, kernels: &[Kernel], sm: Sm, store: &Store) -> Result<HashMap<Kernel, Entry>, BuildError> {
        let mut found = HashMap::new();
        for shard in self.manifest.shards.iter().filter(|shard| shard.sm == sm) {
            let wanted: Vec<_> = shard.entries.iter().filter(|entry| kernels.contains(&entry.kernel)).collect();
            let mut missing = Vec::new();
            for entry in &wanted {
                if !store.holds(&entry.sha256)? {
                    missing.push(*entry);
                }
            }
            if !missing.is_empty() {
                self.unpack(shard, &missing, store)?;
            }
            found.extend(wanted.into_iter().map(|entry| (entry.kernel, entry.clone())));
        }
        Ok(found)
    }

    /// The module of one of its entries for a target.
    pub fn text(&self, entry: &Entry, sm: Sm) -> Result<String, BuildError> {
        let holds = |shard: &&Shard| shard.sm == sm && shard.entries.contains(entry);
        let shard = self.manifest.shards.iter().find(holds).ok_or_else(|| BuildError::Unavailable {
            kernel: Box::new(entry.kernel),
            sm,
            reason: "the catalog does not have it".to_owned(),
        })?;
        self.module(shard, entry, &self.modules(shard)?).map(str::to_owned)
    }

    fn unpack(&self, shard: &Shard, entries: &[&Entry], store: &Store) -> Result<(), BuildError> {
        let modules = self.modules(shard)?;
        for entry in entries {
            store.put_ptx(self.module(shard, entry, &modules)?)?;
        }
        Ok(())
    }

    /// All modules of a shard, one after the other.
    fn modules(&self, shard: &Shard) -> Result<Vec<u8>, BuildError> {
        let path = self.files.path(&shard.file());
        let packed = self.files.read(&shard.file())?;
        if sha256(&packed) != shard.sha256 {
            let reason = "its hash is not the one the manifest gives".to_owned();
            return Err(BuildError::Malformed { path, reason });
        }
        zstd::decode_all(&*packed).map_err(BuildError::malformed(&path))
    }

    fn module<'a>(&self, shard: &Shard, entry: &Entry, modules: &'a [u8]) -> Result<&'a str, BuildError> {
        modules
            .get(entry.offset..entry.offset + entry.bytes)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .filter(|text| sha256(text.as_bytes()) == entry.sha256)
            .ok_or_else(|| BuildError::Malformed {
                path: self.files.path(&shard.file()),
                reason: format!("it does not hold {} where the manifest says", entry.kernel),
            })
    }

    /// Writes a catalog of these modules into `folder` in place of what is there. Returns the size of its shards in
    /// bytes.
    pub fn write(
        folder: &Path,
        sources: &str,
        recipe: &str,
        toolchain: &ToolchainVersion,
        mut modules: Vec<Shipped>,
    ) -> Result<usize, BuildError> {
        modules.sort_by_key(|module| module.kernel);
        let mut groups: BTreeMap<(Family, Sm), Vec<Shipped>> = BTreeMap::new();
        for module in modules {
            groups.entry((shard(&module.kernel), module.sm)).or_default().push(module);
        }
        let (mut shards, mut files) = (Vec::new(), Vec::new());
        for ((family, sm), modules) in groups {
            let (entries, text) = concatenate(modules);
            let packed = compress(text.as_bytes()).map_err(BuildError::io("compress for", folder))?;
            let shard = Shard { family, sm, sha256: sha256(&packed), entries };
            files.push((folder.join(shard.file()), packed));
            shards.push(shard);
        }
        let size = files.iter().map(|(_, packed)| packed.len()).sum();
        if size > LARGEST {
            let reason = format!("the shards would take {size} B, at most {LARGEST} B are shipped; ship fewer kernels");
            return Err(BuildError::Malformed { path: folder.to_owned(), reason });
        }
        for (path, packed) in &files {
            write_whole(path, packed)?;
        }
        let (sources, recipe, toolchain) = (sources.to_owned(), recipe.to_owned(), toolchain.clone());
        let manifest = Manifest { format: FORMAT, sources, recipe, toolchain, shards };
        write_json(&folder.join(MANIFEST), &manifest)?;
        for path in list(folder)? {
            let old = path.extension().is_some_and(|e| e == "shard") && !files.iter().any(|(new, _)| *new == path);
            if old {
                std::fs::remove_file(&path).map_err(BuildError::io("remove", &path))?;
            }
        }
        Ok(size)
    }
}

/// The family whose shard holds a kernel. One without a family lies with those that run anywhere: its module is small.
fn shard(kernel: &Kernel) -> Family {
    kernel.family().unwrap_or(Family::Tiled)
}

/// Modules that several kernels share are kept once.
fn concatenate(modules: Vec<Shipped>) -> (Vec<Entry>, String) {
    let (mut text, mut offsets, mut entries) = (String::new(), HashMap::new(), Vec::new());
    for module in modules {
        let sha256 = sha256(module.text.as_bytes());
        let offset = *offsets.entry(sha256.clone()).or_insert_with(|| {
            let offset = text.len();
            text.push_str(&module.text);
            offset
        });
        entries.push(Entry { kernel: module.kernel, sha256, facts: module.facts, offset, bytes: module.text.len() });
    }
    (entries, text)
}

fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), COMPRESSION_LEVEL)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.long_distance_matching(true)?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use spec::{Dtype, Problem, Variant};

    use super::*;

    fn kernel(family: Family, head_dim: u32) -> Kernel {
        Variant::smallest(family).kernel(&Problem::new(1, 1, 1, head_dim, Dtype::F16))
    }

    fn shipped() -> Vec<Shipped> {
        let module = |family, head_dim, text: &str| Shipped {
            kernel: kernel(family, head_dim),
            sm: Sm::Sm80,
            text: text.to_owned(),
            facts: None,
        };
        let append = Shipped { kernel: Kernel::Append, ..module(Family::Tiled, 64, "append") };
        vec![
            module(Family::Mma, 64, "same"),
            append,
            module(Family::Tiled, 64, "tiled"),
            module(Family::Mma, 128, "same"),
        ]
    }

    fn write(folder: &Path, modules: Vec<Shipped>) -> usize {
        let toolchain = ToolchainVersion { rustc: "rustc 1.96.0".to_owned(), packages: Vec::new() };
        Catalog::write(folder, "sources", "recipe", &toolchain, modules).unwrap()
    }

    fn bytes(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let read = |path: PathBuf| (path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&path).unwrap());
        list(folder).unwrap().into_iter().map(read).collect()
    }

    #[test]
    fn entries_come_back() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), shipped());
        let catalog = Catalog::open(dir.path()).unwrap().unwrap();
        assert_eq!(catalog.entries(Sm::Sm80).count(), 4);
        let store = Store::at(&dir.path().join("store"));
        let wanted = [kernel(Family::Mma, 128), kernel(Family::Mma, 32)];
        let found = catalog.extract(&wanted, Sm::Sm80, &store).unwrap();
        assert_eq!(found.len(), 1, "what it does not have is left out");
        assert_eq!(std::fs::read_to_string(store.ptx_path(&found[&wanted[0]].sha256)).unwrap(), "same");
        assert!(catalog.extract(&wanted, Sm::Sm90a, &store).unwrap().is_empty());
        let append = catalog.entries(Sm::Sm80).find(|entry| entry.kernel == Kernel::Append).unwrap();
        assert_eq!(catalog.text(append, Sm::Sm80).unwrap(), "append");
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_order() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut reversed = shipped();
        reversed.reverse();
        assert_eq!(write(a.path(), shipped()), write(b.path(), reversed));
        assert_eq!(bytes(a.path()), bytes(b.path()));
    }

    #[test]
    fn a_new_catalog_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), shipped());
        write(dir.path(), shipped().drain(..1).collect());
        let names: Vec<_> = bytes(dir.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [Path::new("manifest.json"), Path::new("mma-sm_80.shard")]);
    }

    #[test]
    fn a_damaged_shard_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), shipped());
        let path = dir.path().join("mma-sm_80.shard");
        std::fs::write(&path, b"x").unwrap();
        let catalog = Catalog::open(dir.path()).unwrap().unwrap();
        let store = Store::at(&dir.path().join("store"));
        let error = catalog.extract(&[kernel(Family::Mma, 64)], Sm::Sm80, &store).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: its hash is not the one the manifest gives", path.display()));
    }

    #[test]
    fn another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), shipped());
        let path = dir.path().join("manifest.json");
        let text = std::fs::read_to_string(&path).unwrap().replace("\"format\": 1", "\"format\": 2");
        std::fs::write(&path, text).unwrap();
        let error = Catalog::open(dir.path()).unwrap_err().to_string();
        assert_eq!(error, format!("{}: format is 2; this program reads 1", path.display()));
    }
}

//! PTX by the hash of its content, and what each kernel compiled to.
//!
//! ```text
//! ptx/<sha256>.ptx               one canonical module each
//! index/<key>/about.json         what the key stands for: target, sources, compiler
//! index/<key>/<symbol>.json      one kernel's outcome
//! facts/<sha256>/<ptxas>.json    what ptxas says of a module
//! ```
//!
//! Every file is written whole and never changed afterwards, so any number of processes may share a store, and one
//! that is killed leaves nothing half done.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use spec::{Kernel, Sm};

use crate::files::{list, read_text_if_any, sha256, write_whole};
use crate::{BuildError, Facts, ToolchainVersion};

/// The file that says what an index stands for.
const ABOUT: &str = "about.json";

/// A folder of compiled kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    root: PathBuf,
}

/// Everything that decides what a kernel compiles to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The target.
    pub sm: Sm,
    /// Hash of the sources.
    pub sources: String,
    /// The compiler.
    pub toolchain: ToolchainVersion,
    /// Flags, profile and the form of generated and canonical text.
    pub recipe: String,
}

impl Origin {
    fn key(&self) -> String {
        // Where the compiler was unpacked from does not change what it makes.
        let text = [self.sm.name(), &self.sources, &self.toolchain.rustc, &self.recipe].join("\n");
        format!("{}-{}", self.sm, &sha256(text.as_bytes())[..16])
    }
}

/// What became of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It compiled to the module with this hash.
    Built {
        /// Hash of the module.
        sha256: String,
    },
    /// It does not compile.
    Uncompilable {
        /// The compiler's first error.
        reason: String,
    },
    /// It compiles, but not to what a kernel may be.
    Refused {
        /// What is wrong with its PTX.
        reason: String,
    },
}

/// One kernel's file.
#[derive(Serialize, Deserialize)]
struct Record {
    kernel: Kernel,
    outcome: Outcome,
}

/// The kernels of one origin.
#[derive(Clone, Debug)]
pub struct Index<'a> {
    store: &'a Store,
    folder: PathBuf,
    origin: Origin,
}

impl Store {
    /// The store in this folder; it need not exist yet.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the module with this hash is or would be.
    pub fn ptx_path(&self, sha256: &str) -> PathBuf {
        self.root.join("ptx").join(format!("{sha256}.ptx"))
    }

    /// Keeps a module; returns its hash.
    pub fn put_ptx(&self, text: &str) -> Result<String, BuildError> {
        let hash = sha256(text.as_bytes());
        if !self.holds(&hash)? {
            write_whole(&self.ptx_path(&hash), text.as_bytes())?;
        }
        Ok(hash)
    }

    /// Whether the module with this hash is here, undamaged.
    pub fn holds(&self, hash: &str) -> Result<bool, BuildError> {
        Ok(read_text_if_any(&self.ptx_path(hash))?.is_some_and(|text| sha256(text.as_bytes()) == hash))
    }

    /// What ptxas said of a module: the version asked for, or any if none is.
    pub fn facts(&self, sha256: &str, ptxas: Option<&str>) -> Result<Option<Facts>, BuildError> {
        let folder = self.root.join("facts").join(sha256);
        let path = match ptxas {
            Some(version) => Some(folder.join(format!("{version}.json"))),
            None => list(&folder)?.into_iter().rfind(|path| path.extension().is_some_and(|e| e == "json")),
        };
        path.map_or(Ok(None), |path| read_json(&path))
    }

    /// Keeps what ptxas said of a module.
    pub fn put_facts(&self, sha256: &str, facts: &Facts) -> Result<(), BuildError> {
        write_json(&self.root.join("facts").join(sha256).join(format!("{}.json", facts.ptxas)), facts)
    }

    /// Where the PTX of a feature of the kernels crate is or would be.
    pub(crate) fn feature_path(&self, feature: &str, origin: &Origin) -> PathBuf {
        self.root.join("features").join(format!("{feature}-{}.ptx", origin.key()))
    }

    /// Where the library for the CPU machine with this key is or would be.
    pub fn simt_path(&self, key: &str) -> PathBuf {
        self.root.join("simt").join(format!("{key}{}", std::env::consts::DLL_SUFFIX))
    }

    /// The kernels of an origin; begins it if the store has none.
    pub fn index(&self, origin: &Origin) -> Result<Index<'_>, BuildError> {
        let folder = self.root.join("index").join(origin.key());
        let about = folder.join(ABOUT);
        if !about.is_file() {
            write_json(&about, origin)?;
        }
        Ok(Index { store: self, folder, origin: origin.clone() })
    }

    /// The origins the store has for a target, the newest first.
    pub fn indexes(&self, sm: Sm) -> Result<Vec<Index<'_>>, BuildError> {
        let mut found = Vec::new();
        for folder in list(&self.root.join("index"))? {
            let about = folder.join(ABOUT);
            let Some(origin) = read_json::<Origin>(&about)? else { continue };
            if origin.sm == sm {
                let made = about.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((made, Index { store: self, folder, origin }));
            }
        }
        found.sort_by_key(|(made, _)| std::cmp::Reverse(*made));
        Ok(found.into_iter().map(|(_, index)| index).collect())
    }
}

impl Index<'_> {
    /// What it holds the outcomes of.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Its kernels that were built.
    pub fn kernels(&self) -> Result<Vec<Kernel>, BuildError> {
        let mut built = Vec::new();
        for path in list(&self.folder)? {
            if let Some(Record { kernel, outcome: Outcome::Built { sha256 } }) = read_record(&path)?
                && self.store.holds(&sha256)?
            {
                built.push(kernel);
            }
        }
        Ok(built)
    }

    /// What became of a kernel; `None` if it was not tried, or its module is missing or damaged.
    pub fn get(&self, kernel: &Kernel) -> Result<Option<Outcome>, BuildError> {
        match read_record(&self.path(kernel))? {
            Some(Record { outcome: Outcome::Built { sha256 }, .. }) if !self.store.holds(&sha256)? => Ok(None),
            record => Ok(record.map(|record| record.outcome)),
        }
    }

    /// Keeps what became of a kernel.
    pub fn put(&self, kernel: &Kernel, outcome: &Outcome) -> Result<(), BuildError> {
        write_json(&self.path(kernel), &Record { kernel: *kernel, outcome: outcome.clone() })
    }

    fn path(&self, kernel: &Kernel) -> PathBuf {
        self.folder.join(format!("{}.json", kernel.symbol()))
    }
}

/// A kernel's file; `None` for any other file of an index.
fn read_record(path: &Path) -> Result<Option<Record>, BuildError> {
    let is_record = path.extension().is_some_and(|e| e == "json") && !path.ends_with(ABOUT);
    if is_record { read_json(path) } else { Ok(None) }
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, BuildError> {
    let Some(text) = read_text_if_any(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(BuildError::malformed(path))
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), BuildError> {
    let mut text = serde_json::to_string_pretty(value).map_err(BuildError::malformed(path))?;
    text.push('\n');
    write_whole(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use spec::{Family, Problem, Variant};

    use super::*;

    fn origin(sources: &str) -> Origin {
        let toolchain = ToolchainVersion { rustc: "rustc 1.96.0".to_owned(), packages: Vec::new() };
        Origin { sm: Sm::Sm80, sources: sources.to_owned(), toolchain, recipe: String::new() }
    }

    fn kernel() -> Kernel {
        Variant::smallest(Family::Mma).kernel(&Problem::SEED)
    }

    #[test]
    fn an_outcome_belongs_to_its_origin() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let built = Outcome::Built { sha256: store.put_ptx("text").unwrap() };
        store.index(&origin("a")).unwrap().put(&kernel(), &built).unwrap();
        assert_eq!(store.index(&origin("a")).unwrap().get(&kernel()).unwrap(), Some(built));
        assert_eq!(store.index(&origin("b")).unwrap().get(&kernel()).unwrap(), None);
        assert_eq!(store.indexes(Sm::Sm80).unwrap().len(), 2);
        assert_eq!(store.indexes(Sm::Sm89).unwrap().len(), 0);
    }

    #[test]
    fn another_package_of_the_same_compiler_is_the_same_origin() {
        let mut other = origin("a");
        other.toolchain.packages.push("rustc-web_1.96.0".to_owned());
        assert_eq!(other.key(), origin("a").key());
        other.toolchain.rustc.push('1');
        assert_ne!(other.key(), origin("a").key());
    }

    #[test]
    fn a_damaged_or_missing_module_counts_as_not_built() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let sha256 = store.put_ptx("text").unwrap();
        let index = store.index(&origin("a")).unwrap();
        index.put(&kernel(), &Outcome::Built { sha256: sha256.clone() }).unwrap();
        std::fs::write(store.ptx_path(&sha256), "te").unwrap();
        assert_eq!(index.get(&kernel()).unwrap(), None);
        assert_eq!(store.put_ptx("text").unwrap(), sha256, "and is replaced when it is built again");
        assert!(index.get(&kernel()).unwrap().is_some());
    }

    #[test]
    fn what_a_killed_writer_leaves_is_not_seen() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let index = store.index(&origin("a")).unwrap();
        std::fs::write(index.folder.join(".partial-xyz"), "{").unwrap();
        assert_eq!(index.kernels().unwrap(), []);
        std::fs::create_dir_all(dir.path().join("index/sm_80-begun")).unwrap();
        assert_eq!(index.get(&kernel()).unwrap(), None);
        assert_eq!(store.indexes(Sm::Sm80).unwrap().len(), 1);
    }

    #[test]
    fn a_malformed_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let index = store.index(&origin("a")).unwrap();
        std::fs::write(index.path(&kernel()), "{").unwrap();
        let error = index.get(&kernel()).unwrap_err().to_string();
        assert!(error.starts_with(&index.path(&kernel()).display().to_string()), "{error}");
    }
}

//! Where the project's own files are, and the hash of its sources.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::BuildError;
use crate::files::{hex, list};

/// A checkout of the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// Finds the checkout: `EVOATTN_ROOT`, else the current folder or one above it, else where this program was built.
    pub fn find() -> Result<Self, BuildError> {
        if let Some(root) = std::env::var_os("EVOATTN_ROOT") {
            return Self::at(Path::new(&root));
        }
        let here = std::env::current_dir().map_err(BuildError::io("find", Path::new(".")))?;
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.ancestors()
            .chain(built_in.ancestors())
            .find_map(|folder| Self::at(folder).ok())
            .ok_or(BuildError::NoRoot { start: here })
    }

    /// The checkout at `root`. The catalog alone will do where nothing is to be built.
    pub fn at(root: &Path) -> Result<Self, BuildError> {
        let is_root = ["kernels/Cargo.toml", "catalog/manifest.json"].iter().any(|file| root.join(file).is_file());
        if is_root { Ok(Self { root: root.to_owned() }) } else { Err(BuildError::NoRoot { start: root.to_owned() }) }
    }

    /// Whether the kernels' sources are here.
    pub fn has_sources(&self) -> bool {
        self.kernels().join("Cargo.toml").is_file()
    }

    /// Its top folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The GPU crate.
    pub fn kernels(&self) -> PathBuf {
        self.root.join("kernels")
    }

    /// Where everything built or fetched goes.
    pub fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// The store that builds fill by default.
    pub fn store(&self) -> PathBuf {
        self.target().join("evoattn/store")
    }

    /// The shipped PTX.
    pub fn catalog(&self) -> PathBuf {
        self.root.join("catalog")
    }

    /// Hash of the sources that PTX is made from.
    pub fn ptx_sources(&self) -> Result<String, BuildError> {
        self.hash_crates(&["kernels", "spec"])
    }

    /// Hash of the sources that a library for the CPU machine is made from.
    pub fn simt_sources(&self) -> Result<String, BuildError> {
        self.hash_crates(&["kernels", "spec", "simt"])
    }

    fn hash_crates(&self, crates: &[&str]) -> Result<String, BuildError> {
        let mut hash = Sha256::new();
        for name in crates {
            self.hash_path(&self.root.join(name).join("Cargo.toml"), &mut hash)?;
            self.hash_path(&self.root.join(name).join("src"), &mut hash)?;
        }
        Ok(hex(hash.finalize().as_slice()))
    }

    fn hash_path(&self, path: &Path, hash: &mut Sha256) -> Result<(), BuildError> {
        if path.is_dir() {
            return list(path)?.iter().try_for_each(|child| self.hash_path(child, hash));
        }
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            // The crate may not need the file; its absence is part of what is hashed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(BuildError::io("read", path)(error)),
        };
        let name = path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned();
        // Lengths keep the end of one file apart from the start of the next.
        hash.update(format!("{name} {}\n", bytes.len()));
        hash.update(&bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_whole;

    fn project(dir: &Path) -> Project {
        for name in ["kernels", "spec"] {
            write_whole(&dir.join(name).join("Cargo.toml"), b"[package]").unwrap();
            write_whole(&dir.join(name).join("src/lib.rs"), b"").unwrap();
        }
        Project::at(dir).unwrap()
    }

    #[test]
    fn a_folder_without_kernels_is_no_checkout() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Project::at(dir.path()), Err(BuildError::NoRoot { start: dir.path().to_owned() }));
    }

    #[test]
    fn any_source_file_changes_the_hash_and_other_files_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let project = project(dir.path());
        let before = project.ptx_sources().unwrap();
        write_whole(&dir.path().join("kernels/tests/a.rs"), b"x").unwrap();
        assert_eq!(project.ptx_sources().unwrap(), before);
        write_whole(&dir.path().join("kernels/src/gpu/a.rs"), b"x").unwrap();
        let after = project.ptx_sources().unwrap();
        assert_ne!(after, before);
        std::fs::rename(dir.path().join("kernels/src/gpu/a.rs"), dir.path().join("kernels/src/gpu/b.rs")).unwrap();
        assert_ne!(project.ptx_sources().unwrap(), after);
    }
}

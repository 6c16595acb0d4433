//! A checkout with one file of the kernels crate rewritten: what an edited kernel is built from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use spec::Family;

use crate::files::{list, read_text, sha256};
use crate::{BuildError, Library, Project};

/// What a build reads beside the kernels crate and Cargo's files at the top.
const OTHERS: [&str; 2] = ["spec", "simt"];
/// Copies that nobody asked for in so long are removed; whoever asks again gets a new one.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

impl Project {
    /// The file that holds a family's kernel.
    pub fn family_source(&self, family: Family) -> PathBuf {
        self.root().join(family_file(family))
    }

    /// A checkout with a kernels crate of its own, in which `text` stands in the place of a family's kernel; all else it shares with
    /// this one. What is built of it goes where this checkout's builds go; the same edit of the same sources has the same folder.
    pub fn with_family_source(&self, family: Family, text: &str) -> Result<Self, BuildError> {
        let key = sha256(format!("{}\n{family}\n{text}", self.simt_sources()?).as_bytes());
        let folder = self.target().join("evoattn/edits").join(&key[..16]);
        if !folder.is_dir() {
            let parent = folder.parent().unwrap_or(&folder);
            fs::create_dir_all(parent).map_err(BuildError::io("create", parent))?;
            forget_old(parent)?;
            // Made elsewhere and moved, so that a folder that is there is whole.
            let draft = tempfile::tempdir_in(parent).map_err(BuildError::io("create a folder in", parent))?;
            self.copy_to(draft.path(), family, text)?;
            match fs::rename(draft.path(), &folder) {
                Ok(()) => drop(draft.keep()),
                // Another process made the same.
                Err(_) if folder.is_dir() => {}
                Err(error) => return Err(BuildError::io("create", &folder)(error)),
            }
        }
        let now = fs::File::open(&folder).and_then(|folder| folder.set_modified(SystemTime::now()));
        now.map_err(BuildError::io("mark", &folder))?;
        Self::at(&folder)
    }

    fn copy_to(&self, folder: &Path, family: Family, text: &str) -> Result<(), BuildError> {
        for name in ["Cargo.lock", "kernels"] {
            copy(&self.root().join(name), &folder.join(name))?;
        }
        fs::create_dir_all(self.target()).map_err(BuildError::io("create", &self.target()))?;
        let manifest = self.root().join("Cargo.toml");
        let mut crates = read_text(&manifest)?;
        for name in OTHERS.into_iter().chain(["target"]) {
            let (original, link) = (self.root().join(name), folder.join(name));
            let original = fs::canonicalize(&original).map_err(BuildError::io("find", &original))?;
            std::os::unix::fs::symlink(&original, &link).map_err(BuildError::io("link", &link))?;
            // By the path that it always has, or Cargo would compile it anew for each edit.
            crates =
                crates.replace(&format!("path = {name:?}"), &format!("path = {:?}", original.display().to_string()));
        }
        let manifest = folder.join("Cargo.toml");
        fs::write(&manifest, crates).map_err(BuildError::io("write", &manifest))?;
        let file = folder.join(family_file(family));
        fs::write(&file, text).map_err(BuildError::io("write", &file))
    }
}

impl Library {
    /// A library of the same tools whose kernels of one family are those of `text`, which stands in the place of
    /// [`Project::family_source`]. It has no catalog: edited code is always compiled.
    pub fn with_family_source(&self, family: Family, text: &str) -> Result<Self, BuildError> {
        let project = self.project().with_family_source(family, text)?;
        Self::of(project, self.toolchain().cloned(), self.ptxas().cloned())
    }
}

fn family_file(family: Family) -> String {
    format!("kernels/src/family/{family}.rs")
}

fn forget_old(copies: &Path) -> Result<(), BuildError> {
    for copy in list(copies)? {
        let modified = fs::metadata(&copy).and_then(|copy| copy.modified());
        if modified.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > KEPT)) {
            // Another process may be at it too.
            let _ = fs::remove_dir_all(&copy);
        }
    }
    Ok(())
}

/// Copies a file, or a folder with all it holds.
fn copy(from: &Path, to: &Path) -> Result<(), BuildError> {
    if from.is_dir() {
        fs::create_dir_all(to).map_err(BuildError::io("create", to))?;
        return list(from)?.iter().try_for_each(|child| copy(child, &to.join(child.file_name().unwrap_or_default())));
    }
    fs::copy(from, to).map_err(BuildError::io("copy", from)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_whole;

    /// A checkout in which the kernels of two families are `old`.
    fn checkout(dir: &Path) -> Project {
        for name in ["Cargo.toml", "Cargo.lock"] {
            write_whole(&dir.join(name), b"").unwrap();
        }
        for name in OTHERS.into_iter().chain(["kernels"]) {
            write_whole(&dir.join(name).join("Cargo.toml"), b"[package]").unwrap();
        }
        for file in [Family::Tiled, Family::Mma].map(family_file) {
            write_whole(&dir.join(file), b"old").unwrap();
        }
        Project::at(dir).unwrap()
    }

    #[test]
    fn copies_that_are_not_asked_for_any_more_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let project = checkout(dir.path());
        let edit = |text: &str| project.with_family_source(Family::Tiled, text).unwrap();
        let age = |edit: &Project| {
            let long_ago = SystemTime::now() - 2 * KEPT;
            fs::File::open(edit.root()).unwrap().set_modified(long_ago).unwrap();
        };
        let [first, second] = ["first", "second"].map(edit);
        [&first, &second].into_iter().for_each(age);
        assert_eq!(edit("second"), second);
        let third = edit("third");
        assert_eq!([&first, &second, &third].map(|edit| edit.root().is_dir()), [false, true, true]);
        assert_eq!(edit("first"), first);
    }

    #[test]
    fn an_edit_leaves_the_checkout_as_it_is_and_changes_the_copy_alone() {
        let dir = tempfile::tempdir().unwrap();
        let project = checkout(dir.path());
        let before = project.ptx_sources().unwrap();
        let edited = project.with_family_source(Family::Tiled, "new").unwrap();
        assert_eq!(read_text(&edited.family_source(Family::Tiled)).unwrap(), "new");
        assert_eq!(read_text(&edited.family_source(Family::Mma)).unwrap(), "old");
        assert_eq!(project.ptx_sources().unwrap(), before);
        assert_ne!(edited.ptx_sources().unwrap(), before);
        assert_eq!(fs::canonicalize(edited.target()).unwrap(), fs::canonicalize(project.target()).unwrap());
        assert_eq!(project.with_family_source(Family::Tiled, "new").unwrap(), edited);
        assert_ne!(project.with_family_source(Family::Mma, "new").unwrap(), edited);
        let same = project.with_family_source(Family::Tiled, "old").unwrap();
        assert_eq!(same.ptx_sources().unwrap(), before, "an edit that changes nothing is no other source");
    }
}

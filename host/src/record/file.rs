//! Files that are written whole or not at all.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What the system says.
    pub error: std::io::Error,
}

impl FileError {
    /// For `map_err`.
    pub fn at(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        |error| Self { path: path.to_owned(), error }
    }
}

/// Writes a file whole: readers see the old content or the new, whatever happens in between. Makes missing folders.
pub fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let at = FileError::at(path);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(&at)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(&at)?;
    file.write_all(content).map_err(&at)?;
    file.as_file().sync_all().map_err(&at)?;
    readable_by_all(file.as_file()).map_err(&at)?;
    file.persist(path).map_err(|error| at(error.error))?;
    Ok(())
}

/// Temporary files are private; results are not.
fn readable_by_all(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/result.json");
        write(&path, b"old").unwrap();
        // A folder in the way of the rename.
        let blocked = folder.path().join("blocked");
        std::fs::create_dir_all(blocked.join("child")).unwrap();
        let error = write(&blocked, b"new").unwrap_err();
        assert!(error.to_string().starts_with(&blocked.display().to_string()), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}

//! An append-only log of JSON lines that survives being killed at any moment.
//!
//! Each line is `{"sum":"<16 hex digits>","entry":<JSON>}`, where `sum` is the start of SHA-256 over the previous line's
//! sum and the entry's text. A line is on disk before [`Log::append`] returns. A last line that was cut off is removed
//! when the log is opened again; any other damage is an error, since what follows it cannot be trusted.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::file::FileError;

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process writes to it.
    #[error("{}: another process is using it", .0.display())]
    InUse(PathBuf),
    /// A line in the middle is damaged.
    #[error("{}: line {line} is damaged; nothing after it can be trusted", path.display())]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
    },
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    sum: String,
}

impl Log {
    /// Opens a log, or starts one, and returns it with the entries it holds.
    pub fn open(path: &Path) -> Result<(Self, Vec<String>), LogError> {
        let at = FileError::at(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(&at)?;
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(&at)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(at(error).into()),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(&at)?;
        let (entries, sum, valid) = read(path, &bytes)?;
        file.set_len(valid as u64).map_err(&at)?;
        file.seek(SeekFrom::End(0)).map_err(&at)?;
        Ok((Self { file, path: path.to_owned(), sum }, entries))
    }

    /// Appends an entry, which is JSON without line breaks, and waits until it is on disk.
    pub fn append(&mut self, entry: &str) -> Result<(), LogError> {
        let (line, sum) = line(&self.sum, entry);
        let at = FileError::at(&self.path);
        self.file.write_all(line.as_bytes()).map_err(&at)?;
        self.file.sync_data().map_err(&at)?;
        self.sum = sum;
        Ok(())
    }
}

/// The text of a log that holds these entries from the start, each JSON without line breaks.
pub fn text<'a>(entries: impl IntoIterator<Item = &'a str>) -> String {
    let (mut text, mut sum) = (String::new(), String::new());
    for entry in entries {
        let (line, next) = line(&sum, entry);
        text += &line;
        sum = next;
    }
    text
}

/// The line of an entry, and its sum.
fn line(previous: &str, entry: &str) -> (String, String) {
    let sum = checksum(previous, entry);
    (format!("{{\"sum\":\"{sum}\",\"entry\":{entry}}}\n"), sum)
}

/// The entries of a log that nobody writes to any more.
pub fn entries(path: &Path, bytes: &[u8]) -> Result<Vec<String>, LogError> {
    read(path, bytes).map(|(entries, ..)| entries)
}

/// Entries, last sum, and bytes up to the end of the last whole line.
fn read(path: &Path, bytes: &[u8]) -> Result<(Vec<String>, String, usize), LogError> {
    let (mut entries, mut sum, mut valid) = (Vec::new(), String::new(), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match entry(line, &sum) {
            Some(entry) => {
                sum = checksum(&sum, entry);
                valid += line.len();
                entries.push(entry.to_owned());
            }
            None if valid + line.len() == bytes.len() => break,
            None => return Err(LogError::Damaged { path: path.to_owned(), line: entries.len() + 1 }),
        }
    }
    Ok((entries, sum, valid))
}

fn entry<'a>(line: &'a [u8], previous: &str) -> Option<&'a str> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("}\n")?;
    let (sum, entry) = line.strip_prefix("{\"sum\":\"")?.split_once("\",\"entry\":")?;
    (checksum(previous, entry) == sum).then_some(entry)
}

fn checksum(previous: &str, entry: &str) -> String {
    let digest = Sha256::new().chain_update(previous).chain_update(entry).finalize();
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(path: &Path) -> Vec<u8> {
        let (mut log, entries) = Log::open(path).unwrap();
        assert!(entries.is_empty());
        for i in 0..5 {
            log.append(&format!("{{\"i\":{i}}}")).unwrap();
        }
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_torn_tail_is_repaired_wherever_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let whole = filled(&path);
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut log, entries) = Log::open(&path).unwrap();
            assert_eq!(entries.len(), whole[..cut].iter().filter(|byte| **byte == b'\n').count());
            for i in entries.len()..5 {
                log.append(&format!("{{\"i\":{i}}}")).unwrap();
            }
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn damage_in_the_middle_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let whole = String::from_utf8(filled(&path)).unwrap();
        let edited = whole.replace("{\"i\":2}", "{\"i\":7}");
        let missing: String =
            whole.split_inclusive('\n').enumerate().filter(|(i, _)| *i != 1).map(|(_, l)| l).collect();
        for (text, bad) in [(edited, 3), (missing, 2)] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Log::open(&path), Err(LogError::Damaged { line, .. }) if line == bad));
        }
    }

    #[test]
    fn a_log_written_at_once_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let whole = filled(&folder.path().join("log"));
        let entries: Vec<String> = (0..5).map(|i| format!("{{\"i\":{i}}}")).collect();
        assert_eq!(text(entries.iter().map(String::as_str)).as_bytes(), whole);
    }

    #[test]
    fn two_writers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let held = Log::open(&path).unwrap();
        assert!(matches!(Log::open(&path), Err(LogError::InUse(_))));
        drop(held);
        assert!(Log::open(&path).is_ok());
    }
}

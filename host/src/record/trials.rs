//! A file of trials: variants to measure somewhere else, for `host work`.

use std::{num::NonZero, path::Path};

use serde::{Deserialize, Serialize};
use spec::{Problem, Variant};

use super::file::{self, FileError};

/// Version of the format.
const SCHEMA: u32 = 1;

/// What is to be measured, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trials {
    schema: u32,
    /// What is asked of the variants.
    pub problem: Problem,
    /// Which part of the space they are, in words.
    pub part: String,
    /// Samples per variant.
    pub rounds: u32,
    /// Seed of the order of subjects.
    pub seed: u64,
    /// The variants.
    pub variants: Vec<Variant>,
}

/// Why a file of trials cannot be used. One line each.
#[derive(Debug, thiserror::Error)]
pub enum TrialsError {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It holds something else.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl Trials {
    /// Shares variants out evenly to `files` files, or to as many as there are variants, neighbours to different ones: each
    /// gets some of every kind.
    pub fn share_out(
        problem: Problem,
        part: &str,
        rounds: u32,
        seed: u64,
        variants: &[Variant],
        files: NonZero<usize>,
    ) -> Vec<Self> {
        let files = files.get().min(variants.len());
        let file = |number: usize| Self {
            schema: SCHEMA,
            problem,
            part: format!("share {} of {files} of {part}", number + 1),
            rounds,
            seed,
            variants: variants.iter().skip(number).step_by(files).copied().collect(),
        };
        (0..files).map(file).collect()
    }

    /// Reads a file of trials.
    pub fn read(path: &Path) -> Result<Self, TrialsError> {
        let text = std::fs::read_to_string(path).map_err(FileError::at(path))?;
        let malformed = |reason| TrialsError::Malformed { path: path.display().to_string(), reason };
        let trials: Self = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if trials.schema != SCHEMA {
            return Err(malformed(format!("its schema is {}; {SCHEMA} is understood", trials.schema)));
        }
        if trials.variants.is_empty() {
            return Err(malformed("it names no variant".to_owned()));
        }
        Ok(trials)
    }

    /// Writes it whole.
    pub fn write(&self, path: &Path) -> Result<(), TrialsError> {
        let malformed = |error: serde_json::Error| {
            let reason = error.to_string();
            TrialsError::Malformed { path: path.display().to_string(), reason }
        };
        let text = serde_json::to_string_pretty(self).map_err(malformed)? + "\n";
        Ok(file::write(path, text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::record::fixture;

    #[test]
    fn every_variant_is_in_one_file_which_comes_back() {
        let variants = &fixture::wide().members()[..10];
        let share_out = |files| Trials::share_out(Problem::SEED, "ten", 20, 7, variants, NonZero::new(files).unwrap());
        let files = share_out(3);
        assert_eq!(files.iter().map(|file| file.variants.len()).collect::<Vec<_>>(), [4, 3, 3]);
        let all: BTreeSet<_> = files.iter().flat_map(|file| &file.variants).collect();
        assert_eq!(all, variants.iter().collect());
        assert_eq!(share_out(99).len(), 10);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trials.json");
        files[1].write(&path).unwrap();
        assert_eq!(Trials::read(&path).unwrap(), files[1]);
    }

    #[test]
    fn nonsense_is_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trials.json");
        let one = &fixture::wide().members()[..1];
        let good = Trials::share_out(Problem::SEED, "one", 20, 7, one, NonZero::<usize>::MIN).remove(0);
        good.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to, why) in [
            ("\"schema\": 1", "\"schema\": 2", "its schema is 2; 1 is understood"),
            ("\"rounds\"", "\"laps\"", "unknown field `laps`"),
            ("tile_q=", "tile_z=", "gene number 1 of the variant is unknown"),
        ] {
            std::fs::write(&path, text.replace(from, to)).unwrap();
            let error = Trials::read(&path).unwrap_err().to_string();
            assert!(error.starts_with(&path.display().to_string()) && error.contains(why), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        Trials { variants: vec![], ..good }.write(&path).unwrap();
        assert!(Trials::read(&path).unwrap_err().to_string().ends_with("it names no variant"));
    }
}

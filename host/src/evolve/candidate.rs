//! What is tried: a variant of the project's own kernels, or of a kernel whose source somebody rewrote.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use spec::{Family, Variant};

/// A rewritten source, by the start of its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Edit(u64);

impl Edit {
    /// The edit that puts `text` in the place of the family's kernel.
    pub fn of(family: Family, text: &str) -> Self {
        let digest = Sha256::new().chain_update(format!("{family}\n")).chain_update(text).finalize();
        Self(digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Edit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u64::from_str_radix(text, 16) {
            Ok(number) if text.len() == 16 => Ok(Self(number)),
            _ => Err(format!("{text} is no edit; edits are 16 hex digits")),
        }
    }
}

impl From<Edit> for String {
    fn from(edit: Edit) -> Self {
        edit.to_string()
    }
}

impl TryFrom<String> for Edit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A variant and the source it is compiled from. Its text form is the variant's, with `@` and the edit behind it if there
/// is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Candidate {
    /// The variant.
    pub variant: Variant,
    /// The source; `None` for the project's own.
    pub edit: Option<Edit>,
}

impl From<Variant> for Candidate {
    fn from(variant: Variant) -> Self {
        Self { variant, edit: None }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.edit {
            None => self.variant.fmt(f),
            Some(edit) => write!(f, "{}@{edit}", self.variant),
        }
    }
}

impl From<Candidate> for String {
    fn from(candidate: Candidate) -> Self {
        candidate.to_string()
    }
}

impl TryFrom<String> for Candidate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (variant, edit) = match text.split_once('@') {
            Some((variant, edit)) => (variant, Some(edit.parse()?)),
            None => (text.as_str(), None),
        };
        let variant = variant.parse().map_err(|error| format!("{variant}: {error}"))?;
        Ok(Self { variant, edit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_of_the_projects_own_source_is_written_as_its_variant() {
        let variant = Variant::smallest(Family::Mma);
        let plain = Candidate::from(variant);
        assert_eq!(serde_json::to_string(&plain).unwrap(), serde_json::to_string(&variant).unwrap());
        let edited = Candidate { edit: Some(Edit::of(Family::Mma, "fn f() {}")), ..plain };
        for candidate in [plain, edited] {
            let text = serde_json::to_string(&candidate).unwrap();
            assert_eq!(serde_json::from_str::<Candidate>(&text).unwrap(), candidate);
        }
        assert!(Candidate::try_from(format!("{variant}@12")).is_err());
    }

    #[test]
    fn the_same_text_for_another_family_is_another_edit() {
        assert_ne!(Edit::of(Family::Mma, "x"), Edit::of(Family::Tiled, "x"));
    }
}

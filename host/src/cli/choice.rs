//! Which device is asked for.

use std::{path::PathBuf, str::FromStr};

/// A device by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// A GPU if there is one, else the record that fits.
    Auto,
    /// A GPU by its number.
    Cuda(u32),
    /// A record: this file, or the shipped one that fits.
    Replay(Option<PathBuf>),
    /// The CPU machine.
    Simt,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        match (name, rest) {
            ("auto", None) => Ok(Self::Auto),
            ("simt", None) => Ok(Self::Simt),
            ("cuda", None) => Ok(Self::Cuda(0)),
            ("cuda", Some(number)) => {
                number.parse().map(Self::Cuda).map_err(|_| format!("{number} is no number of a GPU"))
            }
            ("replay", None) => Ok(Self::Replay(None)),
            ("replay", Some(file)) if !file.is_empty() => Ok(Self::Replay(Some(file.into()))),
            _ => Err("devices are auto, cuda:N, replay, replay:FILE and simt".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_others_refused() {
        assert_eq!("cuda:3".parse(), Ok(Choice::Cuda(3)));
        assert_eq!("replay:a:b".parse(), Ok(Choice::Replay(Some("a:b".into()))));
        assert_eq!("cuda:x".parse::<Choice>(), Err("x is no number of a GPU".into()));
        for bad in ["", "gpu", "replay:", "simt:1", "auto:0"] {
            assert!(bad.parse::<Choice>().is_err_and(|error| error.starts_with("devices are auto")), "{bad}");
        }
    }
}

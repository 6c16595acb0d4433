//! Results on disk: written whole or appended line by line, versioned, checked when read.

pub mod file;
#[cfg(test)]
pub(crate) mod fixture;
pub mod log;
pub mod sweep;
pub mod t4;
pub mod trials;

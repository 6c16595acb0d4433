//! Plan, launch, measure and evolve attention kernels.

pub mod attention;
pub mod cases;
mod child;
pub mod cli;
pub mod device;
pub mod dispatch;
pub mod driver;
pub mod evolve;
#[cfg(doctest)]
mod guide;
pub mod measure;
pub mod oracle;
pub mod record;
pub mod report;
pub mod shipped;
pub mod tensor;
pub mod verify;

/// For crates that depend on this one: what problems are made of, and where kernels come from.
pub use {builder, spec};

//! From a kernel's name to its code: finds the kernel toolchain, compiles batches of kernels to PTX or to a library for
//! the CPU machine, and keeps the results under the hash of their content.
//!
//! [`Library`] is the way in: it answers "give me this kernel's PTX" from whichever source is here.

mod batch;
mod cargo;
mod catalog;
pub mod check;
mod compile;
mod edit;
mod error;
mod facts;
mod files;
mod fixture;
mod library;
mod machine;
mod messages;
mod part;
mod process;
mod project;
pub mod ptx;
pub mod setup;
mod shipping;
pub mod space;
mod store;
mod toolchain;

pub use catalog::{Catalog, Entry, Manifest, Shipped};
pub use error::BuildError;
pub use facts::{Facts, Ptxas};
pub use files::sha256;
pub use fixture::Fixture;
pub use library::{Library, PtxArtifact};
pub use machine::Machine;
pub use part::{Part, PartError};
pub use project::Project;
pub use shipping::CatalogState;
pub use store::{Index, Origin, Outcome, Store};
pub use toolchain::{PassedOver, Toolchain, ToolchainVersion};

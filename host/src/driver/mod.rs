//! The CUDA driver: the only module that names cust.
//!
//! cust opens devices and owns contexts, streams, events and memory. `raw` declares the calls it lacks, and those that
//! report a kernel's faults, whose codes it has no names for. Objects keep the context of their GPU alive and make it
//! current on the thread that uses them.

mod buffer;
mod error;
mod gpu;
mod graph;
mod module;
mod nvml;
mod raw;
mod stream;
pub mod tensor_map;

pub use buffer::Buffer;
pub use error::DriverError;
pub use gpu::{Gpu, L2Limits, Rates};
pub use graph::Graph;
pub use module::{Argument, Function, Grid, L2Window, Module};
pub use nvml::{Clocks, Monitor};
pub use stream::{Event, Stream};

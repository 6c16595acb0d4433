//! Times, and what to hold them against.

pub mod baseline;
pub mod floor;
pub mod timing;

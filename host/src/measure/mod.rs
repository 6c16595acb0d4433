//! Times, and what to hold them against.

pub mod floor;
pub mod timing;

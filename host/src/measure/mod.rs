//! Times, what to hold them against, and what can be concluded from them.

pub mod baseline;
pub mod floor;
pub mod noise;
pub mod roofline;
pub mod sittings;
pub mod statistics;
pub mod timing;

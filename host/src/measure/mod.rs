//! Times, and what can be concluded from them.

pub mod noise;
pub mod statistics;

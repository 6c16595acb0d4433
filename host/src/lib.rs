//! Plan, launch, measure and evolve attention kernels.

pub mod cases;
pub mod device;
pub mod oracle;

//! Plan, launch, measure and evolve attention kernels.

pub mod cases;
pub mod device;
pub mod evolve;
pub mod measure;
pub mod record;

//! What one warp gives the other gets.

use std::vec::Vec;

use super::Probe;
use super::values::{bytes, noise};
use crate::probes::mbarrier::probe_mbarrier;

fn input() -> Vec<u8> {
    bytes(noise(9 * 32))
}

pub(super) const PROBES: &[Probe] =
    &[Probe::new("probe_mbarrier", probe_mbarrier, 64, input, <[u8]>::to_vec).shared(64 + 32 * 4).hopper()];

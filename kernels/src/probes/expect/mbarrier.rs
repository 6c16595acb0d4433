//! What one warp or block gives the other gets.

use std::vec::Vec;

use super::Probe;
use super::values::{bytes, noise};
use crate::probes::mbarrier::{probe_mbarrier, probe_mbarrier_peers};

fn input() -> Vec<u8> {
    bytes(noise(9 * 32))
}

fn pairs() -> Vec<u8> {
    bytes(noise(9 * 32 * 2))
}

pub(super) const PROBES: &[Probe] = &[
    Probe::new("probe_mbarrier", probe_mbarrier, 64, input, <[u8]>::to_vec).shared(64 + 32 * 4).hopper(),
    Probe::new("probe_mbarrier_peers", probe_mbarrier_peers, 32, pairs, <[u8]>::to_vec)
        .blocks(2)
        .clusters(2)
        .shared(64 + 32 * 8)
        .hopper(),
];

//! The input, passed through.

use std::vec::Vec;

use super::Probe;
use super::values::{bytes, noise};
use crate::probes::grid::probe_overlapping_grids;

fn input() -> Vec<u8> {
    bytes(noise(64))
}

pub(super) const PROBES: &[Probe] =
    &[Probe::new("probe_overlapping_grids", probe_overlapping_grids, 64, input, <[u8]>::to_vec).hopper()];

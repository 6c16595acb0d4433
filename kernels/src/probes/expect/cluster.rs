//! Pairs of another thread.

use std::vec::Vec;

use super::Probe;
use super::values::{bytes, noise, words};
use crate::probes::cluster::probe_cluster;

fn input() -> Vec<u8> {
    bytes(noise(64 * 2))
}

fn passed_on(input: &[u8]) -> Vec<u8> {
    let input: Vec<_> = words(input).collect();
    bytes((0..64).flat_map(|thread| input[(thread + 33) % 64 * 2..][..2].to_vec()))
}

pub(super) const PROBES: &[Probe] =
    &[Probe::new("probe_cluster", probe_cluster, 64, input, passed_on).shared(64 + 64 * 8).hopper()];

//! The same sums without threads.

use std::vec::Vec;

use super::Probe;
use super::values::{bytes, noise, words};
use crate::probes::barrier::{probe_sync_block, probe_sync_group, probe_sync_warp};

const THREADS: u32 = 256;

fn input() -> Vec<u8> {
    bytes(noise(THREADS))
}

fn passed_on(members: &[u32], rounds: u32) -> Vec<u32> {
    (0..rounds).fold(members.to_vec(), |values, _| {
        let neighbours = values.iter().cycle().skip(1);
        values.iter().zip(neighbours).map(|(value, next)| value.wrapping_add(*next)).collect()
    })
}

fn by_groups(input: &[u8], threads: usize, rounds: &[u32]) -> Vec<u8> {
    let input: Vec<_> = words(input).collect();
    let groups = input.chunks(threads).zip(rounds.iter().cycle());
    bytes(groups.flat_map(|(members, rounds)| passed_on(members, *rounds)))
}

pub(super) const PROBES: &[Probe] = &[
    Probe::new("probe_sync_block", probe_sync_block, THREADS, input, |input| by_groups(input, 256, &[90]))
        .shared(4 * THREADS),
    Probe::new("probe_sync_warp", probe_sync_warp, THREADS, input, |input| by_groups(input, 32, &[90]))
        .shared(4 * THREADS),
    Probe::new("probe_sync_group", probe_sync_group, THREADS, input, |input| by_groups(input, 128, &[90, 60]))
        .shared(4 * THREADS),
];

//! Exchange among the lanes of two warps, which must not mix.

use std::vec::Vec;

use super::Probe;
use super::values::{EDGES, bytes, noise, words};
use crate::probes::warp::{probe_any_lane, probe_shuffle_xor, probe_uniform};

/// Bits of all kinds: a shuffle changes none of them.
fn values() -> Vec<u8> {
    bytes(EDGES.map(f32::to_bits).into_iter().chain([0x7f80_0001, 0xffff_ffff]).chain(noise(30)))
}

fn shuffled(input: &[u8]) -> Vec<u8> {
    let input: Vec<_> = words(input).collect();
    bytes(
        [1, 2, 4, 8, 16, 21]
            .into_iter()
            .flat_map(|distance| (0..64).map(move |thread| thread ^ distance))
            .map(|i| input[i]),
    )
}

/// Lanes that say yes: none, each alone, all.
fn votes() -> Vec<u8> {
    bytes([0].into_iter().chain((0..32).map(|lane| 1 << lane)).chain([u32::MAX]))
}

fn outcomes(input: &[u8]) -> Vec<u8> {
    bytes(words(input).flat_map(|votes| (0..64).map(move |thread| u32::from(votes != 0 && thread < 32))))
}

pub(super) const PROBES: &[Probe] = &[
    Probe::new("probe_shuffle_xor", probe_shuffle_xor, 64, values, shuffled),
    Probe::new("probe_any_lane", probe_any_lane, 64, votes, outcomes),
    Probe::new("probe_uniform", probe_uniform, 64, values, |input| {
        let input: Vec<_> = words(input).collect();
        bytes((0..64).map(|thread| input[thread / 32 * 32]))
    }),
];

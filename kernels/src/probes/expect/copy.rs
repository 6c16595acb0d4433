//! Copies: the data of another thread, or zeros.

use std::vec::Vec;

use super::Probe;
use super::values::{bytes, noise};
use crate::probes::copy::{
    probe_copy_chunk, probe_copy_chunk_evict_last, probe_copy_chunk_fetch_128, probe_wait_1, probe_wait_2,
    probe_wait_3, probe_wait_4, probe_wait_5, probe_wait_6,
};

/// 16 bytes for each of 64 threads; a third of the threads want none.
fn chunks() -> Vec<u8> {
    bytes(noise(256).chain((0..64).map(|thread| u32::from(thread % 3 != 0))))
}

fn copied(input: &[u8]) -> Vec<u8> {
    let source = (0..64).map(|thread| (thread + 37) % 64);
    source.flat_map(|from| if from % 3 == 0 { [0; 16].to_vec() } else { input[from * 16..][..16].to_vec() }).collect()
}

/// 16 steps of 16 bytes for each of 32 threads.
fn steps() -> Vec<u8> {
    bytes(noise(16 * 32 * 4))
}

const fn copy(name: &'static str, entry: fn(crate::probes::Args)) -> Probe {
    Probe::new(name, entry, 64, chunks, copied).shared(64 * 16)
}

const fn ring(name: &'static str, entry: fn(crate::probes::Args), stages: u32) -> Probe {
    Probe::new(name, entry, 32, steps, |input| input.to_vec()).shared(stages * 32 * 16)
}

pub(super) const PROBES: &[Probe] = &[
    copy("probe_copy_chunk", probe_copy_chunk),
    copy("probe_copy_chunk_evict_last", probe_copy_chunk_evict_last),
    copy("probe_copy_chunk_fetch_128", probe_copy_chunk_fetch_128),
    ring("probe_wait_1", probe_wait_1, 2),
    ring("probe_wait_2", probe_wait_2, 3),
    ring("probe_wait_3", probe_wait_3, 4),
    ring("probe_wait_4", probe_wait_4, 5),
    ring("probe_wait_5", probe_wait_5, 6),
    ring("probe_wait_6", probe_wait_6, 7),
];

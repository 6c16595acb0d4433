//! Memory: what goes in comes out, bit by bit, NaN payloads included.

use std::vec::Vec;

use super::Probe;
use super::values::{EDGES, bytes, noise, words};
use crate::probes::memory::{
    probe_load_chunk, probe_load_pair, probe_load_u16, probe_load_u32, probe_null, probe_shared_chunk,
    probe_shared_pair, probe_shared_words, probe_store_chunk, probe_store_chunk_if, probe_store_f32, probe_store_pair,
    probe_store_u16,
};

const THREADS: u32 = 64;

fn input<const WORDS: u32>() -> Vec<u8> {
    bytes(noise(WORDS * THREADS))
}

/// The edges, signalling NaNs among them, and random bits.
fn edges() -> Vec<u8> {
    bytes(EDGES.map(f32::to_bits).into_iter().chain([0x7f80_0001, 0xffff_ffff]).chain(noise(THREADS - 34)))
}

fn same(input: &[u8]) -> Vec<u8> {
    input.to_vec()
}

/// Each group of words backwards.
fn reversed(input: &[u8], group: usize) -> Vec<u8> {
    let words: Vec<_> = words(input).collect();
    bytes(words.chunks(group).flat_map(|group| group.iter().rev().copied()))
}

pub(super) const PROBES: &[Probe] = &[
    Probe::new("probe_load_u16", probe_load_u16, THREADS, input::<1>, |input| {
        let halves = input[..2 * THREADS as usize].chunks(2);
        bytes(halves.map(|half| u32::from(u16::from_le_bytes([half[0], half[1]]))))
    }),
    Probe::new("probe_load_u32", probe_load_u32, THREADS, input::<1>, |input| reversed(input, THREADS as usize)),
    Probe::new("probe_load_pair", probe_load_pair, THREADS, input::<2>, |input| reversed(input, 2)),
    Probe::new("probe_load_chunk", probe_load_chunk, THREADS, input::<4>, |input| reversed(input, 4)),
    Probe::new("probe_store_u16", probe_store_u16, THREADS, input::<1>, |input| {
        bytes(words(input).map(|word| word.rotate_left(16)))
    }),
    Probe::new("probe_store_pair", probe_store_pair, THREADS, input::<2>, |input| reversed(input, 2)),
    Probe::new(
        "probe_store_chunk",
        probe_store_chunk,
        THREADS,
        || bytes((0..THREADS).map(|thread| thread << 24)),
        |input| bytes(words(input).flat_map(|word| word..word + 4)),
    ),
    Probe::new("probe_store_chunk_if", probe_store_chunk_if, THREADS, input::<4>, |input| {
        let chunks = input.chunks(16).map(|chunk| if chunk[0] % 2 == 0 { chunk } else { &[0; 16] });
        chunks.flatten().copied().collect()
    }),
    Probe::new("probe_store_f32", probe_store_f32, THREADS, edges, same),
    Probe::new("probe_null", probe_null, 32, || bytes([0]), |_| bytes([1, 0])),
    Probe::new("probe_shared_words", probe_shared_words, THREADS, edges, |input| {
        bytes(words(input).zip(0..).flat_map(|(word, thread)| [word, word, 0xbeef_0000 | thread]))
    })
    .shared(16 * THREADS),
    Probe::new("probe_shared_pair", probe_shared_pair, THREADS, input::<2>, same).shared(16 * THREADS),
    Probe::new("probe_shared_chunk", probe_shared_chunk, THREADS, input::<4>, same).shared(16 * THREADS),
];

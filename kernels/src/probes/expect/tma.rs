//! Boxes, their rows' chunks permuted.

use std::vec;
use std::vec::Vec;

use spec::PlainMap;

use super::Probe;
use super::values::{bytes, noise};
use crate::probes::tma::{probe_tma_load, probe_tma_load_multicast};

/// Rows of a head, of which the last box lacks four.
const ROWS: u32 = 20;

/// Bytes of a row.
const ROW: usize = 128;

/// Two heads of 64 columns.
fn input() -> Vec<u8> {
    bytes(noise(2 * ROWS * ROW as u32 / 4))
}

fn map(address: u64) -> PlainMap {
    let head = u64::from(ROWS) * ROW as u64;
    PlainMap { address, extents: [64, ROWS, 2, 1], strides: [ROW as u64, head, 2 * head], box_rows: 8 }
}

/// A head's box as it lies in shared memory.
fn lying(input: &[u8], head: usize, index: usize) -> Vec<u8> {
    let rows = input.chunks(ROW).skip(head * ROWS as usize).take(ROWS as usize);
    let mut lying = vec![0; 8 * ROW];
    for (row, columns) in rows.skip(index * 8).take(8).enumerate() {
        for (chunk, columns) in columns.chunks(16).enumerate() {
            lying[row * ROW + (chunk ^ row) * 16..][..16].copy_from_slice(columns);
        }
    }
    lying
}

fn second_head(input: &[u8]) -> Vec<u8> {
    (0..3).flat_map(|index| lying(input, 1, index)).collect()
}

fn head_per_cluster(input: &[u8]) -> Vec<u8> {
    let block = |head, rank| {
        let last = if rank == 1 { lying(input, head, 2) } else { vec![0; 8 * ROW] };
        [lying(input, head, 0), lying(input, head, 1), last].concat()
    };
    [block(0, 0), block(0, 1), block(1, 0), block(1, 1)].concat()
}

/// Three boxes and a barrier.
const SHARED: u32 = 3 * 8 * ROW as u32 + 8;

pub(super) const PROBES: &[Probe] = &[
    Probe::new("probe_tma_load", probe_tma_load, 64, input, second_head).shared(SHARED).mapped(map).hopper(),
    Probe::new("probe_tma_load_multicast", probe_tma_load_multicast, 64, input, head_per_cluster)
        .blocks(4)
        .clusters(2)
        .shared(SHARED)
        .mapped(map)
        .hopper(),
];

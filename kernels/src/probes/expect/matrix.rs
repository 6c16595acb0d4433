//! `ldmatrix` and `stmatrix` by PTX's definition.

use std::vec::Vec;

use super::Probe;
use super::values::{bytes, noise};
use crate::probes::matrix::{probe_load_matrices, probe_load_matrices_transposed, probe_store_matrices};

fn input() -> Vec<u8> {
    bytes(noise(32 * 4))
}

fn loaded(input: &[u8], transposed: bool) -> Vec<u8> {
    let element = |matrix: usize, row: usize, column: usize| {
        let (row, column) = if transposed { (column, row) } else { (row, column) };
        let at = ((8 * matrix + row) * 5 + 3) % 32 * 16 + column * 2;
        u32::from(u16::from_le_bytes([input[at], input[at + 1]]))
    };
    let lanes = (0..32).flat_map(|lane| (0..4).map(move |matrix| (lane, matrix)));
    bytes(lanes.map(|(lane, matrix)| {
        let (row, column) = (lane / 4, lane % 4 * 2);
        element(matrix, row, column) | element(matrix, row, column + 1) << 16
    }))
}

fn stored(input: &[u8]) -> Vec<u8> {
    let mut output = std::vec![0; 512];
    for lane in 0..32 {
        for matrix in 0..4 {
            // The lane holds two elements of row lane / 4, whose address lane 8 matrix + lane / 4 gave.
            let row = ((8 * matrix + lane / 4) * 5 + 3) % 32;
            let to = row * 16 + lane % 4 * 4;
            output[to..to + 4].copy_from_slice(&input[(lane * 4 + matrix) * 4..][..4]);
        }
    }
    output
}

pub(super) const PROBES: &[Probe] = &[
    Probe::new("probe_load_matrices", probe_load_matrices, 32, input, |input| loaded(input, false)).shared(512),
    Probe::new("probe_load_matrices_transposed", probe_load_matrices_transposed, 32, input, |input| {
        loaded(input, true)
    })
    .shared(512),
    Probe::new("probe_store_matrices", probe_store_matrices, 32, input, stored).shared(512).hopper(),
];

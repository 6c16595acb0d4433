//! `ldmatrix` by PTX's definition.

use std::vec::Vec;

use super::Probe;
use super::values::{bytes, noise};
use crate::probes::matrix::{probe_load_matrices, probe_load_matrices_transposed};

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

pub(super) const PROBES: &[Probe] = &[
    Probe::new("probe_load_matrices", probe_load_matrices, 32, input, |input| loaded(input, false)).shared(512),
    Probe::new("probe_load_matrices_transposed", probe_load_matrices_transposed, 32, input, |input| {
        loaded(input, true)
    })
    .shared(512),
];

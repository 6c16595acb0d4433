//! Matrix products by their definition, on numbers whose sums are exact in any order.

use std::vec::Vec;

use super::element::{BF16, F16, Format, e4m3, nearest_e4m3};
use super::values::{bytes, float_bytes, noise};
use super::{Agreement, Probe};
use crate::probes::wgmma::{
    probe_wgmma_registers_bf16, probe_wgmma_registers_e4m3, probe_wgmma_registers_f16, probe_wgmma_shared_bf16,
    probe_wgmma_shared_e4m3, probe_wgmma_shared_f16,
};

const SIZE: usize = 64;

/// Two matrices of whole numbers from -8 to 8, and a few edges: infinities that meet zeros, NaN, and a number so small that
/// it must be alone in all sums to stay exact.
fn input(format: &Format, tiny: u16) -> Vec<u8> {
    let whole = noise(2 * SIZE as u32 * SIZE as u32).map(|x| format.nearest((x % 17) as f32 - 8.0));
    let mut elements: Vec<_> = whole.collect();
    elements[7 * SIZE..8 * SIZE].fill(0);
    (0..SIZE).for_each(|row| elements[row * SIZE + 7] = 0);
    elements[7 * SIZE + 3] = tiny;
    elements[20 * SIZE + 40] = format.nearest(f32::INFINITY);
    elements[21 * SIZE + 2] = format.nearest(-0.0);
    elements[SIZE * SIZE + 30 * SIZE + 50] = format.nearest(f32::NAN);
    elements[SIZE * SIZE + 31 * SIZE + 63] = format.nearest(f32::NEG_INFINITY);
    bytes(elements.chunks(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16))
}

/// The matrices `a` and `b` by row and column.
fn operands(input: &[u8], format: &Format) -> [Vec<Vec<f32>>; 2] {
    let elements: Vec<_> =
        input.chunks(2).map(|two| format.value(u16::from_le_bytes([two[0], two[1]])) as f32).collect();
    [0, 1].map(|i| elements[i * SIZE * SIZE..][..SIZE * SIZE].chunks(SIZE).map(<[f32]>::to_vec).collect())
}

fn product(
    columns: usize,
    start: f32,
    depths: core::ops::Range<usize>,
    f: impl Fn(usize, usize, usize) -> f32,
) -> Vec<f32> {
    let places = (0..SIZE).flat_map(|row| (0..columns).map(move |column| (row, column)));
    places.map(|(row, column)| depths.clone().fold(start, |sum, depth| sum + f(row, column, depth))).collect()
}

fn of_shared(input: &[u8], format: &Format) -> Vec<u8> {
    let [a, b] = operands(input, format);
    let term = |row: usize, column: usize, depth: usize| a[row][depth] * b[column][depth];
    float_bytes(product(SIZE, 0.0, 0..SIZE, term).into_iter().chain(product(SIZE, 1.0, 32..SIZE, term)))
}

fn of_registers(input: &[u8], format: &Format) -> Vec<u8> {
    let [a, b] = operands(input, format);
    let panels = [&a, &b];
    float_bytes(product(2 * SIZE, 0.0, 0..SIZE, |row, column, depth| {
        a[row][depth] * panels[column / SIZE][depth][column % SIZE]
    }))
}

/// The least subnormal.
fn f16_input() -> Vec<u8> {
    input(&F16, 1)
}

/// The least normal number: sums of subnormals are none of the tensor cores' promises.
fn bf16_input() -> Vec<u8> {
    input(&BF16, 0x80)
}

/// Depth of operands of bytes.
const BYTES: usize = 2 * SIZE;

/// The same in e4m3, which has no infinities; every sum is a whole number below 2^13, or of one product.
fn e4m3_input() -> Vec<u8> {
    let whole = noise(2 * SIZE as u32 * BYTES as u32).map(|x| nearest_e4m3((x % 17) as f32 - 8.0));
    let mut elements: Vec<_> = whole.collect();
    elements[7 * BYTES..8 * BYTES].fill(0);
    elements[7 * BYTES + 100] = 1;
    elements[21 * BYTES + 2] = 0x80;
    elements[SIZE * BYTES + 30 * BYTES + 50] = 0xff;
    elements
}

/// `a b^T` over some depths, from `start` on.
fn of_bytes(input: &[u8], start: f32, depths: core::ops::Range<usize>) -> Vec<f32> {
    let element = |row: usize, depth: usize| e4m3(input[row * BYTES + depth]) as f32;
    product(SIZE, start, depths, |row, column, depth| element(row, depth) * element(SIZE + column, depth))
}

/// On every bit but zeros' signs.
const EXACT: Agreement = Agreement::Floats { relative: 0.0, absolute: f32::from_bits(1) };

const fn row(
    name: &'static str,
    entry: fn(crate::probes::Args),
    input: fn() -> Vec<u8>,
    expected: fn(&[u8]) -> Vec<u8>,
) -> Probe {
    Probe::new(name, entry, 128, input, expected).shared(16384).agreeing(EXACT).hopper()
}

pub(super) const PROBES: &[Probe] = &[
    row("probe_wgmma_shared_f16", probe_wgmma_shared_f16, f16_input, |input| of_shared(input, &F16)),
    row("probe_wgmma_shared_bf16", probe_wgmma_shared_bf16, bf16_input, |input| of_shared(input, &BF16)),
    row("probe_wgmma_shared_e4m3", probe_wgmma_shared_e4m3, e4m3_input, |input| {
        float_bytes(of_bytes(input, 0.0, 0..BYTES).into_iter().chain(of_bytes(input, 1.0, SIZE..BYTES)))
    }),
    row("probe_wgmma_registers_e4m3", probe_wgmma_registers_e4m3, e4m3_input, |input| {
        float_bytes(of_bytes(input, 0.0, 0..BYTES))
    }),
    row("probe_wgmma_registers_f16", probe_wgmma_registers_f16, f16_input, |input| of_registers(input, &F16)),
    row("probe_wgmma_registers_bf16", probe_wgmma_registers_bf16, bf16_input, |input| of_registers(input, &BF16)),
];

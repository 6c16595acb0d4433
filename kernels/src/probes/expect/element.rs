//! Elements by their definition: sign, exponent, fraction.

use std::vec::Vec;

use super::values::{EDGES, bytes, float_bytes, floats, noise, words};
use super::{Agreement, Probe};
use crate::probes::element::{
    probe_mma_bf16, probe_mma_e4m3, probe_mma_f16, probe_pack_bf16, probe_pack_e4m3, probe_pack_f16, probe_unpack_bf16,
    probe_unpack_f16,
};

/// A 16-bit float format.
pub(super) struct Format {
    fraction_bits: i32,
    /// Exponent of the smallest normal number.
    least_exponent: i32,
    infinity: u16,
}

pub(super) const F16: Format = Format { fraction_bits: 10, least_exponent: -14, infinity: 0x7c00 };
pub(super) const BF16: Format = Format { fraction_bits: 7, least_exponent: -126, infinity: 0x7f80 };

impl Format {
    /// The value of some bits.
    pub(super) fn value(&self, bits: u16) -> f64 {
        let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
        let magnitude = bits & 0x7fff;
        if magnitude > self.infinity {
            return f64::NAN;
        }
        if magnitude == self.infinity {
            return sign * f64::INFINITY;
        }
        let (exponent, fraction) = (i32::from(magnitude >> self.fraction_bits), magnitude % (1 << self.fraction_bits));
        let unit = 2f64.powi(self.least_exponent - self.fraction_bits);
        let (whole, scale) =
            if exponent == 0 { (0.0, 1.0) } else { (2f64.powi(self.fraction_bits), 2f64.powi(exponent - 1)) };
        sign * (whole + f64::from(fraction)) * unit * scale
    }

    /// The bits nearest to a value, the even ones of two: found by search, since bits of one sign are in order.
    pub(super) fn nearest(&self, value: f32) -> u16 {
        if value.is_nan() {
            return 0x7fff;
        }
        let (sign, size) = (if value.is_sign_negative() { 0x8000 } else { 0 }, f64::from(value.abs()));
        let (mut low, mut high) = (0, self.infinity);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            (low, high) = if self.value(middle) <= size { (middle, high) } else { (low, middle - 1) };
        }
        if low == self.infinity {
            return sign | low;
        }
        // Infinity stands for the number that would follow the largest.
        let above =
            if low + 1 == self.infinity { 2.0 * self.value(low) - self.value(low - 1) } else { self.value(low + 1) };
        let (below, above) = (size - self.value(low), above - size);
        let up = above < below || above == below && low % 2 == 1;
        sign | (low + u16::from(up))
    }
}

/// Every pair of edges, and random bits.
fn pairs() -> Vec<u8> {
    let edges = (0..32 * 16).flat_map(|i| [EDGES[i % 32], EDGES[(i / 32 * 2 + i) % 32]]);
    float_bytes(edges.chain(noise(1024).map(f32::from_bits)))
}

fn packed(format: &Format, input: &[u8]) -> Vec<u8> {
    let values = floats(input);
    bytes(values.chunks(2).map(|pair| {
        let [low, high] = [pair[0], pair[1]].map(|value| u32::from(format.nearest(value)));
        low | high << 16
    }))
}

/// Zeros, subnormals, the largest numbers, infinities and NaNs of both formats, and random bits.
fn packed_edges() -> Vec<u8> {
    let edges = [0, 1, 0x7f, 0x80, 0x3ff, 0x400, 0x7bff, 0x7c00, 0x7c01, 0x7f7f, 0x7f80, 0x7f81, 0x7fff, 0x3c00];
    let edges = edges.map(|magnitude| magnitude | (magnitude | 0x8000) << 16);
    bytes(edges.into_iter().chain(noise(242)))
}

/// The bits of the e4m3 nearest to a value, the even ones of two: bits of one sign are in order. What is beyond the largest
/// becomes that.
pub(super) fn nearest_e4m3(value: f32) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    let size = f64::from(value.abs());
    let distance = |bits: &u8| (e4m3(*bits) - size).abs();
    let closer = |a: u8, b: u8| {
        if distance(&b) < distance(&a) || distance(&b) == distance(&a) && b.is_multiple_of(2) { b } else { a }
    };
    let nearest = if size > e4m3(0x7e) { 0x7e } else { (1..0x7f).fold(0, closer) };
    nearest | if value.is_sign_negative() { 0x80 } else { 0 }
}

/// The value of an e4m3.
pub(super) fn e4m3(bits: u8) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 3 & 15), f64::from(bits & 7) / 8.0);
    let size = match (exponent, bits & 7) {
        (15, 7) => f64::NAN,
        (0, _) => fraction * 2f64.powi(-6),
        _ => (1.0 + fraction) * 2f64.powi(exponent - 7),
    };
    if bits >> 7 == 1 { -size } else { size }
}

/// Every tie of e4m3 and its neighbours, every pair of edges, and random bits.
fn fours() -> Vec<u8> {
    let tie = |bits: u8| ((e4m3(bits) + e4m3(bits + 1)) / 2.0) as f32;
    let ties =
        (0..0x7e).map(tie).flat_map(|tie| [-1, 0, 1].map(|by| f32::from_bits(tie.to_bits().wrapping_add_signed(by))));
    let signs = ties.enumerate().map(|(i, tie)| if i % 2 == 0 { tie } else { -tie });
    let all: Vec<_> = signs.chain(EDGES).chain([448.0, 464.0, 465.0, -480.0]).collect();
    let rest = 2048 - all.len() as u32;
    float_bytes(all.into_iter().chain(noise(rest).map(f32::from_bits)))
}

fn packed_e4m3(input: &[u8]) -> Vec<u8> {
    floats(input).into_iter().map(nearest_e4m3).collect()
}

/// Whole numbers, a subnormal and a NaN in rows of their own, and addends; rows and columns of 32 elements.
fn factors_e4m3() -> Vec<u8> {
    let a = (0..16 * 32).map(|i| match (i / 32, i % 32) {
        (3, 7) => f32::NAN,
        (4, _) => 2f32.powi(-9),
        (row, k) => ((row * 5 + k * 3) % 15) as f32 - 7.0,
    });
    let b = (0..8 * 32).map(|i| ((i / 32 * 7 + i % 32 * 11) % 13) as f32 - 6.0);
    let c = (0..128).map(|i| if i / 8 == 4 { 0.0 } else { (i * i % 257) as f32 });
    a.chain(b).map(nearest_e4m3).chain(float_bytes(c)).collect()
}

fn products_e4m3(input: &[u8]) -> Vec<u8> {
    let (factors, c) = input.split_at((16 + 8) * 32);
    let factors: Vec<_> = factors.iter().map(|bits| e4m3(*bits)).collect();
    let (a, b) = factors.split_at(16 * 32);
    let c = floats(c);
    float_bytes((0..128).map(|i| {
        let (row, column) = (&a[i / 8 * 32..][..32], &b[i % 8 * 32..][..32]);
        row.iter().zip(column).fold(f64::from(c[i]), |sum, (a, b)| sum + a * b) as f32
    }))
}

fn unpacked(format: &Format, input: &[u8]) -> Vec<u8> {
    let halves = words(input).flat_map(|pair| [pair as u16, (pair >> 16) as u16]);
    float_bytes(halves.map(|bits| format.value(bits) as f32))
}

/// Factors for which every sum is exact in any order, and special values in rows and columns of their own.
fn factors(format: &Format) -> Vec<u8> {
    let halves = |value: fn(u32, u32) -> f32, count: u32| -> Vec<u16> {
        (0..count * 16).map(|i| format.nearest(value(i / 16, i % 16))).collect()
    };
    let a = halves(
        |row, k| match (row, k) {
            (2, 5) => f32::INFINITY,
            (3, 7) => f32::NAN,
            // A subnormal of fp16; exact in bf16, too.
            (4, _) => 2f32.powi(-24),
            (5, _) => -0.0,
            _ => ((row * 5 + k * 3) % 15) as f32 - 7.0,
        },
        16,
    );
    let b = halves(
        |column, k| match (column, k) {
            (6, _) => 0.0,
            (7, _) => 2f32.powi(-10),
            _ => ((column * 7 + k * 11) % 13) as f32 - 6.0,
        },
        8,
    );
    let c = (0..128).map(|i| match i {
        // Infinity meets its opposite, or NaN.
        16 | 20 => f32::NEG_INFINITY,
        64 => f32::NAN,
        // Rows of subnormals stay exact only without a large addend.
        32..48 => 0.0,
        _ => (i * i % 257) as f32,
    });
    let halves = a.into_iter().chain(b).flat_map(u16::to_le_bytes);
    halves.chain(float_bytes(c)).collect()
}

fn products(format: &Format, input: &[u8]) -> Vec<u8> {
    let (halves, c) = input.split_at((16 + 8) * 16 * 2);
    let halves: Vec<_> = halves.chunks(2).map(|bits| format.value(u16::from_le_bytes([bits[0], bits[1]]))).collect();
    let (a, b) = halves.split_at(16 * 16);
    let c = floats(c);
    float_bytes((0..128).map(|i| {
        let (row, column) = (&a[i / 8 * 16..][..16], &b[i % 8 * 16..][..16]);
        row.iter().zip(column).fold(f64::from(c[i]), |sum, (a, b)| sum + a * b) as f32
    }))
}

pub(super) const PROBES: &[Probe] = &[
    Probe::new("probe_pack_f16", probe_pack_f16, 1024, pairs, |input| packed(&F16, input)),
    Probe::new("probe_pack_bf16", probe_pack_bf16, 1024, pairs, |input| packed(&BF16, input)),
    Probe::new("probe_unpack_f16", probe_unpack_f16, 256, packed_edges, |input| unpacked(&F16, input))
        .agreeing(Agreement::ANY_NAN),
    Probe::new("probe_unpack_bf16", probe_unpack_bf16, 256, packed_edges, |input| unpacked(&BF16, input))
        .agreeing(Agreement::ANY_NAN),
    Probe::new("probe_pack_e4m3", probe_pack_e4m3, 512, fours, packed_e4m3).hopper(),
    Probe::new("probe_mma_e4m3", probe_mma_e4m3, 32, factors_e4m3, products_e4m3).agreeing(Agreement::ANY_NAN).hopper(),
    Probe::new("probe_mma_f16", probe_mma_f16, 32, || factors(&F16), |input| products(&F16, input))
        .agreeing(Agreement::ANY_NAN),
    Probe::new("probe_mma_bf16", probe_mma_bf16, 32, || factors(&BF16), |input| products(&BF16, input))
        .agreeing(Agreement::ANY_NAN),
];

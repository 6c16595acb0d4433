//! Arithmetic: fp64, rounded once, is the truth.

use std::vec::Vec;

use super::values::{EDGES, bytes, float_bytes, floats, noise, words};
use super::{Agreement, Probe};
use crate::probes::math::{probe_divide, probe_exp2, probe_exp2_polynomial, probe_fma, probe_log2, probe_pick_bytes};

/// The edges, and values between -140 and 40, of which few give subnormal results.
fn exponents() -> Vec<u8> {
    let spread = noise(96).map(|bits| (bits >> 8) as f32 / (1 << 24) as f32 * 180.0 - 140.0);
    float_bytes(EDGES.into_iter().chain(spread))
}

/// Like [`exponents`], without the results of 2^128 and more that the polynomial does not give.
fn polynomial_exponents() -> Vec<u8> {
    float_bytes(floats(&exponents()).into_iter().map(|x| if x >= 128.0 { 127.0 } else { x }))
}

fn powers(input: &[u8]) -> Vec<u8> {
    float_bytes(floats(input).into_iter().map(|x| {
        let y = f64::from(x).exp2() as f32;
        if y < f32::MIN_POSITIVE { 0.0 } else { y }
    }))
}

/// The edges, values round 1, and positive values of every size.
fn positives() -> Vec<u8> {
    let near = noise(32).map(|bits| 0.5 + (bits >> 8) as f32 / (1 << 23) as f32);
    let any = noise(64).map(|bits| f32::from_bits(bits % f32::INFINITY.to_bits()));
    float_bytes(EDGES.into_iter().chain(near).chain(any))
}

/// Every pair of edges, each with a third edge, and products that cancel.
fn triples() -> Vec<u8> {
    let edges = (0..EDGES.len() * 31).map(|i| [EDGES[i % 32], EDGES[i / 32], EDGES[(i * 7 + i / 32) % 32]]);
    let cancelling = noise(32).map(|bits| {
        let a = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
        [a, a, -(a * a)]
    });
    float_bytes(edges.chain(cancelling).flatten())
}

/// `a * b + c` with one rounding: the product is exact in fp64, and the sum is rounded to odd there, so that rounding it
/// again to fp32 is right.
fn exact_fma(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    if !sum.is_finite() {
        return sum as f32;
    }
    let virtual_c = sum - product;
    let error = (product - (sum - virtual_c)) + (c - virtual_c);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return sum as f32;
    }
    // The neighbour on the error's side has an odd last bit.
    let away = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if away { sum.to_bits() + 1 } else { sum.to_bits() - 1 }) as f32
}

fn fused(input: &[u8]) -> Vec<u8> {
    float_bytes(floats(input).chunks(3).map(|abc| exact_fma(abc[0], abc[1], abc[2])))
}

fn fractions() -> Vec<u8> {
    let some = [[0, 1], [1, u32::MAX], [u32::MAX, 1], [u32::MAX, u32::MAX], [7, 7], [6, 7], [1 << 31, 3], [100, 8]];
    let random = noise(56).zip(noise(112).skip(56)).map(|(a, b)| [a, (b >> (a % 32)).max(1)]);
    bytes(some.into_iter().chain(random).flatten())
}

fn quotients(input: &[u8]) -> Vec<u8> {
    let input: Vec<_> = words(input).collect();
    bytes(input.chunks(2).flat_map(|ab| [ab[0] / ab[1], ab[0] % ab[1]]))
}

/// 2^-22: what PTX promises of `ex2.approx`.
const UNIT: f32 = 2.384_185_8e-7;

/// Bytes by their numbers.
fn picked(input: &[u8]) -> Vec<u8> {
    let pick = |eight: &[u8]| [0, 2, 4, 6, 3, 5, 7, 1].map(|i: usize| eight[i]);
    input.chunks_exact(8).flat_map(pick).collect()
}

pub(super) const PROBES: &[Probe] = &[
    Probe::new("probe_exp2", probe_exp2, 128, exponents, powers)
        .agreeing(Agreement::Floats { relative: UNIT, absolute: 0.0 }),
    Probe::new("probe_exp2_polynomial", probe_exp2_polynomial, 128, polynomial_exponents, powers)
        // Below the smallest normal number a subnormal one is as good as zero.
        .agreeing(Agreement::Floats { relative: 3e-6, absolute: f32::MIN_POSITIVE }),
    Probe::new("probe_log2", probe_log2, 128, positives, |input| {
        float_bytes(floats(input).into_iter().map(|x| f64::from(x).log2() as f32))
    })
    .agreeing(Agreement::Floats { relative: UNIT, absolute: UNIT }),
    Probe::new("probe_fma", probe_fma, 1024, triples, fused).agreeing(Agreement::ANY_NAN),
    Probe::new("probe_pick_bytes", probe_pick_bytes, 32, || bytes(noise(64)), picked),
    Probe::new("probe_divide", probe_divide, 64, fractions, quotients),
];

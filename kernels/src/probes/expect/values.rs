//! Inputs, and their way to bytes and back.

use std::vec::Vec;

/// The bytes as 32-bit words.
pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

/// The bytes as fp32.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    words(bytes).map(f32::from_bits).collect()
}

/// 32-bit words as bytes.
pub(super) fn bytes(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// fp32 as bytes.
pub(super) fn float_bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    bytes(values.into_iter().map(f32::to_bits))
}

/// `count` numbers that look random and are always the same.
pub(super) fn noise(count: u32) -> impl Iterator<Item = u32> {
    // The finaliser of MurmurHash3.
    (1..=count).map(|i| {
        let x = i.wrapping_mul(0x9e37_79b9);
        let x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
        let x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
        x ^ x >> 16
    })
}

/// fp32 values at the edges: zeros, subnormals, the largest, infinities, NaN, and what rounds to the edges of 16 bits.
pub(super) const EDGES: [f32; 32] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    // The smallest and the largest subnormal.
    f32::from_bits(1),
    f32::from_bits(0x807f_ffff),
    // Round fp16 to the largest finite value, and to infinity.
    65_519.0,
    65_520.0,
    // fp16: smallest normal, largest subnormal, smallest subnormal, half of it (to even: zero), a bit more.
    6.103_515_6e-5,
    6.097_555e-5,
    5.960_464_5e-8,
    2.980_232_2e-8,
    2.980_233e-8,
    // Halfway between neighbours of fp16 and of bf16, below and above an even one.
    1.000_488_3,
    1.001_464_8,
    -1.000_488_3,
    1.003_906_2,
    1.011_718_8,
    -1.003_906_2,
    0.1,
    -0.333_333_34,
    3.0,
    -100.25,
    1e10,
    -1e-10,
    2.0,
];

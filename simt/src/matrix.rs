//! Matrix instructions of a whole warp.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use crate::machine::{Machine, Outcome};
use crate::number::f32_from_e4m3;
use crate::shared::CHUNK;
use crate::warp::collective;
use crate::{Op, WARP};

/// Element type of the factors of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmaKind {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// fp8 with 4 bits of exponent and 3 of fraction.
    E4m3,
}

impl MmaKind {
    /// Its name in PTX.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::E4m3 => "e4m3",
        }
    }

    /// Elements that a product takes of each row of `a`.
    pub const fn depth(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => DEPTH_BYTES / 2,
            Self::E4m3 => DEPTH_BYTES,
        }
    }

    /// Widens whole chunks exactly; there are as many elements as places.
    pub(crate) fn widen(self, bytes: &[u8], wide: &mut [f32]) {
        let elements = self.depth() * CHUNK / DEPTH_BYTES;
        for (wide, bytes) in wide.chunks_exact_mut(elements).zip(bytes.chunks_exact(CHUNK)) {
            let bits: [u16; 8] = core::array::from_fn(|i| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]));
            match self {
                Self::F16 => bits.reinterpret_cast::<f16>().convert_to_f32_slice(wide),
                Self::Bf16 => bits.reinterpret_cast::<bf16>().convert_to_f32_slice(wide),
                Self::E4m3 => {
                    wide.iter_mut().zip(bytes).for_each(|(wide, bits)| *wide = f32_from_e4m3(*bits));
                }
            }
        }
    }
}

const ROWS: usize = 16;
const COLUMNS: usize = 8;

/// Bytes that a product takes of each row of `a`, and of each column of `b`.
pub(crate) const DEPTH_BYTES: usize = 32;

/// Puts a lane's register into rows of [`DEPTH_BYTES`]: where it starts is the same for elements of all sizes.
pub(crate) fn put(rows: &mut [u8], row: usize, byte: usize, register: u32) {
    rows[row * DEPTH_BYTES + byte..][..4].copy_from_slice(&register.to_le_bytes());
}

impl Machine<'_> {
    pub(crate) fn load_matrices(&mut self, w: usize, count: u32, transpose: bool) -> Outcome<()> {
        self.stats.matrices += u64::from(count);
        for i in 0..count as usize {
            let mut matrix = [[0u16; 8]; 8];
            for (r, row) in matrix.iter_mut().enumerate() {
                let lane = 8 * i + r;
                let address = self.warps[w].input[lane][0];
                let bytes: [u8; 16] = self.read_shared(w as u32 * WARP + lane as u32, address)?;
                for (element, bytes) in row.iter_mut().zip(bytes.chunks_exact(2)) {
                    *element = u16::from_le_bytes([bytes[0], bytes[1]]);
                }
            }
            for (lane, output) in self.warps[w].output.iter_mut().enumerate() {
                let (row, column) = (lane / 4, lane % 4 * 2);
                let [low, high] = if transpose {
                    [matrix[column][row], matrix[column + 1][row]]
                } else {
                    [matrix[row][column], matrix[row][column + 1]]
                };
                output[i] = u32::from(low) | u32::from(high) << 16;
            }
        }
        Ok(())
    }

    pub(crate) fn store_matrices(&mut self, w: usize) -> Outcome<()> {
        self.stats.matrices += 4;
        for lane in 0..WARP as usize {
            let (matrix, row) = (lane / 8, lane % 8);
            let [address, ..] = self.warps[w].input[lane];
            let mut chunk = [0; 16];
            for (bytes, holder) in chunk.chunks_exact_mut(4).zip(4 * row..) {
                bytes.copy_from_slice(&self.warps[w].input[holder][1 + matrix].to_le_bytes());
            }
            self.write_chunk(w as u32 * WARP + lane as u32, address, chunk)?;
        }
        Ok(())
    }

    pub(crate) fn multiply(&mut self, w: usize, kind: MmaKind) {
        self.stats.mmas += 1;
        let warp = &mut self.warps[w];
        let (mut a, mut b) = ([0; ROWS * DEPTH_BYTES], [0; COLUMNS * DEPTH_BYTES]);
        for (lane, &[a0, a1, a2, a3, b0, b1, ..]) in warp.input.iter().enumerate() {
            let (group, byte) = (lane / 4, lane % 4 * 4);
            for (row, half, register) in [(group, 0, a0), (group + 8, 0, a1), (group, 16, a2), (group + 8, 16, a3)] {
                put(&mut a, row, byte + half, register);
            }
            put(&mut b, group, byte, b0);
            put(&mut b, group, byte + 16, b1);
        }
        let depth = kind.depth();
        let (mut rows, mut columns) = ([0.0; ROWS * DEPTH_BYTES], [0.0; COLUMNS * DEPTH_BYTES]);
        kind.widen(&a, &mut rows[..ROWS * depth]);
        kind.widen(&b, &mut columns[..COLUMNS * depth]);
        let mut c = [[0.0f32; COLUMNS]; ROWS];
        for (lane, &[.., c0, c1, c2, c3]) in warp.input.iter().enumerate() {
            let (group, pair) = (lane / 4, lane % 4 * 2);
            c[group][pair..pair + 2].copy_from_slice(&[f32::from_bits(c0), f32::from_bits(c1)]);
            c[group + 8][pair..pair + 2].copy_from_slice(&[f32::from_bits(c2), f32::from_bits(c3)]);
        }
        for (c, a) in c.iter_mut().zip(rows.chunks_exact(depth)) {
            for (c, b) in c.iter_mut().zip(columns.chunks_exact(depth)) {
                *c = a.iter().zip(b).fold(*c, |sum, (a, b)| sum + a * b);
            }
        }
        for (lane, output) in warp.output.iter_mut().enumerate() {
            let (group, pair) = (lane / 4, lane % 4 * 2);
            *output =
                [c[group][pair], c[group][pair + 1], c[group + 8][pair], c[group + 8][pair + 1]].map(f32::to_bits);
        }
    }
}

/// Loads `N` (1, 2 or 4) 8 x 8 matrices of 16-bit elements from shared memory, by the whole warp.
///
/// Lane `8 i + r` gives the address, aligned to 16, of row `r` of matrix `i`; addresses of lanes from `8 N` on are not
/// looked at. Lane `l` receives of each matrix the elements `2 (l % 4)` and the next of row `l / 4`, with `transpose` of
/// column `l / 4`. Orders no memory.
pub fn ldmatrix<const N: usize>(address: u32, transpose: bool) -> [u32; N] {
    const { assert!(N == 1 || N == 2 || N == 4) };
    let all = collective(Op::Ldmatrix { count: N as u32, transpose }, u32::MAX, &[address]);
    core::array::from_fn(|i| all[i])
}

/// Stores four 8 x 8 matrices of 16-bit elements to shared memory, by the whole warp: the reverse of [`ldmatrix`], not transposed.
///
/// Lane `8 i + r` gives the address, aligned to 16, of row `r` of matrix `i`; lane `l` gives of each matrix the elements
/// `2 (l % 4)` and the next of row `l / 4`. Orders no memory.
pub fn stmatrix(address: u32, matrices: [u32; 4]) {
    let [a, b, c, d] = matrices;
    collective(Op::Stmatrix, u32::MAX, &[address, a, b, c, d]);
}

/// `a b + c` by the whole warp, `a` 16 x 16, `b` 16 x 8, `c` 16 x 8 in PTX's fragment layout (`mma.sync.m16n8k16`); of elements
/// of 8 bits, `a` is 16 x 32 and `b` 32 x 8 (`m16n8k32`).
///
/// Each element of the result is `c` plus its products in the order of their index, each sum rounded to fp32. Products
/// of two factors are exact in fp32 unless they leave its range. A GPU adds in another order and rounding: sums that
/// are not exact differ in their last bits.
pub fn mma_m16n8(kind: MmaKind, a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    let [a0, a1, a2, a3] = a;
    let [c0, c1, c2, c3] = c.map(f32::to_bits);
    collective(Op::Mma(kind), u32::MAX, &[a0, a1, a2, a3, b[0], b[1], c0, c1, c2, c3]).map(f32::from_bits)
}

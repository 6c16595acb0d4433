//! Matrix instructions of a whole warp.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use crate::machine::{Machine, Outcome};
use crate::warp::collective;
use crate::{Op, WARP};

/// Element type of the factors of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmaKind {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl MmaKind {
    /// Its name in PTX.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Widens elements exactly.
    pub(crate) fn widen<const N: usize>(self, bits: &[u16; N]) -> [f32; N] {
        let mut wide = [0.0; N];
        self.widen_into(bits, &mut wide);
        wide
    }

    /// The same for as many elements as the slices have.
    pub(crate) fn widen_into(self, bits: &[u16], wide: &mut [f32]) {
        match self {
            Self::F16 => bits.reinterpret_cast::<f16>().convert_to_f32_slice(wide),
            Self::Bf16 => bits.reinterpret_cast::<bf16>().convert_to_f32_slice(wide),
        }
    }
}

const ROWS: usize = 16;
const COLUMNS: usize = 8;
const DEPTH: usize = 16;

/// Splits a register into its two elements.
pub(crate) fn split(pair: u32) -> [u16; 2] {
    [pair as u16, (pair >> 16) as u16]
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
        let (mut a, mut b) = ([0; ROWS * DEPTH], [0; DEPTH * COLUMNS]);
        for (lane, &[a0, a1, a2, a3, b0, b1, ..]) in warp.input.iter().enumerate() {
            let (group, pair) = (lane / 4, lane % 4 * 2);
            for (row, column, register) in
                [(group, pair, a0), (group + 8, pair, a1), (group, pair + 8, a2), (group + 8, pair + 8, a3)]
            {
                a[row * DEPTH + column..][..2].copy_from_slice(&split(register));
            }
            for (row, register) in [(pair, b0), (pair + 8, b1)] {
                let [low, high] = split(register);
                (b[row * COLUMNS + group], b[(row + 1) * COLUMNS + group]) = (low, high);
            }
        }
        let (a, b) = (kind.widen(&a), kind.widen(&b));
        let mut c = [[0.0f32; COLUMNS]; ROWS];
        for (lane, &[.., c0, c1, c2, c3]) in warp.input.iter().enumerate() {
            let (group, pair) = (lane / 4, lane % 4 * 2);
            c[group][pair..pair + 2].copy_from_slice(&[f32::from_bits(c0), f32::from_bits(c1)]);
            c[group + 8][pair..pair + 2].copy_from_slice(&[f32::from_bits(c2), f32::from_bits(c3)]);
        }
        for (c, a) in c.iter_mut().zip(a.chunks_exact(DEPTH)) {
            for (&a, b) in a.iter().zip(b.chunks_exact(COLUMNS)) {
                for (c, &b) in c.iter_mut().zip(b) {
                    *c += a * b;
                }
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

/// `a b + c` by the whole warp, `a` 16 x 16, `b` 16 x 8, `c` 16 x 8 in PTX's fragment layout (`mma.sync.m16n8k16`).
///
/// Each element of the result is `c` plus its 16 products in the order of their index, each sum rounded to fp32. Products
/// of two fp16 or bf16 are exact in fp32 unless they leave its range. A GPU adds in another order and rounding: sums that
/// are not exact differ in their last bits.
pub fn mma_m16n8k16(kind: MmaKind, a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    let [a0, a1, a2, a3] = a;
    let [c0, c1, c2, c3] = c.map(f32::to_bits);
    collective(Op::Mma(kind), u32::MAX, &[a0, a1, a2, a3, b[0], b[1], c0, c1, c2, c3]).map(f32::from_bits)
}

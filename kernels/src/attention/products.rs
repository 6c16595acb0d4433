//! The two matrix products on `wgmma`, over tiles kept as panels of rows of 128 bytes.

use spec::layout::{PANEL, PANEL_ROW, panels};

use super::pack_operand;
use crate::gpu::wgmma::{Descriptor, InFlight, Operand, Product};
use crate::gpu::{Bf16, E4m3, Factor, Half, Mbarrier, Shared, TensorMap, load_matrices, opaque};
use crate::tile::{Lane, SharedTile, matrix_row_a, matrix_row_k};

/// An element type of Q, K and V that `wgmma` multiplies.
pub trait Multiplied: Factor {
    /// Element type of O.
    type Output: Half;

    /// Probabilities are multiplied by 2 to this, so that they use the type's range.
    const RAISED: u8;

    /// Rounds the probabilities of the keys of step `step` of the second product to its operand.
    fn operand<const N: usize>(probabilities: &[[f32; 4]; N], step: usize) -> Operand;
}

impl<E: Half> Multiplied for E {
    type Output = E;

    const RAISED: u8 = 0;

    #[inline(always)]
    fn operand<const N: usize>(probabilities: &[[f32; 4]; N], step: usize) -> Operand {
        pack_operand::<E>(probabilities[2 * step], probabilities[2 * step + 1])
    }
}

impl Multiplied for E4m3 {
    type Output = Bf16;

    /// The largest probability becomes 256 of at most 448; the smallest that is not lost is 2^-17 of it.
    const RAISED: u8 = 8;

    /// A lane's four bytes side by side are of keys of two blocks of 8: V is turned with its keys in that order.
    #[inline(always)]
    fn operand<const N: usize>(probabilities: &[[f32; 4]; N], step: usize) -> Operand {
        let four = |block: usize, half: usize| {
            let (left, right) = (probabilities[4 * step + block], probabilities[4 * step + block + 1]);
            E4m3::pack([left[2 * half], left[2 * half + 1], right[2 * half], right[2 * half + 1]])
        };
        [four(0, 0), four(0, 1), four(2, 0), four(2, 1)]
    }
}

/// Arrives at `barrier`, whose phase then lasts until rows `row..row + rows` of a head, of so many words of 16 bits, are
/// in panels at `to`, and starts copying them.
#[inline(always)]
pub fn copy_panels(map: TensorMap, to: Shared, barrier: Mbarrier, [batch, head, row]: [u32; 3], rows: u32, words: u32) {
    barrier.arrive_expecting(panels(rows, words));
    let mut panel = 0;
    while panel < words.div_ceil(PANEL) {
        map.load(to.at(panel * rows * PANEL_ROW), barrier, [batch, head, row, panel * PANEL]);
        panel += 1;
    }
}

/// Issues `scores = Q K^T` for 64 rows of Q and the `N` x 8 rows of K, of so many words of 16 bits each.
#[inline(always)]
pub fn issue_scores<E: Factor, const N: usize>(scores: &mut InFlight<E, N>, q: Shared, k: Shared, words: u32)
where
    InFlight<E, N>: Product<N>,
{
    let (q, k) = (Descriptor::along_columns(q), Descriptor::along_columns(k));
    let mut k16 = 0;
    while k16 < words.div_ceil(16) {
        let (panel, within) = (k16 / 4, k16 % 4 * 32);
        let (a, b) = (q.at(panel * 64 * PANEL_ROW + within), k.at(panel * N as u32 * 8 * PANEL_ROW + within));
        scores.add_shared(a, b, k16 == 0);
        k16 += 1;
    }
}

/// Issues `output += P V` for the rows of V that `STEPS` operands stand for. Elements of one byte are those of V turned: its
/// rows lie along the columns of `N` x 8 rows.
#[inline(always)]
pub fn issue_output<E: Factor, const STEPS: usize, const N: usize>(
    output: &mut InFlight<E, N>,
    probabilities: &[Operand; STEPS],
    v: Shared,
) where
    InFlight<E, N>: Product<N>,
{
    let turned = E::BYTES == 1;
    let v =
        if turned { Descriptor::along_columns(v) } else { Descriptor::along_rows(v, STEPS as u32 * 16 * PANEL_ROW) };
    let mut step = 0;
    while step < STEPS {
        let place = step as u32;
        let at = if turned { place / 4 * N as u32 * 8 * PANEL_ROW + place % 4 * 32 } else { place * 16 * PANEL_ROW };
        output.add_registers(probabilities[step], v.at(at));
        step += 1;
    }
}

/// `Q K^T` of a warp's 16 rows from `first_row` of 64 on, for the warp alone and at once: what [`issue_scores`] does for a
/// warpgroup.
#[inline(always)]
pub fn scores_by_warp<E: Factor, const N: usize>(
    q: Shared,
    k: Shared,
    first_row: u32,
    words: u32,
    lane: Lane,
) -> [[f32; 4]; N] {
    // This is seldom run: its addresses must not take up registers elsewhere, nor its steps the instruction cache.
    let lane = Lane::of(opaque(lane.index()));
    let steps = opaque(words.div_ceil(16));
    let ((q_row, q_chunk), (k_row, k_chunk)) = (matrix_row_a(lane), matrix_row_k(lane));
    let mut scores = [[0.0; 4]; N];
    let mut k16 = 0;
    while k16 < steps {
        let panel = |tile: Shared, rows| SharedTile::new(tile.at(k16 / 4 * rows * PANEL_ROW), PANEL_ROW, true);
        let (q, k, chunk) = (panel(q, 64), panel(k, N as u32 * 8), k16 % 4 * 2);
        let rows = load_matrices(q.chunk(first_row + q_row, chunk + q_chunk));
        let mut n16 = 0;
        while n16 < N / 2 {
            let [a, b, c, d] = load_matrices(k.chunk(n16 as u32 * 16 + k_row, chunk + k_chunk));
            E::mma(&mut scores[2 * n16], rows, [a, b]);
            E::mma(&mut scores[2 * n16 + 1], rows, [c, d]);
            n16 += 1;
        }
        k16 += 1;
    }
    scores
}

/// Rounds probabilities to the operands of the second product.
#[inline(always)]
pub fn pack_probabilities<E: Multiplied, const N: usize, const STEPS: usize>(
    scores: &[[f32; 4]; N],
) -> [Operand; STEPS] {
    let mut operands = [[0; 4]; STEPS];
    let mut step = 0;
    while step < STEPS {
        operands[step] = E::operand(scores, step);
        step += 1;
    }
    operands
}

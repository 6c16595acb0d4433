//! The two matrix products on `wgmma`, over tiles kept as panels of 64 columns.

use spec::layout::{PANEL, PANEL_ROW, panels};

use super::pack_operand;
use crate::gpu::wgmma::{Descriptor, InFlight, Operand, Product};
use crate::gpu::{Half, Mbarrier, Shared, TensorMap, load_matrices, opaque};
use crate::tile::{Lane, SharedTile, matrix_row_a, matrix_row_k};

/// Arrives at `barrier`, whose phase then lasts until rows `row..row + rows` of a head are in panels at `to`, and starts copying them.
#[inline(always)]
pub fn copy_panels(
    map: TensorMap,
    to: Shared,
    barrier: Mbarrier,
    [batch, head, row]: [u32; 3],
    rows: u32,
    head_dim: u32,
) {
    barrier.arrive_expecting(panels(rows, head_dim));
    let mut panel = 0;
    while panel < head_dim.div_ceil(PANEL) {
        map.load(to.at(panel * rows * PANEL_ROW), barrier, [batch, head, row, panel * PANEL]);
        panel += 1;
    }
}

/// Issues `scores = Q K^T` for 64 rows of Q and the `N` x 8 rows of K.
#[inline(always)]
pub fn issue_scores<E: Half, const N: usize>(scores: &mut InFlight<E, N>, q: Shared, k: Shared, head_dim: u32)
where
    InFlight<E, N>: Product<N>,
{
    let (q, k) = (Descriptor::along_columns(q), Descriptor::along_columns(k));
    let mut k16 = 0;
    while k16 < head_dim.div_ceil(16) {
        let (panel, within) = (k16 / 4, k16 % 4 * 32);
        let (a, b) = (q.at(panel * 64 * PANEL_ROW + within), k.at(panel * N as u32 * 8 * PANEL_ROW + within));
        scores.add_shared(a, b, k16 == 0);
        k16 += 1;
    }
}

/// Issues `output += P V` for the `K16` x 16 rows of V.
#[inline(always)]
pub fn issue_output<E: Half, const K16: usize, const N: usize>(
    output: &mut InFlight<E, N>,
    probabilities: &[Operand; K16],
    v: Shared,
) where
    InFlight<E, N>: Product<N>,
{
    let v = Descriptor::along_rows(v, K16 as u32 * 16 * PANEL_ROW);
    let mut k16 = 0;
    while k16 < K16 {
        output.add_registers(probabilities[k16], v.at(k16 as u32 * 16 * PANEL_ROW));
        k16 += 1;
    }
}

/// `Q K^T` of a warp's 16 rows from `first_row` of 64 on, for the warp alone and at once: what [`issue_scores`] does for a
/// warpgroup.
#[inline(always)]
pub fn scores_by_warp<E: Half, const N: usize>(
    q: Shared,
    k: Shared,
    first_row: u32,
    head_dim: u32,
    lane: Lane,
) -> [[f32; 4]; N] {
    // This is seldom run: its addresses must not take up registers elsewhere, nor its steps the instruction cache.
    let lane = Lane::of(opaque(lane.index()));
    let steps = opaque(head_dim.div_ceil(16));
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
pub fn pack_probabilities<E: Half, const N: usize, const K16: usize>(scores: &[[f32; 4]; N]) -> [Operand; K16] {
    let mut operands = [[0; 4]; K16];
    let mut k16 = 0;
    while k16 < K16 {
        operands[k16] = pack_operand::<E>(scores[2 * k16], scores[2 * k16 + 1]);
        k16 += 1;
    }
    operands
}

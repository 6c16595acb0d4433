//! The two matrix products on `wgmma`, over tiles kept as panels of 64 columns.

use spec::layout::PANEL;

use super::pack_operand;
use crate::gpu::Shared;
use crate::gpu::wgmma::{Descriptor, InFlight, Operand, Product};
use crate::gpu::{Element, Mbarrier, TensorMap};

/// Bytes of a row of a panel.
const PANEL_ROW: u32 = PANEL * 2;

/// Starts copying rows `row..row + rows` of a head to panels at `to`, and lets `barrier` expect them.
#[inline(always)]
pub fn copy_panels(
    map: TensorMap,
    to: Shared,
    barrier: Mbarrier,
    [batch, head, row]: [u32; 3],
    rows: u32,
    head_dim: u32,
) {
    let mut panel = 0;
    while panel < head_dim.div_ceil(PANEL) {
        map.load(to.at(panel * rows * PANEL_ROW), barrier, [batch, head, row, panel * PANEL]);
        panel += 1;
    }
}

/// Issues `scores = Q K^T` for 64 rows of Q and the `N` x 8 rows of K.
#[inline(always)]
pub fn issue_scores<E: Element, const N: usize>(scores: &mut InFlight<E, N>, q: Shared, k: Shared, head_dim: u32)
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
pub fn issue_output<E: Element, const K16: usize, const N: usize>(
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

/// Rounds probabilities to the operands of the second product.
#[inline(always)]
pub fn pack_probabilities<E: Element, const N: usize, const K16: usize>(scores: &[[f32; 4]; N]) -> [Operand; K16] {
    let mut operands = [[0; 4]; K16];
    let mut k16 = 0;
    while k16 < K16 {
        operands[k16] = pack_operand::<E>(scores[2 * k16], scores[2 * k16 + 1]);
        k16 += 1;
    }
    operands
}

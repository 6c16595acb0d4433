//! The same-precision reference: attention as a careful kernel rounds it. Scores, sums and outputs accumulate in fp32, the
//! weights are rounded to the input dtype before they meet V, and so is the output at the end.

use spec::Problem;

use super::reference::Head;
use super::{Outputs, Row, metamorphic::Executor};
use crate::cases::{CaseError, Tensors, number};
use crate::device::Failure;

pub(super) struct Rounded {
    pub(super) o: Vec<f32>,
    pub(super) lse: f32,
}

/// One row.
pub(super) fn row(problem: &Problem, head: &Head, q: &[f32], row: u32) -> Rounded {
    let visible = problem.visible_keys(row);
    let (dim_qk, dim_v) = (problem.head_dim_qk as usize, problem.head_dim_v as usize);
    let round = |value: f32| number::decode(problem.dtype, number::encode(problem.dtype, value));
    let scale_log2 = problem.softmax_scale() * std::f32::consts::LOG2_E;

    let (first, count) = (visible.start as usize, visible.len());
    let keys = head.k.chunks_exact(dim_qk).skip(first).take(count);
    let scores: Vec<f32> =
        keys.map(|k| q.iter().zip(k).fold(0.0, |sum, (q, k)| q.mul_add(*k, sum)) * scale_log2).collect();
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = scores.iter().map(|score| (score - max).exp2()).collect();
    let sum: f32 = weights.iter().sum();

    let mut o = vec![0f32; dim_v];
    for (weight, v) in weights.iter().zip(head.v.chunks_exact(dim_v).skip(first)) {
        let weight = round(*weight);
        o.iter_mut().zip(v).for_each(|(o, v)| *o = weight.mul_add(*v, *o));
    }
    let inverse = if count == 0 { 0.0 } else { sum.recip() };
    o.iter_mut().for_each(|o| *o = round(*o * inverse));
    Rounded { o, lse: (max + sum.log2()) * std::f32::consts::LN_2 }
}

/// The same-precision reference as an executor of whole problems.
#[derive(Clone, Copy, Debug)]
pub struct SamePrecision;

impl Executor for SamePrecision {
    fn run(&mut self, problem: &Problem, tensors: &Tensors) -> Result<Outputs, Failure> {
        Ok(run(problem, tensors)?)
    }
}

fn run(problem: &Problem, tensors: &Tensors) -> Result<Outputs, CaseError> {
    let mut outputs = Outputs::unwritten(problem)?;
    for rows in Row::all(problem).chunk_by(|a, b| (a.batch, a.head) == (b.batch, b.head)) {
        let head = Head::of(problem, tensors, rows[0]);
        for at in rows {
            let q: Vec<f32> = tensors.q.values(at.batch, at.row, at.head).collect();
            let Rounded { o, lse } = row(problem, &head, &q, at.row);
            outputs.o.set_row(at.batch, at.row, at.head, &o);
            outputs.lse.inner_mut()[at.index(problem) as usize] = lse.to_bits();
        }
    }
    Ok(outputs)
}

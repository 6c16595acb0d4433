//! The same-precision reference: attention as a careful kernel rounds it. Scores, sums and outputs accumulate in fp32, the
//! weights are rounded to the input dtype before they meet V, and the output at the end to its own.

use spec::{Dtype, Problem};

use super::logits::Logits;
use super::reference::{Head, heads};
use super::{Outputs, Row, metamorphic::Executor};
use crate::cases::{CaseError, Tensors, number};
use crate::device::Failure;

pub(super) struct Rounded {
    pub(super) o: Vec<f32>,
    pub(super) lse: f32,
}

/// One row, of values that are finite; the others count as zero.
pub(super) fn row(problem: &Problem, head: &Head, q: &[f32], logits: &Logits<'_>) -> Rounded {
    let (dim_qk, dim_v) = (problem.head_dim_qk as usize, problem.head_dim_v as usize);
    let round = |dtype, value: f32| number::decode(dtype, number::encode(dtype, value));
    let raised = raised(problem.dtype);
    let keys: Vec<u32> = logits.keys().collect();

    let product = |key: u32| {
        let k = &head.k[key as usize * dim_qk..][..dim_qk];
        q.iter().zip(k).fold(0.0, |sum, (q, k)| q.mul_add(*k, sum))
    };
    let scores: Vec<f32> = keys.iter().map(|key| logits.rounded(*key, product(*key))).collect();
    let sink = logits.sink().map_or(f32::NEG_INFINITY, |sink| sink * std::f32::consts::LOG2_E);
    let max = scores.iter().copied().fold(sink, f32::max);
    let weights: Vec<f32> = scores.iter().map(|score| (score - max).exp2()).collect();
    let sum = weights.iter().sum::<f32>() + if sink == f32::NEG_INFINITY { 0.0 } else { (sink - max).exp2() };

    let mut o = vec![0f32; dim_v];
    for (weight, key) in weights.iter().zip(&keys) {
        let weight = round(problem.dtype, *weight * raised) / raised;
        let v = &head.v[*key as usize * dim_v..][..dim_v];
        let finite = o.iter_mut().zip(v).filter(|(_, v)| v.is_finite());
        finite.for_each(|(o, v)| *o = weight.mul_add(*v, *o));
    }
    let inverse = if sum == 0.0 { 0.0 } else { sum.recip() };
    o.iter_mut().for_each(|o| *o = round(problem.dtype.output(), *o * inverse));
    Rounded { o, lse: (max + sum.log2()) * std::f32::consts::LN_2 }
}

/// What weights, of which the largest is 1, are multiplied by before they are rounded: e4m3 would lose those below 2^-10.
fn raised(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F16 | Dtype::Bf16 | Dtype::F32 => 1.0,
        Dtype::E4m3 => 256.0,
    }
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
    for rows in heads(problem, tensors, &Row::all(problem)) {
        let head = Head::of(problem, tensors, rows[0]);
        for at in rows {
            let q: Vec<f32> = tensors.q.values(at.batch, at.row, at.head).collect();
            let logits = Logits::of(problem, &tensors.extras, *at);
            let Rounded { mut o, lse } = row(problem, &head, &q, &logits);
            o.iter_mut().zip(head.beyond(problem, &logits)).for_each(|(o, beyond)| *o += beyond);
            outputs.o.set_row(at.batch, at.row, at.head, &o);
            outputs.lse.inner_mut()[at.index(problem) as usize] = lse.to_bits();
        }
    }
    Ok(outputs)
}

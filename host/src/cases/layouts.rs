//! Memory layouts that callers have.

use spec::{Problem, Strides};

/// How the tensors of a problem lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Contiguous `[batch, seq, heads, head_dim]`.
    Bshd,
    /// Contiguous `[batch, heads, seq, head_dim]`.
    Bhsd,
    /// Contiguous `[seq, batch, heads, head_dim]`.
    Sbhd,
    /// Heads of Q, K and V side by side at each position, as one projection writes them.
    Packed,
    /// Room for more positions than there are, as in a cache: what follows the last one is not ours.
    Capacity,
    /// All batch entries share K and V (batch stride 0).
    SharedBatch,
    /// All K/V heads are one (head stride 0).
    SharedHead,
    /// Every other head of tensors with twice as many.
    Sliced,
}

impl Layout {
    /// All layouts, in the order of their declaration.
    pub const ALL: [Self; 8] = [
        Self::Bshd,
        Self::Bhsd,
        Self::Sbhd,
        Self::Packed,
        Self::Capacity,
        Self::SharedBatch,
        Self::SharedHead,
        Self::Sliced,
    ];

    /// Name in cases.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bshd => "bshd",
            Self::Bhsd => "bhsd",
            Self::Sbhd => "sbhd",
            Self::Packed => "packed",
            Self::Capacity => "capacity",
            Self::SharedBatch => "shared-batch",
            Self::SharedHead => "shared-head",
            Self::Sliced => "sliced",
        }
    }

    /// The same problem in this layout.
    pub fn of(self, problem: &Problem) -> Problem {
        let mut problem = problem.in_bshd();
        let batch = i64::from(problem.batch);
        let packed = {
            let heads = |n, dim| i64::from(n) * i64::from(dim);
            let Problem { heads_q, heads_kv, head_dim_qk, head_dim_v, .. } = problem;
            heads(heads_q, head_dim_qk) + heads(heads_kv, head_dim_qk) + heads(heads_kv, head_dim_v)
        };
        let seqs = [problem.seqlen_q, problem.seqlen_kv, problem.seqlen_kv, problem.seqlen_q];
        let strides = &mut problem.strides;
        let tensors = [&mut strides.q, &mut strides.k, &mut strides.v, &mut strides.o];
        let each = |map: &dyn Fn(usize, i64, &mut Strides)| {
            tensors.into_iter().zip(seqs).enumerate().for_each(|(i, (s, seq))| map(i, i64::from(seq), s));
        };
        match self {
            Self::Bshd => {}
            Self::Bhsd => return problem.in_bhsd(),
            Self::Sbhd => each(&|_, _, s| *s = Strides { batch: s.seq, seq: s.seq * batch, head: s.head }),
            // The output has a tensor of its own.
            Self::Packed => each(&|i, seq, s| {
                if i != 3 {
                    *s = Strides { batch: seq * packed, seq: packed, head: s.head };
                }
            }),
            Self::Capacity => each(&|_, seq, s| s.batch = (seq + 37) * s.seq),
            Self::SharedBatch => (strides.k.batch, strides.v.batch) = (0, 0),
            Self::SharedHead => (strides.k.head, strides.v.head) = (0, 0),
            Self::Sliced => {
                each(&|_, _, s| *s = Strides { batch: 2 * s.batch, seq: 2 * s.seq, head: 2 * s.head });
            }
        }
        problem
    }
}

#[cfg(test)]
mod tests {
    use spec::Dtype;

    use super::*;
    use crate::cases::{Tensor, Tensors};

    #[test]
    fn layouts_differ_and_can_be_made() {
        let problem = Problem::new(3, 6, 1, 40, Dtype::F16).with_seqlens(5, 7).with_heads_kv(2);
        let made: Vec<_> = Layout::ALL.iter().map(|layout| layout.of(&problem)).collect();
        for (i, problem) in made.iter().enumerate() {
            Tensors::unset(problem).unwrap();
            Tensor::output(problem).unwrap();
            assert!(made[..i].iter().all(|other| other.strides != problem.strides), "{problem}");
        }
    }
}

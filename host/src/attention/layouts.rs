//! How a problem's tensors lie in memory, and the problem that given tensors make.

use spec::{Dtype, Mask, Problem, Strides, TensorStrides};

use super::AttentionError;
use crate::tensor::{Element, Layout};

/// Layouts of a problem's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layouts {
    /// Q, in the first of the problem's [shapes](Problem::shapes).
    pub q: Layout,
    /// K, in the second.
    pub k: Layout,
    /// V, in the third.
    pub v: Layout,
    /// O, in the fourth.
    pub o: Layout,
    /// The shape of O with one column, in fp32; in memory the positions of a head follow each other.
    pub lse: Layout,
}

impl Layouts {
    /// The layouts of `problem`.
    pub fn of(problem: &Problem) -> Self {
        let (strides, [q, k, v, o]) = (problem.strides, problem.shapes());
        let layout = |shape, strides| Layout { shape, strides, element: Element::from(problem.dtype) };
        Self {
            q: layout(q, strides.q),
            k: layout(k, strides.k),
            v: layout(v, strides.v),
            o: Layout { element: Element::from(problem.dtype.output()), ..layout(o, strides.o) },
            lse: lse_of(o),
        }
    }

    /// That no tensor lies in memory as none can, and that no two rows of O are the same memory.
    pub(super) fn check(&self) -> Result<(), AttentionError> {
        for (tensor, layout) in [("Q", self.q), ("K", self.k), ("V", self.v), ("O", self.o)] {
            layout.extent().map_err(|_| AttentionError::Strides { tensor, layout })?;
        }
        if self.o.overlaps() { Err(AttentionError::Overlap { tensor: "O", layout: self.o }) } else { Ok(()) }
    }
}

/// The layout of the LSE beside an O of this shape.
pub(super) fn lse_of([batch, rows, heads, _]: [u32; 4]) -> Layout {
    Layout { shape: [batch, rows, heads, 1], strides: Strides::bhsd(rows, heads, 1), element: Element::F32 }
}

/// What kernels compute with on a tensor of this type.
pub(super) fn dtype_of(layout: &Layout) -> Dtype {
    match layout.element {
        Element::F16 => Dtype::F16,
        Element::Bf16 => Dtype::Bf16,
        Element::F32 => Dtype::F32,
        Element::E4m3 => Dtype::E4m3,
    }
}

/// That two tensors are of one size in this dimension of `[batch, seqlen, heads, head_dim]`.
pub(super) fn check_same(
    (tensor, of): (&'static str, &Layout),
    (other, like): (&'static str, &Layout),
    dimension: usize,
) -> Result<(), AttentionError> {
    const DIMENSIONS: [&str; 4] = ["batch", "seqlen", "heads", "head_dim"];
    let (found, expected) = (of.shape[dimension], like.shape[dimension]);
    if found == expected {
        return Ok(());
    }
    Err(AttentionError::Mismatch { tensor, dimension: DIMENSIONS[dimension], found, other, expected })
}

/// The problem of attending with Q to K and V, where O is laid out like Q.
///
/// # Errors
///
/// The tensors contradict each other: the error names the tensor, the dimension and both sizes. Whether a kernel can run the
/// problem is decided where it is planned.
pub fn problem(q: &Layout, k: &Layout, v: &Layout, mask: Mask, scale: Option<f32>) -> Result<Problem, AttentionError> {
    let dtype = dtype_of(q);
    let allowed = match dtype {
        Dtype::F16 => "f16, as in Q,",
        Dtype::Bf16 => "bf16, as in Q,",
        Dtype::F32 => "f32, as in Q,",
        Dtype::E4m3 => "e4m3, as in Q,",
    };
    for (tensor, found) in [("K", k.element), ("V", v.element)] {
        if found != q.element {
            return Err(AttentionError::Element { tensor, found, allowed });
        }
    }
    let (of_q, of_k, of_v) = (("Q", q), ("K", k), ("V", v));
    for (tensor, other, dimension) in
        [(of_k, of_q, 0), (of_v, of_q, 0), (of_v, of_k, 1), (of_v, of_k, 2), (of_k, of_q, 3)]
    {
        check_same(tensor, other, dimension)?;
    }
    let ([batch, seqlen_q, heads_q, head_dim_qk], [_, seqlen_kv, heads_kv, head_dim_v]) = (q.shape, v.shape);
    let o = q.strides_like([batch, seqlen_q, heads_q, head_dim_v]);
    Ok(Problem {
        heads_kv,
        seqlen_kv,
        head_dim_v,
        mask,
        scale,
        strides: TensorStrides { q: q.strides, k: k.strides, v: v.strides, o },
        ..Problem::new(batch, heads_q, seqlen_q, head_dim_qk, dtype)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lse_is_contiguous_by_heads() {
        let problem = Problem::SEED.with_seqlens(7, 9);
        let Layouts { q, k, lse, .. } = Layouts::of(&problem);
        assert_eq!((q.shape, k.shape, lse.shape), ([1, 7, 8, 64], [1, 9, 8, 64], [1, 7, 8, 1]));
        assert_eq!(lse.strides, Strides { batch: 56, seq: 1, head: 7 });
        assert_eq!(lse.extent().unwrap(), 56);
    }

    #[test]
    fn tensors_make_the_problem_whose_tensors_they_are() {
        let bshd = Problem { head_dim_v: 96, mask: Mask::Full, ..Problem::new(3, 6, 1, 40, Dtype::Bf16) }
            .with_seqlens(5, 7)
            .with_heads_kv(2);
        let one_head = Problem::new(1, 1, 5, 40, Dtype::F16);
        let scaled = Problem { scale: Some(0.0), ..bshd };
        for expected in [bshd, bshd.in_bhsd(), scaled, one_head, one_head.in_bhsd()] {
            let Layouts { q, k, v, .. } = Layouts::of(&expected);
            assert_eq!(problem(&q, &k, &v, Mask::Full, expected.scale).unwrap(), expected);
        }
    }

    #[test]
    fn contradictions_name_the_dimension_and_both_sizes() {
        let Layouts { q, k, v, .. } = Layouts::of(&Problem::SEED);
        let refusal = |change: &dyn Fn(&mut [Layout; 3])| {
            let mut tensors = [q, k, v];
            change(&mut tensors);
            let [q, k, v] = tensors;
            problem(&q, &k, &v, Mask::Full, None).unwrap_err().to_string()
        };
        let line = refusal(&|t| t[2].shape[1] = 6);
        assert_eq!(line, "the seqlen of V is 6; that of K is 512, and they must be equal");
        let line = refusal(&|t| t[1].shape[0] = 2);
        assert_eq!(line, "the batch of K is 2; that of Q is 1, and they must be equal");
        let line = refusal(&|t| t[1].shape[3] = 72);
        assert_eq!(line, "the head_dim of K is 72; that of Q is 64, and they must be equal");
        let line = refusal(&|t| t[2].shape[2] = 4);
        assert_eq!(line, "the heads of V is 4; that of K is 8, and they must be equal");
        let line = refusal(&|t| t[2].element = Element::Bf16);
        assert_eq!(line, "the elements of V are bf16; f16, as in Q, is allowed");
        let line = refusal(&|t| t[0].element = Element::F32);
        assert_eq!(line, "the elements of K are f16; f32, as in Q, is allowed");
    }

    #[test]
    fn outputs_whose_rows_overlap_are_refused() {
        let check = |change: &dyn Fn(&mut Problem)| {
            let mut problem = Problem { batch: 2, ..Problem::SEED }.in_bhsd();
            change(&mut problem);
            Layouts::of(&problem).check()
        };
        assert!(check(&|_| {}).is_ok());
        assert!(check(&|p| (p.strides.k.head, p.strides.v.batch) = (0, 0)).is_ok());
        assert!(matches!(check(&|p| p.strides.o.head = 0), Err(AttentionError::Overlap { .. })));
        assert!(matches!(check(&|p| p.strides.o.seq -= 8), Err(AttentionError::Overlap { .. })));
        assert!(matches!(check(&|p| p.strides.q.seq = -64), Err(AttentionError::Strides { tensor: "Q", .. })));
        assert!(matches!(check(&|p| p.strides.v.batch = i64::MAX), Err(AttentionError::Strides { tensor: "V", .. })));
    }
}

//! Merging partial results: attention over all keys from attentions over disjoint parts of them.
//!
//! Merging is attention once more, of each row over its parts: their LSE are its logits, and their O its values. So it is done by
//! a kernel with [features](spec::Features) whose Q and K are zero and whose bias is the parts' LSE. `docs/guide/merge.md` defines
//! what is computed.

use spec::{
    Bias, DeviceLimits, Dtype, Extra, ExtraAddresses, Family, Features, MatrixStrides, Problem, Strides, TensorStrides,
    Variant,
};

use super::layouts::{check_same, dtype_of, lse_of};
use super::{Addresses, Attention, AttentionError, Kernels, NARROWEST_STORE, check_alignment, check_problem};
use crate::driver::{Buffer, Gpu, Stream};
use crate::tensor::{Layout, Tensor};

/// Bytes of an element of O.
const ELEMENT: u64 = 2;
/// Bytes of an LSE.
const WORD: u64 = 4;

/// Names in errors.
const PARTS: &str = "the parts";
const PARTS_LSE: &str = "the LSE of the parts";

/// Layouts of what is merged and of what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeLayouts {
    /// O of the parts, stacked along the batch: `[parts * batch, seqlen_q, heads_q, head_dim]`, all entries of a part before the
    /// next part's.
    pub parts: Layout,
    /// Their LSE, as kernels write it: contiguous `[parts * batch, heads_q, seqlen_q]` in memory.
    pub parts_lse: Layout,
    /// O, `[batch, seqlen_q, heads_q, head_dim]`.
    pub o: Layout,
    /// The LSE over all parts, contiguous `[batch, heads_q, seqlen_q]` in memory.
    pub lse: Layout,
}

/// How parts are merged by attention over them; no GPU is needed to know.
///
/// Rows have three dimensions, of which attention has two for what has values of its own: batch and heads. Two neighbours of
/// batch, heads and rows are taken as one where strides allow; else there is one launch for each batch entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Merging {
    layouts: MergeLayouts,
    parts: u32,
    problem: Problem,
    launches: u32,
}

/// Where a launch begins, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// In the O of the parts.
    pub parts: i64,
    /// In O.
    pub o: i64,
    /// In the LSE; times the number of parts, in the bias.
    pub lse: i64,
}

/// A dimension of the rows: its size, and the way from one to the next in the parts and in O.
#[derive(Clone, Copy, Debug)]
struct Dimension {
    size: u32,
    parts: i64,
    o: i64,
}

impl Dimension {
    /// This and the next inner dimension as one, if both tensors can be walked so.
    fn with(self, inner: Self) -> Option<Self> {
        let size = self.size.checked_mul(inner.size)?;
        let follows = |outer, step: i64| step.checked_mul(inner.size.into()) == Some(outer);
        match (self.size, inner.size) {
            (1, _) => Some(inner),
            (_, 1) => Some(self),
            _ if follows(self.parts, inner.parts) && follows(self.o, inner.o) => Some(Self { size, ..inner }),
            _ => None,
        }
    }
}

impl Merging {
    /// Merging `parts`, stacked along the batch, into `o`. There are as many parts as their batch is times that of O.
    ///
    /// # Errors
    ///
    /// The tensors contradict each other, or no tensor can be so.
    pub fn of(limits: &DeviceLimits, parts: &Layout, o: &Layout) -> Result<Self, AttentionError> {
        let dtype = dtype_of(o);
        if !Dtype::HALVES.contains(&dtype) {
            return Err(AttentionError::Element { tensor: "O", found: o.element, allowed: "f16 or bf16" });
        }
        if parts.element != o.element {
            return Err(AttentionError::Element { tensor: PARTS, found: parts.element, allowed: "the type of O" });
        }
        for dimension in 1..4 {
            check_same((PARTS, parts), ("O", o), dimension)?;
        }
        let ([stacked, ..], [batch, rows, heads, head_dim]) = (parts.shape, o.shape);
        if !stacked.is_multiple_of(batch) {
            return Err(AttentionError::Parts { found: stacked, batch });
        }
        let count = stacked.checked_div(batch).unwrap_or(0);
        // Sizes that no attention has are refused by the names that they have here.
        check_problem(limits, &Problem::new(batch, heads, 1, head_dim, dtype).with_seqlens(rows, count))?;
        for (tensor, layout) in [(PARTS, *parts), ("O", *o)] {
            layout.extent().map_err(|_| AttentionError::Strides { tensor, layout })?;
        }
        if o.overlaps() {
            return Err(AttentionError::Overlap { tensor: "O", layout: *o });
        }

        let [b, s, h] = [
            Dimension { size: batch, parts: parts.strides.batch, o: o.strides.batch },
            Dimension { size: rows, parts: parts.strides.seq, o: o.strides.seq },
            Dimension { size: heads, parts: parts.strides.head, o: o.strides.head },
        ];
        // In the order of the LSE, which is that of batch and heads to attention too.
        let folded = b.with(h).map(|b| (b, s)).or_else(|| h.with(s).map(|s| (b, s)));
        let (launches, (outer, inner)) = folded.map_or((batch, (h, s)), |both| (1, both));
        let part = if count == 1 { 0 } else { parts.strides.batch * i64::from(batch) };
        let nowhere = Strides { batch: 0, seq: 0, head: 0 };
        let logits = MatrixStrides { batch: i64::from(inner.size) * i64::from(count), head: count.into(), row: 0 };
        let problem = Problem {
            seqlen_kv: count,
            strides: TensorStrides {
                q: nowhere,
                k: nowhere,
                v: Strides { batch: outer.parts, seq: part, head: inner.parts },
                o: Strides { batch: outer.o, seq: 0, head: inner.o },
            },
            features: Features { bias: Some(Bias { wide: true, strides: logits }), ..Features::NONE },
            ..Problem::new(outer.size, inner.size, 1, head_dim, dtype)
        };
        let layouts = MergeLayouts { parts: *parts, parts_lse: lse_of(parts.shape), o: *o, lse: lse_of(o.shape) };
        Ok(Self { layouts, parts: count, problem, launches })
    }

    /// Layouts of its tensors.
    pub fn layouts(&self) -> &MergeLayouts {
        &self.layouts
    }

    /// How many parts there are.
    pub fn parts(&self) -> u32 {
        self.parts
    }

    /// What each launch computes: Q and K are one row of zeros, V the parts, and the bias their LSE with those of a row side by
    /// side.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Where each launch begins.
    pub fn launches(&self) -> impl ExactSizeIterator<Item = Offsets> + use<> {
        let Self { layouts: MergeLayouts { parts, o, .. }, launches, .. } = *self;
        let [_, rows, heads, _] = o.shape.map(i64::from);
        (0..launches).map(move |entry| {
            // Nobody steps along a dimension of one element.
            let entry = i64::from(entry);
            let along = |stride: i64| if entry == 0 { 0 } else { entry * stride };
            Offsets { parts: along(parts.strides.batch), o: along(o.strides.batch), lse: entry * heads * rows }
        })
    }

    /// Rows of all batch entries and heads.
    fn rows(&self) -> u64 {
        let [batch, rows, heads, _] = self.layouts.o.shape.map(u64::from);
        batch * rows * heads
    }
}

/// Device addresses of a merge, laid out as [`Merge::layouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeAddresses {
    /// O of the parts.
    pub parts: u64,
    /// LSE of the parts.
    pub parts_lse: u64,
    /// O.
    pub o: u64,
    /// LSE; 0 if it is not wanted.
    pub lse: u64,
    /// [`Merge::scratch_bytes`] that launches of other streams leave alone meanwhile.
    pub scratch: u64,
}

/// A plan to merge the results of attention over disjoint parts of the keys. Threads may share it.
///
/// All plans are of one variant, so that a row has the same bits in any batch.
#[derive(Debug)]
pub struct Merge {
    merging: Merging,
    attention: Attention,
    /// The row that Q and K are.
    zeros: Buffer,
}

impl Merge {
    /// A plan to merge `parts`, O of all of them stacked along the batch, `[parts * batch, seqlen_q, heads_q, head_dim]`, into
    /// `o`, `[batch, seqlen_q, heads_q, head_dim]`.
    ///
    /// # Errors
    ///
    /// The tensors contradict each other or cannot be merged, or `kernels` lacks the kernel, [`Variant::smallest`] of
    /// [`Family::Tiled`] with features and the head_dim of O.
    pub fn new<K: Kernels>(gpu: &Gpu, kernels: &K, parts: &Layout, o: &Layout) -> Result<Self, AttentionError> {
        let merging = Merging::of(gpu.limits(), parts, o)?;
        // Its blocks are small, of which there is one for each row, and it reads from any address by any strides.
        let attention = Attention::with_variant(gpu, kernels, merging.problem(), &Variant::smallest(Family::Tiled))?;
        let zeros = Buffer::of(gpu, &vec![0u16; o.shape[3] as usize])?;
        Ok(Self { merging, attention, zeros })
    }

    /// Queues merging `parts` and their LSE into O, and its LSE if wanted. What it needs on the way it keeps in `scratch`, which
    /// is [`Merge::scratch`]; launches in other streams need one of their own.
    pub fn launch(
        &self,
        stream: &Stream,
        [parts, parts_lse]: [&Tensor; 2],
        o: &mut Tensor,
        lse: Option<&mut Tensor>,
        scratch: &mut Buffer,
    ) -> Result<(), AttentionError> {
        let layouts = self.layouts();
        let inputs = [(PARTS, parts, layouts.parts), (PARTS_LSE, parts_lse, layouts.parts_lse), ("O", o, layouts.o)];
        for (tensor, given, expected) in inputs.into_iter().chain(lse.as_deref().map(|lse| ("LSE", lse, layouts.lse))) {
            if *given.layout() != expected {
                return Err(AttentionError::Layout { tensor, found: *given.layout(), expected });
            }
            self.attention.check_gpu(tensor, given.gpu())?;
        }
        self.attention.check_gpu("the scratch", scratch.gpu())?;
        let (found, needed) = (scratch.bytes() as u64, self.scratch_bytes());
        if found < needed {
            return Err(AttentionError::Short { what: "the scratch bytes", found, needed });
        }
        let addresses = MergeAddresses {
            parts: parts.address(),
            parts_lse: parts_lse.address(),
            o: o.address(),
            lse: lse.map_or(0, |lse| lse.address()),
            scratch: scratch.address(),
        };
        // SAFETY: all are on this GPU, and as large as they must be. Freeing one waits for the work queued before.
        unsafe { self.launch_at(stream, &addresses) }
    }

    /// Like [`Merge::launch`], on memory that something else owns.
    ///
    /// # Safety
    ///
    /// The addresses must be of live memory on the plan's GPU, laid out as [`Merge::layouts`], until the stream has been waited for.
    /// O, LSE and scratch must overlap no other of them, and no other stream use the scratch meanwhile.
    pub unsafe fn launch_at(&self, stream: &Stream, addresses: &MergeAddresses) -> Result<(), AttentionError> {
        let MergeAddresses { parts, parts_lse, o, lse, scratch } = *addresses;
        self.attention.check_gpu("the stream", stream.gpu())?;
        for (tensor, address, needed) in [
            (PARTS, parts, ELEMENT),
            (PARTS_LSE, parts_lse, WORD),
            ("O", o, NARROWEST_STORE),
            ("the scratch", scratch, WORD),
        ] {
            check_alignment(tensor, address, needed)?;
        }
        if lse != 0 {
            check_alignment("LSE", lse, WORD)?;
        }
        let (rows, count) = (self.merging.rows(), u64::from(self.merging.parts()));
        for part in 0..count {
            let (from, to) = (parts_lse + part * rows * WORD, scratch + part * WORD);
            // SAFETY: the caller vouches for both.
            unsafe { stream.spread(from, to, rows as usize, count as usize) }?;
        }
        for offsets in self.merging.launches() {
            let row = offsets.lse.unsigned_abs();
            let q = self.zeros.address();
            let addresses = Addresses {
                q,
                k: q,
                v: parts + offsets.parts.unsigned_abs() * ELEMENT,
                o: o + offsets.o.unsigned_abs() * ELEMENT,
                lse: if lse == 0 { 0 } else { lse + row * WORD },
            };
            let mut extras = ExtraAddresses::default();
            extras.0[Extra::Bias as usize] = scratch + row * count * WORD;
            // SAFETY: the caller vouches for the memory, in which the layouts lie.
            unsafe { self.attention.launch_at_with(stream, &addresses, &extras) }?;
        }
        Ok(())
    }

    /// Memory for launches in one stream; what it holds between them does not matter.
    pub fn scratch(&self) -> Result<Buffer, AttentionError> {
        Ok(Buffer::new(self.zeros.gpu(), self.scratch_bytes() as usize)?)
    }

    /// Bytes of it: 4 for each row of each part.
    pub fn scratch_bytes(&self) -> u64 {
        self.merging.rows() * u64::from(self.merging.parts()) * WORD
    }

    /// The layouts of its tensors.
    pub fn layouts(&self) -> &MergeLayouts {
        self.merging.layouts()
    }

    /// How it is done.
    pub fn merging(&self) -> &Merging {
        &self.merging
    }

    /// The attention by which it is done, which [explains itself](Attention::explain).
    pub fn attention(&self) -> &Attention {
        &self.attention
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::attention::Layouts;
    use crate::tensor::Element;

    const LIMITS: DeviceLimits = DeviceLimits::H100;

    fn merging(parts: &Layout, o: &Layout) -> Result<Merging, AttentionError> {
        Merging::of(&LIMITS, parts, o)
    }

    /// The layouts of O of a problem and of so many parts of it.
    fn layouts(problem: &Problem, parts: u32) -> [Layout; 2] {
        let stacked = Problem { batch: problem.batch * parts, ..*problem };
        [stacked, *problem].map(|problem| Layouts::of(&problem).o)
    }

    #[test]
    fn one_launch_does_where_two_dimensions_are_one() {
        let many = Problem::new(3, 4, 1, 64, Dtype::F16).with_seqlens(5, 1);
        let shape = |problem: &Problem| {
            let [parts, o] = layouts(problem, 2);
            let merging = merging(&parts, &o).unwrap();
            let Problem { batch, heads_q, seqlen_q, seqlen_kv, .. } = *merging.problem();
            assert_eq!((seqlen_q, seqlen_kv), (1, 2));
            (merging.launches().len(), batch, heads_q)
        };
        assert_eq!(shape(&many), (3, 4, 5));
        assert_eq!(shape(&many.in_bhsd()), (1, 12, 5));
        assert_eq!(shape(&Problem { batch: 1, ..many }), (1, 4, 5));
        assert_eq!(shape(&many.with_seqlens(1, 1)), (1, 12, 1));
        // Room for more heads than there are, which are contiguous otherwise.
        let mut roomy = many.in_bhsd();
        roomy.strides.o.batch *= 2;
        assert_eq!(shape(&roomy), (1, 3, 20));
        roomy.strides.o.head *= 2;
        roomy.strides.o.batch *= 2;
        assert_eq!(shape(&roomy), (3, 4, 5));
    }

    #[test]
    fn launches_begin_where_entries_do() {
        let problem = Problem::new(3, 4, 1, 64, Dtype::F16).with_seqlens(5, 1);
        let [parts, o] = layouts(&problem, 2);
        let merging = merging(&parts, &o).unwrap();
        let entry = 5 * 4 * 64;
        assert_eq!(merging.problem().strides.v, Strides { batch: 64, seq: 3 * entry, head: 4 * 64 });
        let last = merging.launches().last().unwrap();
        assert_eq!(last, Offsets { parts: 2 * entry, o: 2 * entry, lse: 2 * 5 * 4 });
        assert_eq!(merging.layouts().parts_lse.shape, [6, 5, 4, 1]);
    }

    #[test]
    fn strides_of_one_element_do_not_matter() {
        let [mut parts, mut o] = layouts(&Problem::new(1, 1, 1, 8, Dtype::F16), 1);
        (parts.strides, o.strides) =
            (Strides { batch: i64::MAX, seq: -1, head: i64::MIN }, Strides { batch: -7, seq: 3, head: 1 });
        assert_eq!(merging(&parts, &o).unwrap().launches().len(), 1);
    }

    #[test]
    fn what_cannot_be_merged_is_refused_by_name() {
        let [parts, o] = layouts(&Problem::new(3, 4, 7, 64, Dtype::F16), 2);
        let refusal = |change: &dyn Fn(&mut Layout, &mut Layout)| {
            let (mut parts, mut o) = (parts, o);
            change(&mut parts, &mut o);
            let line = merging(&parts, &o).unwrap_err().to_string();
            assert!(!line.contains('\n'));
            line
        };
        let line = refusal(&|parts, _| parts.shape[0] = 7);
        assert_eq!(line, "the batch of the parts is 7; a multiple of that of O, 3, is allowed");
        let line = refusal(&|parts, _| parts.shape[2] = 2);
        assert_eq!(line, "the heads of the parts is 2; that of O is 4, and they must be equal");
        let line = refusal(&|parts, _| parts.shape[3] = 128);
        assert_eq!(line, "the head_dim of the parts is 128; that of O is 64, and they must be equal");
        let line = refusal(&|parts, _| parts.element = Element::Bf16);
        assert_eq!(line, "the elements of the parts are bf16; the type of O is allowed");
        let line = refusal(&|parts, o| (parts.element, o.element) = (Element::F32, Element::F32));
        assert_eq!(line, "the elements of O are f32; f16 or bf16 is allowed");
        let line = refusal(&|parts, _| parts.shape[0] = 0);
        assert!(line.ends_with("seqlen_kv is 0; at least 1 is needed"), "{line}");
        let line = refusal(&|parts, o| (parts.shape[0], o.shape[0]) = (0, 0));
        assert!(line.ends_with("batch is 0; at least 1 is needed"), "{line}");
        let line = refusal(&|parts, o| (parts.shape[3], o.shape[3]) = (20, 20));
        assert!(line.ends_with("head_dim_qk is 20; multiples of 8 from 8 to 256 are allowed"), "{line}");
        assert!(refusal(&|_, o| o.strides.head = 0).starts_with("rows of O overlap"));
        assert!(refusal(&|parts, _| parts.strides.seq = -64).starts_with("the parts cannot lie in memory so"));
        assert!(refusal(&|parts, _| parts.strides.batch = i64::MAX).starts_with("the parts cannot lie in memory so"));
    }
}

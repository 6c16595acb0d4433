//! Tensors on the host, in the layout that the problem asks for.

use spec::{Dtype, Problem, Strides};

use super::{CaseError, Extras, Guarded, number};

/// What inputs hold outside the elements that belong to them: a NaN in fp16 and in bf16, twice also in fp32, so that a stray read
/// shows; two of e4m3.
const STRAY: u16 = 0x7fff;

/// What outputs hold before a launch: another NaN in all, which no conversion of a NaN gives.
const UNWRITTEN: u16 = 0xffa5;

/// A tensor `[batch, seq, heads, columns]` in guarded memory, in words of 16 bits: an element takes one or two, the low one first,
/// or two share one. Rows start at whole words.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dtype: Dtype,
    /// Batch, sequence, heads, columns.
    shape: [u32; 4],
    strides: Strides,
    /// From the first element to the last, and some before them: tensors may begin anywhere.
    pub storage: Guarded<u16>,
    /// Words before the first.
    pub lead: usize,
}

impl Tensor {
    fn poisoned(
        name: char,
        dtype: Dtype,
        shape: [u32; 4],
        strides: Strides,
        lead: u32,
        poison: u16,
    ) -> Result<Self, CaseError> {
        let all = [strides.batch, strides.seq, strides.head];
        let mut last = u128::from(shape[3]).saturating_sub(1);
        for (extent, stride) in shape.into_iter().zip(all) {
            let stride =
                u128::try_from(stride).map_err(|_| CaseError::NegativeStride { tensor: name, strides: all })?;
            last += u128::from(extent).saturating_sub(1) * stride;
        }
        let elements = u128::from(lead) + last + 1;
        let bytes = usize::try_from(elements).ok().and_then(|elements| elements.checked_mul(dtype.bytes() as usize));
        let storage = bytes.and_then(|bytes| Guarded::poisoned(bytes.div_ceil(WORD), poison));
        let storage = storage.ok_or(CaseError::Memory { tensor: name, elements })?;
        Ok(Self { dtype, shape, strides, storage, lead: words(dtype, lead as usize) })
    }

    /// O of a problem, unwritten.
    pub fn output(problem: &Problem) -> Result<Self, CaseError> {
        let strides = problem.strides.o;
        let [.., shape] = problem.shapes();
        let tensor = Self::poisoned('O', problem.dtype.output(), shape, strides, 0, UNWRITTEN)?;
        if tensor.own().into_iter().filter(|own| *own).count() != tensor.words() {
            return Err(CaseError::Overlap { strides: [strides.batch, strides.seq, strides.head] });
        }
        Ok(tensor)
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Batch, sequence, heads, columns.
    pub fn shape(&self) -> [u32; 4] {
        self.shape
    }

    /// Number of elements, whatever lies between them.
    pub fn elements(&self) -> usize {
        self.shape.into_iter().map(|extent| extent as usize).product()
    }

    /// Words of 16 bits that all elements take.
    pub fn words(&self) -> usize {
        words(self.dtype, self.elements())
    }

    /// Where a row begins in the storage.
    pub fn offset(&self, batch: u32, seq: u32, head: u32) -> usize {
        let Strides { batch: b, seq: s, head: h } = self.strides;
        let elements = i64::from(batch) * b + i64::from(seq) * s + i64::from(head) * h;
        self.lead + words(self.dtype, elements as usize)
    }

    /// The words of a row.
    pub fn row(&self, batch: u32, seq: u32, head: u32) -> &[u16] {
        let start = self.offset(batch, seq, head);
        &self.storage.inner()[start..start + self.words_per_row()]
    }

    /// The bits of a row's elements.
    pub fn bits(&self, batch: u32, seq: u32, head: u32) -> impl Iterator<Item = u32> + '_ {
        bytemuck::cast_slice(self.row(batch, seq, head)).chunks(self.dtype.bytes() as usize).map(bits)
    }

    /// The bits of an element that was not written.
    pub fn poison(&self) -> u32 {
        let [low, high] = self.storage.poison().to_ne_bytes();
        bits(&[low, high, low, high][..self.dtype.bytes() as usize])
    }

    fn words_per_row(&self) -> usize {
        words(self.dtype, self.shape[3] as usize)
    }

    /// The values of a row.
    pub fn values(&self, batch: u32, seq: u32, head: u32) -> impl Iterator<Item = f32> + '_ {
        self.bits(batch, seq, head).map(|bits| number::decode(self.dtype, bits))
    }

    /// Writes a row, rounded.
    pub fn set_row(&mut self, batch: u32, seq: u32, head: u32, values: &[f32]) {
        let (start, dtype) = (self.offset(batch, seq, head), self.dtype);
        let row = &mut self.storage.inner_mut()[start..][..words(dtype, values.len())];
        let size = dtype.bytes() as usize;
        for (element, value) in bytemuck::cast_slice_mut(row).chunks_mut(size).zip(values) {
            element.copy_from_slice(&number::encode(dtype, *value).to_le_bytes()[..size]);
        }
    }

    /// The position of each row, as batch, sequence and head.
    pub fn rows(&self) -> impl Iterator<Item = (u32, u32, u32)> + use<> {
        let [batch, seq, heads, _] = self.shape;
        (0..batch).flat_map(move |b| (0..seq).flat_map(move |s| (0..heads).map(move |h| (b, s, h))))
    }

    /// Which places of the storage belong to the tensor; the others lie between its rows.
    pub fn own(&self) -> Vec<bool> {
        let mut own = vec![false; self.storage.inner().len()];
        for (batch, seq, head) in self.rows() {
            let start = self.offset(batch, seq, head);
            own[start..start + self.words_per_row()].fill(true);
        }
        own
    }
}

/// Bytes of a word.
const WORD: usize = size_of::<u16>();

/// Words of 16 bits that so many elements take.
fn words(dtype: Dtype, elements: usize) -> usize {
    elements * dtype.bytes() as usize / WORD
}

/// The bits of an element, of its bytes.
fn bits(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u32::from(*byte))
}

/// The inputs of a problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensors {
    /// Q, in the first of the problem's [shapes](Problem::shapes).
    pub q: Tensor,
    /// K, in the second.
    pub k: Tensor,
    /// V, in the third.
    pub v: Tensor,
    /// What else the problem's features read.
    pub extras: Extras,
}

impl Tensors {
    /// Tensors of NaN in the problem's shapes and strides, for their rows to be written.
    pub fn unset(problem: &Problem) -> Result<Self, CaseError> {
        Self::unset_after(problem, 0)
    }

    /// The same, so many elements after where memory begins.
    pub(super) fn unset_after(problem: &Problem, lead: u32) -> Result<Self, CaseError> {
        let (strides, [q, k, v, _]) = (problem.strides, problem.shapes());
        let input = |name, shape, strides| Tensor::poisoned(name, problem.dtype, shape, strides, lead, STRAY);
        Ok(Self {
            q: input('Q', q, strides.q)?,
            k: input('K', k, strides.k)?,
            v: input('V', v, strides.v)?,
            extras: Extras::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_may_not_overlap_and_inputs_may() {
        let mut problem = Problem::new(2, 2, 3, 8, Dtype::F16);
        (problem.strides.k.batch, problem.strides.o.batch) = (0, 0);
        assert!(Tensors::unset(&problem).is_ok());
        assert_eq!(Tensor::output(&problem), Err(CaseError::Overlap { strides: [0, 16, 8] }));
        problem.strides.k.seq = -16;
        let refusal = Tensors::unset(&problem).unwrap_err();
        assert_eq!(refusal.to_string(), "the strides of K are [0, -16, 8]; strides of at least 0 are allowed");
        problem.strides.k.seq = i64::MAX;
        assert!(matches!(Tensors::unset(&problem), Err(CaseError::Memory { tensor: 'K', .. })));
    }

    #[test]
    fn places_between_rows_are_nobodys() {
        let mut problem = Problem::new(1, 1, 3, 8, Dtype::Bf16);
        problem.strides.o.seq = 12;
        let own = Tensor::output(&problem).unwrap().own();
        assert_eq!(own.len(), 32);
        assert_eq!(own.iter().filter(|own| !**own).count(), 8);
        assert!(own[7] && !own[8] && !own[11] && own[12]);
    }

    #[test]
    fn what_lies_before_the_first_element_is_nobodys() {
        let problem = Problem::new(1, 1, 3, 8, Dtype::Bf16);
        let q = Tensors::unset_after(&problem, 5).unwrap().q;
        assert_eq!((q.storage.inner().len(), q.offset(0, 1, 0)), (5 + 24, 5 + 8));
        assert_eq!(q.own().iter().position(|own| *own), Some(5));
    }
}

//! Shapes, strides and element types.

use std::fmt;

use safetensors::Dtype as FileDtype;
use spec::{Dtype, Strides};

use super::TensorError;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
    /// OCP fp8 of 4 exponent and 3 fraction bits, as in [`Dtype::E4m3`].
    E4m3,
}

impl Element {
    /// Size in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::E4m3 => 1,
        }
    }

    pub(super) const fn in_files(self) -> FileDtype {
        match self {
            Self::F16 => FileDtype::F16,
            Self::Bf16 => FileDtype::BF16,
            Self::F32 => FileDtype::F32,
            Self::E4m3 => FileDtype::F8_E4M3,
        }
    }
}

impl From<Dtype> for Element {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F32 => Self::F32,
            Dtype::E4m3 => Self::E4m3,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::E4m3 => "e4m3",
        })
    }
}

/// Shape, strides and element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `[batch, seqlen, heads, head_dim]`; all at least 1.
    pub shape: [u32; 4],
    /// Distances in elements, none negative; the last dimension is contiguous.
    pub strides: Strides,
    /// Element type.
    pub element: Element,
}

impl Layout {
    /// A contiguous tensor.
    pub const fn bshd(shape: [u32; 4], element: Element) -> Self {
        Self { shape, strides: Strides::bshd(shape[1], shape[2], shape[3]), element }
    }

    /// Elements from the first to the last, gaps included.
    pub fn extent(&self) -> Result<usize, TensorError> {
        let refused = || TensorError::Layout { layout: *self };
        let [batch, seq, heads, head_dim] = self.shape;
        let mut extent = u64::from(head_dim);
        for (size, stride) in [(batch, self.strides.batch), (seq, self.strides.seq), (heads, self.strides.head)] {
            let steps = u64::from(size).checked_sub(1).ok_or_else(refused)?;
            // Nobody steps along a dimension of one element, and tensor libraries leave anything as its stride.
            let stride = if steps == 0 { 0 } else { u64::try_from(stride).map_err(|_| refused())? };
            extent = steps.checked_mul(stride).and_then(|n| n.checked_add(extent)).ok_or_else(refused)?;
        }
        let bytes = extent.checked_mul(self.element.bytes() as u64).filter(|n| *n > 0 && *n <= isize::MAX as u64);
        bytes.map(|_| extent as usize).ok_or_else(refused)
    }

    /// That there is one value of the right size for each place.
    pub(super) fn check_values<T>(&self, values: &[T]) -> Result<(), TensorError> {
        let expected = self.extent()?;
        if values.len() == expected && size_of::<T>() == self.element.bytes() {
            return Ok(());
        }
        let (count, size) = (values.len(), size_of::<T>());
        Err(TensorError::Values { expected, element: self.element, count, size })
    }

    /// Whether two of its rows may share memory: whether some stride does not reach past what the smaller ones span.
    pub(crate) fn overlaps(&self) -> bool {
        let mut span = i64::from(self.shape[3]);
        self.dimensions().into_iter().any(|(size, stride, _)| {
            let overlaps = size > 1 && stride < span;
            span = span.saturating_add(i64::from(size - 1).saturating_mul(stride));
            overlaps
        })
    }

    /// The strides of a contiguous tensor of this shape whose dimensions follow each other in memory as they do here.
    pub(crate) fn strides_like(&self, shape: [u32; 4]) -> Strides {
        let mut strides = [0; 3];
        let mut stride = i64::from(shape[3]);
        for (_, _, dimension) in self.dimensions() {
            strides[dimension] = stride;
            stride *= i64::from(shape[dimension]);
        }
        let [batch, seq, head] = strides;
        Strides { batch, seq, head }
    }

    /// Size, stride and number of the first three dimensions, from the innermost outwards.
    fn dimensions(&self) -> [(u32, i64, usize); 3] {
        let Self { shape: [batch, seq, heads, _], strides, .. } = *self;
        let mut dimensions = [(heads, strides.head, 2), (seq, strides.seq, 1), (batch, strides.batch, 0)];
        dimensions.sort_by_key(|(_, stride, _)| *stride);
        dimensions
    }

    /// Offsets of the rows, in elements, in the order of the shape.
    pub(super) fn rows(&self) -> impl Iterator<Item = usize> {
        let Self { shape: [batch, seq, heads, _], strides, .. } = *self;
        (0..batch).flat_map(move |b| {
            (0..seq).flat_map(move |s| {
                (0..heads).map(move |h| {
                    let offset =
                        i64::from(b) * strides.batch + i64::from(s) * strides.seq + i64::from(h) * strides.head;
                    offset as usize
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_layouts_are_refused() {
        assert!(Layout::bshd([1, 0, 1, 8], Element::F16).extent().is_err());
        assert!(Layout::bshd([u32::MAX, u32::MAX, u32::MAX, 8], Element::F16).extent().is_err());
        let mut layout = Layout::bshd([2, 2, 2, 8], Element::F16);
        assert_eq!(layout.extent().unwrap(), 64);
        layout.strides.seq = -1;
        assert!(layout.extent().is_err());
    }
}

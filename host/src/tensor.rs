//! Tensors on a GPU, and in safetensors files.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytemuck::{AnyBitPattern, NoUninit};
use safetensors::tensor::TensorView;
use safetensors::{Dtype as FileDtype, SafeTensorError, SafeTensors};
use spec::{Dtype, Strides};

use crate::driver::{Buffer, DriverError, Gpu};

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
}

impl Element {
    /// Size in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    const fn in_files(self) -> FileDtype {
        match self {
            Self::F16 => FileDtype::F16,
            Self::Bf16 => FileDtype::BF16,
            Self::F32 => FileDtype::F32,
        }
    }
}

impl From<Dtype> for Element {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
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
    fn check_values<T>(&self, values: &[T]) -> Result<(), TensorError> {
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

    /// Size, stride and number of the first three dimensions, from the innermost outwards; those of one element come last.
    fn dimensions(&self) -> [(u32, i64, usize); 3] {
        let Self { shape: [batch, seq, heads, _], strides, .. } = *self;
        let mut dimensions = [(heads, strides.head, 2), (seq, strides.seq, 1), (batch, strides.batch, 0)];
        dimensions.sort_by_key(|(size, stride, _)| if *size > 1 { *stride } else { i64::MAX });
        dimensions
    }

    /// Offsets of the rows, in elements, in the order of the shape.
    fn rows(&self) -> impl Iterator<Item = usize> {
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

/// Why a tensor cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The layout has no elements, negative strides, or more bytes than there are addresses.
    #[error("no tensor has this layout: {layout:?}; dimensions must be at least 1, strides at least 0")]
    Layout {
        /// The layout.
        layout: Layout,
    },
    /// Values of another size, or another number of them.
    #[error("the tensor holds {expected} values of {element}, {count} values of {size} B were given")]
    Values {
        /// Elements from the first to the last.
        expected: usize,
        /// Their type.
        element: Element,
        /// How many were given.
        count: usize,
        /// Size of one that was given.
        size: usize,
    },
    /// The file has no such tensor.
    #[error("{path} has no tensor {name}; it has {available}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// What it has.
        available: String,
    },
    /// The file's tensor cannot be used.
    #[error("tensor {name} in {path} is {found}; 4-dimensional f16, bf16 or f32 is needed")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type and shape.
        found: String,
    },
    /// The file is no safetensors file, or the tensors cannot be written as one.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SafeTensorError,
    },
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// A tensor on a GPU.
#[derive(Debug)]
pub struct Tensor {
    layout: Layout,
    buffer: Buffer,
}

impl Tensor {
    /// Allocates a tensor; what it holds is not defined.
    pub fn new(gpu: &Gpu, layout: Layout) -> Result<Self, TensorError> {
        let buffer = Buffer::new(gpu, layout.extent()? * layout.element.bytes())?;
        Ok(Self { layout, buffer })
    }

    /// Allocates a tensor of these values, which are in the order of memory, gaps included.
    pub fn of<T: NoUninit>(gpu: &Gpu, layout: Layout, values: &[T]) -> Result<Self, TensorError> {
        layout.check_values(values)?;
        Ok(Self { layout, buffer: Buffer::of(gpu, values)? })
    }

    /// Puts these values, in the order of memory, gaps included, in the place of its own; waits for earlier work of the GPU.
    /// Recorded launches that read it find them.
    pub fn set<T: NoUninit>(&mut self, values: &[T]) -> Result<(), TensorError> {
        self.layout.check_values(values)?;
        Ok(self.buffer.upload(0, values)?)
    }

    /// Its values in the order of memory, gaps included; waits for earlier work of the GPU.
    pub fn values<T: AnyBitPattern + NoUninit>(&self) -> Result<Vec<T>, TensorError> {
        let expected = self.layout.extent()?;
        if size_of::<T>() != self.layout.element.bytes() {
            let (count, size) = (expected, size_of::<T>());
            return Err(TensorError::Values { expected, element: self.layout.element, count, size });
        }
        Ok(self.buffer.download(0, expected)?)
    }

    /// Reads a tensor of shape `[batch, seqlen, heads, head_dim]` from a safetensors file.
    pub fn read(gpu: &Gpu, path: &Path, name: &str) -> Result<Self, TensorError> {
        let bytes = fs::read(path).map_err(|source| TensorError::Io { path: path.to_owned(), source })?;
        let (layout, values) = in_file(&bytes, path, name)?;
        Ok(Self { layout, buffer: Buffer::of(gpu, values)? })
    }

    /// Writes tensors, contiguous, to a safetensors file; waits for earlier work of the GPU.
    pub fn write(path: &Path, tensors: &[(&str, &Self)]) -> Result<(), TensorError> {
        let contents = tensors
            .iter()
            .map(|(name, tensor)| {
                let memory = tensor.buffer.download(0, tensor.buffer.bytes())?;
                Ok((*name, tensor.layout, contiguous(&tensor.layout, &memory)))
            })
            .collect::<Result<Vec<_>, TensorError>>()?;
        to_file(path, &contents)
    }

    /// Its layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The GPU it is on.
    pub fn gpu(&self) -> &Gpu {
        self.buffer.gpu()
    }

    /// Its device address.
    pub fn address(&self) -> u64 {
        self.buffer.address()
    }
}

/// The layout and bytes of a tensor in a file's contents.
fn in_file<'a>(bytes: &'a [u8], path: &Path, name: &str) -> Result<(Layout, &'a [u8]), TensorError> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|source| TensorError::Format { path: path.to_owned(), source })?;
    let Ok(tensor) = file.tensor(name) else {
        let mut names = file.names();
        names.sort_unstable();
        return Err(TensorError::Missing { path: path.to_owned(), name: name.to_owned(), available: names.join(", ") });
    };
    let element = [Element::F16, Element::Bf16, Element::F32].into_iter().find(|e| e.in_files() == tensor.dtype());
    let sizes: Result<Vec<u32>, _> = tensor.shape().iter().map(|size| u32::try_from(*size)).collect();
    let shape = sizes.ok().and_then(|sizes| <[u32; 4]>::try_from(sizes).ok());
    let (Some(element), Some(shape)) = (element, shape) else {
        let found = format!("{:?} {:?}", tensor.dtype(), tensor.shape());
        return Err(TensorError::Unsupported { path: path.to_owned(), name: name.to_owned(), found });
    };
    let layout = Layout::bshd(shape, element);
    layout.extent()?;
    Ok((layout, tensor.data()))
}

/// A tensor's bytes without gaps, in the order of its shape.
fn contiguous(layout: &Layout, memory: &[u8]) -> Vec<u8> {
    let size = layout.element.bytes();
    let row = layout.shape[3] as usize * size;
    layout.rows().flat_map(|offset| &memory[offset * size..][..row]).copied().collect()
}

fn to_file(path: &Path, tensors: &[(&str, Layout, Vec<u8>)]) -> Result<(), TensorError> {
    let format = |source| TensorError::Format { path: path.to_owned(), source };
    let io = |source| TensorError::Io { path: path.to_owned(), source };
    let views = tensors
        .iter()
        .map(|(name, layout, bytes)| {
            let shape = layout.shape.iter().map(|size| *size as usize).collect();
            Ok((*name, TensorView::new(layout.element.in_files(), shape, bytes).map_err(format)?))
        })
        .collect::<Result<Vec<_>, TensorError>>()?;
    let bytes = safetensors::serialize(views, None).map_err(format)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    file.write_all(&bytes).map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_contiguous_tensors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors.safetensors");
        let shape = [2, 3, 2, 4];
        // Heads before rows, and a gap of one element after each row.
        let strides = Strides { batch: 30, seq: 5, head: 15 };
        let layout = Layout { shape, strides, element: Element::F16 };
        let memory: Vec<u16> = (0..layout.extent().unwrap() as u16).collect();
        let values = contiguous(&layout, bytemuck::cast_slice(&memory));
        to_file(&path, &[("x", layout, values)]).unwrap();

        let bytes = fs::read(&path).unwrap();
        let (read, values) = in_file(&bytes, &path, "x").unwrap();
        assert_eq!(read, Layout::bshd(shape, Element::F16));
        let at = |b: i64, s: i64, h: i64, d: i64| (b * 30 + s * 5 + h * 15 + d) as u16;
        let mut expected = Vec::new();
        for (b, s, h, d) in (0..48).map(|i| (i / 24, i / 8 % 3, i / 4 % 2, i % 4)) {
            expected.extend(at(b, s, h, d).to_le_bytes());
        }
        assert_eq!(values, expected);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_file_lacks_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors.safetensors");
        let layout = Layout::bshd([1, 1, 1, 2], Element::F32);
        to_file(&path, &[("k", layout, vec![0; 8]), ("v", layout, vec![0; 8])]).unwrap();
        let bytes = fs::read(&path).unwrap();
        let missing = in_file(&bytes, &path, "q").unwrap_err().to_string();
        assert!(missing.ends_with("has no tensor q; it has k, v"), "{missing}");
        assert!(matches!(in_file(&bytes[..20], &path, "k"), Err(TensorError::Format { .. })));
        let view = TensorView::new(FileDtype::I64, vec![2], &[0; 16]).unwrap();
        let other = safetensors::serialize([("i", view)], None).unwrap();
        assert!(matches!(in_file(&other, &path, "i"), Err(TensorError::Unsupported { .. })));
    }

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

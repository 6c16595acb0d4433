//! Tensors in safetensors files.

use std::fmt;
use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use spec::Strides;

use super::{Element, Layout, TensorError};
use crate::record::file::{self, FileError};

/// A tensor in host memory, as a file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its layout.
    pub layout: Layout,
    /// Its values, in the order of memory.
    pub bytes: Vec<u8>,
}

/// An array of any type and shape, as a file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Type of its elements.
    pub dtype: Dtype,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Its values, in the order of memory.
    pub bytes: Vec<u8>,
    /// What it is called.
    name: String,
}

/// The order of a file's dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// `[batch, seqlen, heads, head_dim]`.
    Bshd,
    /// `[batch, heads, seqlen, head_dim]`.
    Bhsd,
}

/// Which tensor of a file is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// The one of this name.
    Exactly(&'a str),
    /// The one of this name, or the only one there is.
    OrTheOnly(&'a str),
}

impl Order {
    /// A file's sizes in the order of a layout's shape, or the other way round.
    fn turn<T>(self, [a, b, c, d]: [T; 4]) -> [T; 4] {
        match self {
            Self::Bshd => [a, b, c, d],
            Self::Bhsd => [a, c, b, d],
        }
    }

    /// A contiguous layout.
    fn layout(self, shape: [u32; 4], element: Element) -> Layout {
        let [_, seqlen, heads, head_dim] = shape;
        let strides = match self {
            Self::Bshd => Strides::bshd(seqlen, heads, head_dim),
            Self::Bhsd => Strides::bhsd(seqlen, heads, head_dim),
        };
        Layout { shape, strides, element }
    }
}

impl Array {
    /// Reads an array.
    pub fn read(path: &Path, name: Name<'_>) -> Result<Self, TensorError> {
        let bytes = fs::read(path).map_err(FileError::at(path))?;
        let file =
            SafeTensors::deserialize(&bytes).map_err(|source| TensorError::Format { path: path.to_owned(), source })?;
        let mut names = file.names();
        names.sort_unstable();
        let name = match (name, &names[..]) {
            (Name::OrTheOnly(name), [only]) if *only != name => only,
            (Name::Exactly(name) | Name::OrTheOnly(name), _) => name,
        };
        let Ok(tensor) = file.tensor(name) else {
            let available = names.join(", ");
            return Err(TensorError::Missing { path: path.to_owned(), name: name.to_owned(), available });
        };
        let (dtype, shape, bytes) = (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec());
        Ok(Self { dtype, shape, bytes, name: (*name).to_owned() })
    }
}

/// Its type and shape, as in `F32 [8]`.
impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.dtype, self.shape)
    }
}

impl Stored {
    /// Reads a tensor whose dimensions have this order.
    pub fn read(path: &Path, name: Name<'_>, order: Order) -> Result<Self, TensorError> {
        let array = Array::read(path, name)?;
        let element = [Element::F16, Element::Bf16, Element::F32, Element::E4m3]
            .into_iter()
            .find(|e| e.in_files() == array.dtype);
        let sizes: Result<Vec<u32>, _> = array.shape.iter().map(|size| u32::try_from(*size)).collect();
        let shape = sizes.ok().and_then(|sizes| <[u32; 4]>::try_from(sizes).ok());
        let (Some(element), Some(shape)) = (element, shape) else {
            let found = array.to_string();
            return Err(TensorError::Unsupported { path: path.to_owned(), name: array.name, found });
        };
        let layout = order.layout(order.turn(shape), element);
        layout.extent()?;
        Ok(Self { layout, bytes: array.bytes })
    }

    /// Writes tensors, each contiguous in its order of dimensions, to a file that is there whole or not at all. A tensor of one
    /// column, such as the LSE, is written without that dimension.
    pub fn write(path: &Path, tensors: &[(&str, &Self, Order)]) -> Result<(), TensorError> {
        let format = |source| TensorError::Format { path: path.to_owned(), source };
        let views = tensors
            .iter()
            .map(|(name, Self { layout, bytes }, order)| {
                let shape = order.turn(layout.shape.map(|size| size as usize));
                let dimensions = if shape[3] == 1 { &shape[..3] } else { &shape[..] };
                let view = TensorView::new(layout.element.in_files(), dimensions.to_vec(), bytes);
                Ok((*name, view.map_err(format)?))
            })
            .collect::<Result<Vec<_>, TensorError>>()?;
        Ok(file::write(path, &safetensors::serialize(views, None).map_err(format)?)?)
    }

    /// Its values as words of 16 bits.
    pub fn words(&self) -> Vec<u16> {
        self.bytes.chunks_exact(2).map(|word| u16::from_ne_bytes([word[0], word[1]])).collect()
    }

    /// The same without gaps, in the order of its shape.
    pub fn contiguous(&self) -> Self {
        let Layout { shape, element, .. } = self.layout;
        let row = shape[3] as usize * element.bytes();
        let rows = self.layout.rows().flat_map(|offset| &self.bytes[offset * element.bytes()..][..row]);
        Self { bytes: rows.copied().collect(), layout: Layout::bshd(shape, element) }
    }
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype as FileDtype;

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
        let stored = Stored { layout, bytes: bytemuck::cast_slice(&memory).to_vec() }.contiguous();
        Stored::write(&path, &[("x", &stored, Order::Bshd)]).unwrap();

        let read = Stored::read(&path, Name::Exactly("x"), Order::Bshd).unwrap();
        assert_eq!(read, stored);
        assert_eq!(read.layout, Layout::bshd(shape, Element::F16));
        let at = |b: i64, s: i64, h: i64, d: i64| (b * 30 + s * 5 + h * 15 + d) as u16;
        let mut expected = Vec::new();
        for (b, s, h, d) in (0..48).map(|i| (i / 24, i / 8 % 3, i / 4 % 2, i % 4)) {
            expected.extend(at(b, s, h, d).to_le_bytes());
        }
        assert_eq!(read.bytes, expected);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn heads_may_come_before_positions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors.safetensors");
        let bytes: Vec<u8> = (0..2 * 3 * 5 * 8 * 2).map(|i| i as u8).collect();
        let view = TensorView::new(FileDtype::BF16, vec![2, 3, 5, 8], &bytes).unwrap();
        fs::write(&path, safetensors::serialize([("k", view)], None).unwrap()).unwrap();
        let read = Stored::read(&path, Name::OrTheOnly("q"), Order::Bhsd).unwrap();
        assert_eq!((read.layout.shape, read.layout.strides), ([2, 5, 3, 8], Strides::bhsd(5, 3, 8)));
        let again = folder.path().join("again.safetensors");
        Stored::write(&again, &[("k", &read, Order::Bhsd)]).unwrap();
        assert_eq!(fs::read(&again).unwrap(), fs::read(&path).unwrap());
    }

    #[test]
    fn what_a_file_lacks_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors.safetensors");
        let stored = Stored { layout: Layout::bshd([1, 1, 1, 2], Element::F32), bytes: vec![0; 8] };
        Stored::write(&path, &[("k", &stored, Order::Bshd), ("v", &stored, Order::Bshd)]).unwrap();
        let read = |name| Stored::read(&path, name, Order::Bshd);
        for name in [Name::Exactly("q"), Name::OrTheOnly("q")] {
            let missing = read(name).unwrap_err().to_string();
            assert!(missing.ends_with("has no tensor q; it has k, v"), "{missing}");
        }
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..20]).unwrap();
        assert!(matches!(read(Name::Exactly("k")), Err(TensorError::Format { .. })));
        let view = TensorView::new(FileDtype::I64, vec![2], &[0; 16]).unwrap();
        fs::write(&path, safetensors::serialize([("i", view)], None).unwrap()).unwrap();
        assert!(matches!(read(Name::Exactly("i")), Err(TensorError::Unsupported { .. })));
    }
}

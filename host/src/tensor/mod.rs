//! Tensors on a GPU, and in safetensors files.

mod file;
mod layout;

use std::path::{Path, PathBuf};

use bytemuck::{AnyBitPattern, NoUninit};
use safetensors::SafeTensorError;

pub use self::file::{Array, Name, Order, Stored};
pub use self::layout::{Element, Layout};
use crate::driver::{Buffer, DriverError, Gpu};
use crate::record::file::FileError;

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
    #[error(transparent)]
    File(#[from] FileError),
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

    /// Allocates a copy of a tensor in host memory.
    pub fn of_stored(gpu: &Gpu, Stored { layout, bytes }: &Stored) -> Result<Self, TensorError> {
        let expected = layout.extent()?;
        if bytes.len() != expected * layout.element.bytes() {
            return Err(TensorError::Values { expected, element: layout.element, count: bytes.len(), size: 1 });
        }
        Ok(Self { layout: *layout, buffer: Buffer::of(gpu, bytes)? })
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
        Self::of_stored(gpu, &Stored::read(path, Name::Exactly(name), Order::Bshd)?)
    }

    /// Writes tensors, contiguous, to a safetensors file; waits for earlier work of the GPU.
    pub fn write(path: &Path, tensors: &[(&str, &Self)]) -> Result<(), TensorError> {
        let stored = tensors
            .iter()
            .map(|(name, tensor)| Ok((*name, tensor.stored()?.contiguous())))
            .collect::<Result<Vec<_>, TensorError>>()?;
        let stored: Vec<_> = stored.iter().map(|(name, stored)| (*name, stored, Order::Bshd)).collect();
        Stored::write(path, &stored)
    }

    /// A copy in host memory; waits for earlier work of the GPU.
    pub fn stored(&self) -> Result<Stored, TensorError> {
        let bytes = self.layout.extent()? * self.layout.element.bytes();
        Ok(Stored { layout: self.layout, bytes: self.buffer.download(0, bytes)? })
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

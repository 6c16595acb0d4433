//! Memory of a GPU.

use std::mem::ManuallyDrop;

use bytemuck::{AnyBitPattern, NoUninit};
use cust::memory::DeviceBuffer;

use super::error::Named;
use super::raw::call;
use super::{DriverError, Gpu, Stream};

/// Bytes on a GPU, at an address that is a multiple of 256. Freed when dropped.
#[derive(Debug)]
pub struct Buffer {
    /// Freed while the context is current.
    memory: ManuallyDrop<DeviceBuffer<u8>>,
    gpu: Gpu,
}

impl Buffer {
    /// Allocates at least one byte; what it holds is not defined.
    pub fn new(gpu: &Gpu, bytes: usize) -> Result<Self, DriverError> {
        let _current = gpu.bind()?;
        // SAFETY: bytes have no invalid values, and they are read by copies only.
        let memory = unsafe { DeviceBuffer::uninitialized(bytes.max(1)) }.named("cuMemAlloc")?;
        Ok(Self { memory: ManuallyDrop::new(memory), gpu: gpu.clone() })
    }

    /// Allocates a copy of `data`.
    pub fn of<T: NoUninit>(gpu: &Gpu, data: &[T]) -> Result<Self, DriverError> {
        let buffer = Self::new(gpu, size_of_val(data))?;
        buffer.upload(0, data)?;
        Ok(buffer)
    }

    /// Its device address.
    pub fn address(&self) -> u64 {
        self.memory.as_device_ptr().as_raw()
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// The GPU it is on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Copies `data` to `offset` bytes from the start; waits for earlier work of the context.
    pub fn upload<T: NoUninit>(&self, offset: usize, data: &[T]) -> Result<(), DriverError> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        self.check_range(offset, bytes.len())?;
        let _current = self.gpu.bind()?;
        // SAFETY: both ranges are live and as long as the copy.
        unsafe { call!(cuMemcpyHtoD_v2(self.address() + offset as u64, bytes.as_ptr().cast(), bytes.len())) }
    }

    /// Copies `count` values from `offset` bytes from the start; waits for earlier work of the context.
    pub fn download<T: AnyBitPattern + NoUninit>(&self, offset: usize, count: usize) -> Result<Vec<T>, DriverError> {
        self.check_range(offset, count.saturating_mul(size_of::<T>()))?;
        let _current = self.gpu.bind()?;
        let mut data = vec![T::zeroed(); count];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut data);
        let length = bytes.len();
        // SAFETY: both ranges are live and as long as the copy.
        unsafe { call!(cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), self.address() + offset as u64, length)) }?;
        Ok(data)
    }

    /// Queues setting every byte to `value`.
    pub fn fill(&self, stream: &Stream, value: u8) -> Result<(), DriverError> {
        let _current = self.gpu.bind()?;
        // SAFETY: the whole buffer is live; freeing it waits for the work queued before.
        unsafe { call!(cuMemsetD8Async(self.address(), value, self.bytes(), stream.raw())) }
    }

    fn check_range(&self, offset: usize, bytes: usize) -> Result<(), DriverError> {
        let allowed = self.bytes().saturating_sub(offset);
        if bytes > allowed { Err(DriverError::CopySize { bytes, allowed }) } else { Ok(()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Freeing needs a context; if binding it fails there is nothing left to free.
        let _current = self.gpu.bind();
        // SAFETY: nothing uses the memory afterwards.
        unsafe { ManuallyDrop::drop(&mut self.memory) };
    }
}

//! Queues of work, and marks in them that hold a time.

use std::ffi::c_void;
use std::ptr;

use cust::stream::StreamFlags;
use cust::sys::{CUevent, CUstream, cudaError_enum};

use super::error::Named;
use super::raw::call;
use super::{DriverError, Gpu};

/// A queue of work of one GPU.
#[derive(Debug)]
pub struct Stream {
    // Before `gpu`: destroyed while the context is alive.
    queue: Queue,
    gpu: Gpu,
}

#[derive(Debug)]
enum Queue {
    Owned(cust::stream::Stream),
    Borrowed(CUstream),
}

impl Stream {
    /// A new queue.
    pub fn new(gpu: &Gpu) -> Result<Self, DriverError> {
        gpu.bind()?;
        let queue = cust::stream::Stream::new(StreamFlags::DEFAULT, None).named("cuStreamCreateWithPriority")?;
        Ok(Self { queue: Queue::Owned(queue), gpu: gpu.clone() })
    }

    /// A queue that somebody else owns: a `CUstream` or `cudaStream_t`, null for the default one.
    ///
    /// # Safety
    ///
    /// It must belong to the primary context of `gpu` and outlive the value.
    pub unsafe fn borrow(gpu: &Gpu, stream: *mut c_void) -> Self {
        Self { queue: Queue::Borrowed(stream.cast()), gpu: gpu.clone() }
    }

    /// The GPU it belongs to.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Waits until all its work is done; reports what a kernel did wrong.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        self.gpu.bind()?;
        // SAFETY: the stream is live.
        unsafe { call!(cuStreamSynchronize(self.raw())) }
    }

    /// Queues a mark.
    pub fn record(&self, event: &Event) -> Result<(), DriverError> {
        self.gpu.bind()?;
        // SAFETY: both are live.
        unsafe { call!(cuEventRecord(event.raw, self.raw())) }
    }

    pub(super) fn raw(&self) -> CUstream {
        match &self.queue {
            Queue::Owned(stream) => stream.as_inner(),
            Queue::Borrowed(stream) => *stream,
        }
    }
}

/// A mark in a queue; it holds the time when the GPU came by.
#[derive(Debug)]
pub struct Event {
    raw: CUevent,
    gpu: Gpu,
}

impl Event {
    /// A mark that is in no queue yet.
    pub fn new(gpu: &Gpu) -> Result<Self, DriverError> {
        gpu.bind()?;
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` outlives the call.
        unsafe { call!(cuEventCreate(&mut raw, 0)) }?;
        Ok(Self { raw, gpu: gpu.clone() })
    }

    /// Waits until the GPU has come by.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        self.gpu.bind()?;
        // SAFETY: the event is live.
        unsafe { call!(cuEventSynchronize(self.raw)) }
    }

    /// Whether the GPU has come by.
    pub fn passed(&self) -> Result<bool, DriverError> {
        self.gpu.bind()?;
        // SAFETY: the event is live.
        match unsafe { call!(cuEventQuery(self.raw)) } {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some(cudaError_enum::CUDA_ERROR_NOT_READY as u32) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Microseconds from `start` to this mark; both must have been passed. The clock ticks about every half microsecond.
    pub fn microseconds_since(&self, start: &Self) -> Result<f64, DriverError> {
        self.gpu.bind()?;
        let mut milliseconds = 0.0;
        // SAFETY: both events are live, and `milliseconds` outlives the call.
        unsafe { call!(cuEventElapsedTime(&mut milliseconds, start.raw, self.raw)) }?;
        Ok(f64::from(milliseconds) * 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // Nothing can be done about a failure here: the context is then lost with all it held.
        _ = self.gpu.bind();
        // SAFETY: the event is live, and nothing uses it afterwards.
        _ = unsafe { call!(cuEventDestroy_v2(self.raw)) };
    }
}

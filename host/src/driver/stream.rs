//! Queues of work, and marks in them that hold a time.

use std::ffi::c_void;
use std::{mem, ptr};

use cust::stream::StreamFlags;
use cust::sys::{CUDA_MEMCPY3D, CUevent, CUmemorytype, CUstream, CUstream_flags, cudaError_enum};

use super::error::Named;
use super::raw::call;
use super::{DriverError, Gpu};

/// A queue of work of one GPU.
#[derive(Debug)]
pub struct Stream {
    queue: Queue,
    gpu: Gpu,
}

#[derive(Debug)]
enum Queue {
    Owned(cust::stream::Stream),
    /// Owned too.
    Apart(CUstream),
    Borrowed(CUstream),
}

impl Stream {
    /// A new queue.
    pub fn new(gpu: &Gpu) -> Result<Self, DriverError> {
        let _current = gpu.bind()?;
        let queue = cust::stream::Stream::new(StreamFlags::DEFAULT, None).named("cuStreamCreateWithPriority")?;
        Ok(Self { queue: Queue::Owned(queue), gpu: gpu.clone() })
    }

    /// A new queue that copies do not wait for. cust 0.3 makes none, whatever its flags say.
    pub(super) fn apart(gpu: &Gpu) -> Result<Self, DriverError> {
        let _current = gpu.bind()?;
        let mut stream = ptr::null_mut();
        // SAFETY: `stream` outlives the call.
        unsafe { call!(cuStreamCreateWithPriority(&mut stream, CUstream_flags::CU_STREAM_NON_BLOCKING as u32, 0)) }?;
        Ok(Self { queue: Queue::Apart(stream), gpu: gpu.clone() })
    }

    /// A queue that somebody else owns: a `CUstream` or `cudaStream_t`, null for the default one.
    ///
    /// # Errors
    ///
    /// It belongs to another context than the primary one of `gpu`: to another GPU, or to a context of its owner's own.
    ///
    /// # Safety
    ///
    /// It must be live, and outlive the value.
    pub unsafe fn borrow(gpu: &Gpu, stream: *mut c_void) -> Result<Self, DriverError> {
        let stream: CUstream = stream.cast();
        if !stream.is_null() {
            let _current = gpu.bind()?;
            let mut context = ptr::null_mut();
            // SAFETY: the caller vouches for the stream; `context` outlives the call.
            unsafe { call!(cuStreamGetCtx(stream, &mut context)) }?;
            if !gpu.owns(context) {
                return Err(DriverError::ForeignStream { gpu: gpu.uuid().to_owned() });
            }
        }
        Ok(Self { queue: Queue::Borrowed(stream), gpu: gpu.clone() })
    }

    /// The GPU it belongs to.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The driver's handle, a `CUstream`, for calls of other libraries; it is live as long as the value.
    pub fn handle(&self) -> *mut c_void {
        self.raw().cast()
    }

    /// Waits until all its work is done; reports what a kernel did wrong.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        let _current = self.gpu.bind()?;
        // SAFETY: the stream is live.
        unsafe { call!(cuStreamSynchronize(self.raw())) }
    }

    /// Queues a mark.
    pub fn record(&self, event: &Event) -> Result<(), DriverError> {
        let _current = self.gpu.bind()?;
        // SAFETY: both are live.
        unsafe { call!(cuEventRecord(event.raw, self.raw())) }
    }

    /// Queues copying `count` words of 32 bits that follow each other at `from`, so that they are `step` words apart from `to` on.
    ///
    /// # Safety
    ///
    /// All places are on the stream's GPU and live until the stream has come by; none is both read and written.
    pub(crate) unsafe fn spread(&self, from: u64, to: u64, count: usize, step: usize) -> Result<(), DriverError> {
        const WORD: usize = size_of::<u32>();
        // Rows of one word. As a copy in two dimensions it might fail, says the driver's manual, for pitches of one's own.
        let copy = CUDA_MEMCPY3D {
            srcXInBytes: 0,
            srcY: 0,
            srcZ: 0,
            srcLOD: 0,
            srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: ptr::null(),
            srcDevice: from,
            srcArray: ptr::null_mut(),
            reserved0: ptr::null_mut(),
            srcPitch: WORD,
            srcHeight: count,
            dstXInBytes: 0,
            dstY: 0,
            dstZ: 0,
            dstLOD: 0,
            dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: ptr::null_mut(),
            dstDevice: to,
            dstArray: ptr::null_mut(),
            reserved1: ptr::null_mut(),
            dstPitch: step * WORD,
            dstHeight: count,
            WidthInBytes: WORD,
            Height: count,
            Depth: 1,
        };
        let _current = self.gpu.bind()?;
        // SAFETY: the caller vouches for the memory; the description outlives the call.
        unsafe { call!(cuMemcpy3DAsync_v2(&copy, self.raw())) }
    }

    pub(super) fn raw(&self) -> CUstream {
        match &self.queue {
            Queue::Owned(stream) => stream.as_inner(),
            Queue::Apart(stream) | Queue::Borrowed(stream) => *stream,
        }
    }
}

// SAFETY: the driver's handles may be used from any thread; every use makes the context current first.
unsafe impl Send for Stream {}
// SAFETY: as above; the driver locks what it must.
unsafe impl Sync for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        let _current = self.gpu.bind();
        // Destroyed here, while the context is current.
        if let Queue::Apart(stream) = mem::replace(&mut self.queue, Queue::Borrowed(ptr::null_mut())) {
            // SAFETY: it is live, and nothing uses it afterwards.
            _ = unsafe { call!(cuStreamDestroy_v2(stream)) };
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
        let _current = gpu.bind()?;
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` outlives the call.
        unsafe { call!(cuEventCreate(&mut raw, 0)) }?;
        Ok(Self { raw, gpu: gpu.clone() })
    }

    /// Waits until the GPU has come by.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        let _current = self.gpu.bind()?;
        // SAFETY: the event is live.
        unsafe { call!(cuEventSynchronize(self.raw)) }
    }

    /// Whether the GPU has come by.
    pub fn passed(&self) -> Result<bool, DriverError> {
        let _current = self.gpu.bind()?;
        // SAFETY: the event is live.
        match unsafe { call!(cuEventQuery(self.raw)) } {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some(cudaError_enum::CUDA_ERROR_NOT_READY as u32) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Microseconds from `start` to this mark; both must have been passed. The clock ticks about every half microsecond.
    pub fn microseconds_since(&self, start: &Self) -> Result<f64, DriverError> {
        let _current = self.gpu.bind()?;
        let mut milliseconds = 0.0;
        // SAFETY: both events are live, and `milliseconds` outlives the call.
        unsafe { call!(cuEventElapsedTime(&mut milliseconds, start.raw, self.raw)) }?;
        Ok(f64::from(milliseconds) * 1e3)
    }
}

// SAFETY: the driver's handles may be used from any thread; every use makes the context current first.
unsafe impl Send for Event {}
// SAFETY: as above; the driver locks what it must.
unsafe impl Sync for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        // Nothing can be done about a failure here: the context is then lost with all it held.
        let _current = self.gpu.bind();
        // SAFETY: the event is live, and nothing uses it afterwards.
        _ = unsafe { call!(cuEventDestroy_v2(self.raw)) };
    }
}

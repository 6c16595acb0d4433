//! Launches recorded once and replayed without the host in between.

use std::ptr;

use cust::sys::{CUgraphExec, CUstreamCaptureMode_enum as Mode};

use super::raw::call;
use super::{DriverError, Gpu, Stream};

/// Recorded work, ready to be queued as one piece.
#[derive(Debug)]
pub struct Graph {
    executable: CUgraphExec,
    gpu: Gpu,
}

impl Graph {
    /// Records what `work` queues in the stream it is given; nothing of it runs yet. `work` must not wait, copy or allocate. Other
    /// threads may, but must not wait for the whole GPU: the driver then gives the recording up.
    pub fn capture<E: From<DriverError>>(gpu: &Gpu, work: impl FnOnce(&Stream) -> Result<(), E>) -> Result<Self, E> {
        // Copies wait for all streams but those that are apart; for one that is recorded they would fail, and the recording too.
        let stream = &Stream::apart(gpu)?;
        let _current = gpu.bind()?;
        // SAFETY: the stream is live.
        unsafe { call!(cuStreamBeginCapture_v2(stream.raw(), Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL as u32)) }?;
        let worked = work(stream);
        let mut graph = ptr::null_mut();
        // SAFETY: a capture is under way. It must end even if `work` failed, or the stream could not be used again.
        let ended = unsafe { call!(cuStreamEndCapture(stream.raw(), &mut graph)) };
        let mut executable = ptr::null_mut();
        let built = worked.and_then(|()| {
            ended?;
            // SAFETY: the graph is live; no log is asked for.
            unsafe {
                call!(cuGraphInstantiate_v2(&mut executable, graph, ptr::null_mut(), ptr::null_mut(), 0))?;
            }
            Ok(Self { executable, gpu: gpu.clone() })
        });
        if !graph.is_null() {
            // SAFETY: the executable form does not need the graph it was made from.
            _ = unsafe { call!(cuGraphDestroy(graph)) };
        }
        built
    }

    /// Copies it to the GPU, so that the first launch does not have to.
    pub fn upload(&self, stream: &Stream) -> Result<(), DriverError> {
        let _current = self.gpu.bind()?;
        // SAFETY: both are live.
        unsafe { call!(cuGraphUpload(self.executable, stream.raw())) }
    }

    /// Queues all of it.
    ///
    /// # Safety
    ///
    /// Whatever the recorded work reads and writes must be live until the stream has been waited for.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), DriverError> {
        let _current = self.gpu.bind()?;
        // SAFETY: both are live; the caller vouches for what the work uses.
        unsafe { call!(cuGraphLaunch(self.executable, stream.raw())) }
    }
}

// SAFETY: the driver's handles may be used from any thread; every use makes the context current first. A graph is not `Sync`:
// the driver leaves it to the caller that only one thread at a time launches it.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        let _current = self.gpu.bind();
        // SAFETY: it is live, and nothing uses it afterwards.
        _ = unsafe { call!(cuGraphExecDestroy(self.executable)) };
    }
}

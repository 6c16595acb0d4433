//! Calls that cust lacks, and calls whose results must be read as numbers.
//!
//! cust_raw's result type is a Rust enum of the codes that CUDA 11 had. A newer driver returns others, which such
//! an enum cannot hold; so whatever can report a kernel's fault is declared here with a plain number. driver-shim
//! defines the symbols.

#![allow(non_snake_case, reason = "the driver's names")]

use std::ffi::{c_char, c_int, c_uint, c_void};

use cust::sys::{
    CUDA_MEMCPY3D, CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphExec, CUgraphNode, CUmodule,
    CUstream,
};

/// A `CUresult`.
pub(super) type Code = u32;

/// `CUlaunchConfig`.
#[repr(C)]
pub(super) struct LaunchConfig {
    pub(super) grid: [c_uint; 3],
    pub(super) block: [c_uint; 3],
    pub(super) shared_bytes: c_uint,
    pub(super) stream: CUstream,
    pub(super) attributes: *const LaunchAttribute,
    pub(super) attribute_count: c_uint,
}

/// `CUlaunchAttribute`: which attribute, then its value in a union of 64 bytes.
#[repr(C)]
pub(super) struct LaunchAttribute {
    id: c_uint,
    pad: c_uint,
    value: [u64; 8],
}

impl LaunchAttribute {
    /// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`: the grid may start before the one before it is over.
    pub(super) const EARLY: Self = Self { id: 6, pad: 0, value: [1, 0, 0, 0, 0, 0, 0, 0] };

    /// `CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION`: blocks of a cluster, in one dimension.
    pub(super) fn clusters(blocks: u32) -> Self {
        // A `dim3`.
        Self { id: 4, pad: 0, value: [1 << 32 | u64::from(blocks), 1, 0, 0, 0, 0, 0, 0] }
    }

    /// `CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW`: of the lines in a range, L2 keeps a share and lets the others go first.
    pub(super) fn l2_window(start: u64, bytes: u64, share: f32) -> Self {
        const STREAMING: u64 = 1;
        const PERSISTING: u64 = 2;
        // A `CUaccessPolicyWindow`: base_ptr, num_bytes, hitRatio, hitProp, missProp.
        let share = u64::from(share.to_bits());
        Self { id: 1, pad: 0, value: [start, bytes, PERSISTING << 32 | share, STREAMING, 0, 0, 0, 0] }
    }
}

/// `CU_LIMIT_PERSISTING_L2_CACHE_SIZE`.
pub(super) const PERSISTING_L2_BYTES: c_uint = 6;

unsafe extern "C" {
    pub(super) fn cuGetErrorName(error: Code, name: *mut *const c_char) -> Code;
    pub(super) fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: CUdevice) -> Code;
    pub(super) fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: CUdevice) -> Code;
    pub(super) fn cuCtxGetCurrent(context: *mut CUcontext) -> Code;
    pub(super) fn cuCtxSetCurrent(context: CUcontext) -> Code;
    pub(super) fn cuCtxResetPersistingL2Cache() -> Code;
    pub(super) fn cuCtxSetLimit(limit: c_uint, value: usize) -> Code;
    pub(super) fn cuCtxGetLimit(value: *mut usize, limit: c_uint) -> Code;
    pub(super) fn cuModuleLoadDataEx(
        module: *mut CUmodule,
        image: *const c_void,
        count: c_uint,
        options: *mut c_uint,
        values: *mut *mut c_void,
    ) -> Code;
    pub(super) fn cuModuleUnload(module: CUmodule) -> Code;
    pub(super) fn cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char) -> Code;
    pub(super) fn cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: CUfunction) -> Code;
    pub(super) fn cuFuncSetAttribute(function: CUfunction, attribute: c_uint, value: c_int) -> Code;
    pub(super) fn cuLaunchKernelEx(
        config: *const LaunchConfig,
        function: CUfunction,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> Code;
    pub(super) fn cuTensorMapEncodeTiled(
        map: *mut c_void,
        data_type: c_uint,
        rank: c_uint,
        address: *mut c_void,
        extents: *const u64,
        strides: *const u64,
        boxes: *const c_uint,
        element_strides: *const c_uint,
        interleave: c_uint,
        swizzle: c_uint,
        l2_promotion: c_uint,
        outside: c_uint,
    ) -> Code;
    pub(super) fn cuEventCreate(event: *mut CUevent, flags: c_uint) -> Code;
    pub(super) fn cuEventRecord(event: CUevent, stream: CUstream) -> Code;
    pub(super) fn cuEventSynchronize(event: CUevent) -> Code;
    pub(super) fn cuEventQuery(event: CUevent) -> Code;
    pub(super) fn cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent) -> Code;
    pub(super) fn cuEventDestroy_v2(event: CUevent) -> Code;
    pub(super) fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Code;
    pub(super) fn cuStreamCreateWithPriority(stream: *mut CUstream, flags: c_uint, priority: c_int) -> Code;
    pub(super) fn cuStreamDestroy_v2(stream: CUstream) -> Code;
    pub(super) fn cuStreamGetCtx(stream: CUstream, context: *mut CUcontext) -> Code;
    pub(super) fn cuStreamSynchronize(stream: CUstream) -> Code;
    pub(super) fn cuStreamBeginCapture_v2(stream: CUstream, mode: c_uint) -> Code;
    pub(super) fn cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph) -> Code;
    pub(super) fn cuGraphInstantiate_v2(
        executable: *mut CUgraphExec,
        graph: CUgraph,
        error_node: *mut CUgraphNode,
        log: *mut c_char,
        log_bytes: usize,
    ) -> Code;
    pub(super) fn cuGraphDestroy(graph: CUgraph) -> Code;
    pub(super) fn cuGraphUpload(executable: CUgraphExec, stream: CUstream) -> Code;
    pub(super) fn cuGraphLaunch(executable: CUgraphExec, stream: CUstream) -> Code;
    pub(super) fn cuGraphExecDestroy(executable: CUgraphExec) -> Code;
    pub(super) fn cuMemcpyHtoD_v2(to: CUdeviceptr, from: *const c_void, bytes: usize) -> Code;
    pub(super) fn cuMemcpyDtoH_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize) -> Code;
    pub(super) fn cuMemcpy3DAsync_v2(copy: *const CUDA_MEMCPY3D, stream: CUstream) -> Code;
    pub(super) fn cuMemsetD8Async(to: CUdeviceptr, value: u8, bytes: usize, stream: CUstream) -> Code;
}

/// Makes a raw call and names it in the error.
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => {
        $crate::driver::error::check(stringify!($name), $crate::driver::raw::$name($($argument),*))
    };
}
pub(super) use call;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_laid_out_as_the_driver_reads_them() {
        assert_eq!(size_of::<LaunchAttribute>(), 72);
        let window = LaunchAttribute::l2_window(0x7f00_0000_1000, 1 << 20, 0.5);
        // SAFETY: the value is plain data, as large as what is read.
        let (ratio, hit) = unsafe {
            let at = window.value.as_ptr().cast::<u8>();
            (at.add(16).cast::<f32>().read(), at.add(20).cast::<u32>().read())
        };
        assert_eq!((window.id, window.value[0], window.value[1]), (1, 0x7f00_0000_1000, 1 << 20));
        assert_eq!((ratio, hit, window.value[3]), (0.5, 2, 1));
    }
}

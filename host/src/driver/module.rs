//! Compiled kernels: PTX in, functions out.

use std::ffi::{CString, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use cust::sys::{CUfunction, CUfunction_attribute_enum as Attribute, CUjit_option_enum as Jit, CUmodule};

use super::error::name;
use super::raw::{self, LaunchAttribute, LaunchConfig, call};
use super::{DriverError, Gpu, Stream};

/// Room for what the driver's compiler has to say.
const LOG_BYTES: usize = 8192;

/// PTX compiled by the driver for one GPU. Clones are the same module.
#[derive(Clone, Debug)]
pub struct Module(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    raw: CUmodule,
    gpu: Gpu,
}

// SAFETY: the driver's handles may be used from any thread; every use makes the context current first.
unsafe impl Send for Inner {}
// SAFETY: as above; the driver locks what it must.
unsafe impl Sync for Inner {}

impl Module {
    /// Compiles PTX. The driver keeps a cache of its own, so the second time is quick.
    pub fn load(gpu: &Gpu, ptx: &str) -> Result<Self, DriverError> {
        let text = CString::new(ptx).map_err(|_| DriverError::Nul { what: "the PTX" })?;
        let _current = gpu.bind()?;
        let mut log = [0u8; LOG_BYTES];
        let mut options = [Jit::CU_JIT_ERROR_LOG_BUFFER as u32, Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES as u32];
        // The driver takes numbers in the place of pointers.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(LOG_BYTES)];
        let mut raw = ptr::null_mut();
        // SAFETY: the text ends in NUL, and the options' arrays and the log outlive the call.
        let code = unsafe {
            raw::cuModuleLoadDataEx(
                &mut raw,
                text.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        match code {
            0 => Ok(Self(Arc::new(Inner { raw, gpu: gpu.clone() }))),
            code => Err(DriverError::Ptx { code, name: name(code), log: first_complaint(&log) }),
        }
    }

    /// The GPU it was compiled for.
    pub fn gpu(&self) -> &Gpu {
        &self.0.gpu
    }

    /// The kernel of this name.
    pub fn function(&self, name: &str) -> Result<Function, DriverError> {
        let name = CString::new(name).map_err(|_| DriverError::Nul { what: "the kernel's name" })?;
        let _current = self.0.gpu.bind()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the module is live and the name ends in NUL.
        unsafe { call!(cuModuleGetFunction(&mut raw, self.0.raw, name.as_ptr())) }?;
        Ok(Function { raw, module: self.clone() })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _current = self.gpu.bind();
        // SAFETY: the module is live, and its functions, which hold it, are gone.
        _ = unsafe { call!(cuModuleUnload(self.raw)) };
    }
}

/// The first line that names an error; the log may have many, and warnings before it.
fn first_complaint(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default());
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.clone().next();
    lines.find(|line| line.contains("error")).or(first).unwrap_or("it does not say why").to_owned()
}

/// How many blocks and threads, in one dimension each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Blocks.
    pub blocks: u32,
    /// Blocks of a cluster; 1 for none, and for kernels that say it themselves.
    pub cluster: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// Whether blocks may start before the kernel before them in the stream is over. The kernel must wait itself.
    pub early: bool,
    /// What L2 is asked to keep.
    pub l2_window: Option<L2Window>,
}

/// A range of memory of which L2 keeps lines, in what [`Gpu::set_aside_l2`] set aside for that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct L2Window {
    /// Its address.
    pub start: u64,
    /// Its size; at most [`L2Limits::window_bytes`](super::L2Limits::window_bytes).
    pub bytes: u64,
    /// The share of its lines that are kept, 0 to 1; the others go before lines of other memory.
    pub share: f32,
}

/// One argument of a launch, copied when the launch is queued.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Argument<'a>(*const c_void, PhantomData<&'a c_void>);

impl<'a> Argument<'a> {
    /// The value itself is passed, so it must have the layout that the kernel expects.
    pub fn by_value<T: Copy>(value: &'a T) -> Self {
        Self(ptr::from_ref(value).cast(), PhantomData)
    }
}

/// A kernel of a module, which it keeps loaded.
#[derive(Clone, Debug)]
pub struct Function {
    raw: CUfunction,
    module: Module,
}

// SAFETY: the driver's handles may be used from any thread; every use makes the context current first.
unsafe impl Send for Function {}
// SAFETY: as above; the driver locks what it must.
unsafe impl Sync for Function {}

impl Function {
    /// Lets its blocks ask for so much dynamic shared memory; above 48 KiB a kernel needs this before its first launch.
    pub fn allow_shared(&self, bytes: u32) -> Result<(), DriverError> {
        let _current = self.gpu().bind()?;
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as u32;
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        // SAFETY: the function is live.
        unsafe { call!(cuFuncSetAttribute(self.raw, attribute, bytes)) }
    }

    /// Bytes of local memory of one thread; above zero, registers were spilled.
    pub fn local_bytes(&self) -> Result<u32, DriverError> {
        let _current = self.gpu().bind()?;
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES as u32;
        let mut value: c_int = 0;
        // SAFETY: the function is live and `value` outlives the call.
        unsafe { call!(cuFuncGetAttribute(&mut value, attribute, self.raw)) }?;
        Ok(value.max(0).unsigned_abs())
    }

    /// Queues the kernel with arguments that it takes by value.
    ///
    /// # Safety
    ///
    /// The arguments must be of the kernel's types, in number and order. What their addresses point at must be live and
    /// large enough until the stream has been waited for.
    pub unsafe fn launch(&self, stream: &Stream, grid: Grid, arguments: &[Argument<'_>]) -> Result<(), DriverError> {
        let _current = self.gpu().bind()?;
        let clusters = (grid.cluster > 1).then(|| LaunchAttribute::clusters(grid.cluster));
        let early = grid.early.then_some(LaunchAttribute::EARLY);
        let window = grid.l2_window.map(|window| LaunchAttribute::l2_window(window.start, window.bytes, window.share));
        // Room for all: a launch allocates nothing.
        let mut attributes = [LaunchAttribute::EARLY; 3];
        let mut count = 0;
        for attribute in clusters.into_iter().chain(early).chain(window) {
            attributes[count] = attribute;
            count += 1;
        }
        let config = LaunchConfig {
            grid: [grid.blocks, 1, 1],
            block: [grid.threads, 1, 1],
            shared_bytes: grid.shared_bytes,
            stream: stream.raw(),
            attributes: attributes.as_ptr(),
            attribute_count: count as u32,
        };
        let arguments = arguments.as_ptr().cast_mut().cast();
        // SAFETY: the driver reads the lists and copies the arguments before it returns; the caller vouches for the rest.
        unsafe { call!(cuLaunchKernelEx(&config, self.raw, arguments, ptr::null_mut())) }
    }

    /// The GPU it was compiled for.
    pub fn gpu(&self) -> &Gpu {
        self.module.gpu()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_is_one_line() {
        let log = b"ptxas info : x\nptxas application ptx input, line 9; error   : Unknown opcode\nptxas fatal\n\0junk";
        assert_eq!(first_complaint(log), "ptxas application ptx input, line 9; error   : Unknown opcode");
        assert_eq!(first_complaint(b"\nfatal: no\n\0"), "fatal: no");
        assert_eq!(first_complaint(&[0; 4]), "it does not say why");
    }
}

//! What can go wrong between us and the driver.

use std::ffi::CStr;
use std::ptr;

use cust::error::{CudaError, CudaResult};
use driver_shim::NoDriver;

use super::raw;

/// A call of the driver that failed, or the lack of a driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// There is no driver.
    #[error(transparent)]
    NoDriver(#[from] NoDriver),
    /// There is no such GPU.
    #[error("no GPU number {ordinal}: the driver sees {count}")]
    NoGpu {
        /// The number asked for.
        ordinal: u32,
        /// How many there are.
        count: u32,
    },
    /// No kernel is compiled for so old a GPU.
    #[error("{name} has compute capability {major}.{minor}; at least 8.0 is needed")]
    Capability {
        /// The GPU's name.
        name: String,
        /// Major part.
        major: u32,
        /// Minor part.
        minor: u32,
    },
    /// The driver's compiler refuses the PTX.
    #[error("the driver refuses the PTX, {name} ({code}): {log}")]
    Ptx {
        /// The driver's code.
        code: u32,
        /// Its name.
        name: String,
        /// The compiler's first complaint.
        log: String,
    },
    /// A stream of another context.
    #[error("the stream belongs to another context than the primary one of {gpu}")]
    ForeignStream {
        /// UUID of the GPU.
        gpu: String,
    },
    /// A text holds a NUL and so cannot be handed to the driver.
    #[error("{what} holds a NUL character")]
    Nul {
        /// The text.
        what: &'static str,
    },
    /// A copy of more bytes than the buffer holds.
    #[error("a copy of {bytes} B does not fit a buffer of {allowed} B")]
    CopySize {
        /// Bytes of the copy.
        bytes: usize,
        /// Bytes of the buffer.
        allowed: usize,
    },
    /// Any other call.
    #[error("{call}: {name} ({code})")]
    Call {
        /// The driver's function.
        call: &'static str,
        /// Its result.
        code: u32,
        /// The result's name.
        name: String,
    },
}

impl DriverError {
    /// The driver's code, where a call returned one.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Ptx { code, .. } | Self::Call { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether a kernel broke the context: from now on every call in this process fails.
    pub fn breaks_context(&self) -> bool {
        use cust::sys::cudaError_enum as Code;
        const FAULTS: [Code; 10] = [
            Code::CUDA_ERROR_ECC_UNCORRECTABLE,
            Code::CUDA_ERROR_ILLEGAL_ADDRESS,
            Code::CUDA_ERROR_LAUNCH_TIMEOUT,
            Code::CUDA_ERROR_ASSERT,
            Code::CUDA_ERROR_HARDWARE_STACK_ERROR,
            Code::CUDA_ERROR_ILLEGAL_INSTRUCTION,
            Code::CUDA_ERROR_MISALIGNED_ADDRESS,
            Code::CUDA_ERROR_INVALID_ADDRESS_SPACE,
            Code::CUDA_ERROR_INVALID_PC,
            Code::CUDA_ERROR_LAUNCH_FAILED,
        ];
        self.code().is_some_and(|code| FAULTS.iter().any(|fault| *fault as u32 == code))
    }
}

/// The result of a raw call.
pub(super) fn check(call: &'static str, code: raw::Code) -> Result<(), DriverError> {
    match code {
        0 => Ok(()),
        code => Err(DriverError::Call { call, code, name: name(code) }),
    }
}

/// The result of a call through cust.
pub(super) trait Named<T> {
    /// The same, with the call's name in the error.
    fn named(self, call: &'static str) -> Result<T, DriverError>;
}

impl<T> Named<T> for CudaResult<T> {
    fn named(self, call: &'static str) -> Result<T, DriverError> {
        self.map_err(|error: CudaError| {
            let code = error as u32;
            DriverError::Call { call, code, name: name(code) }
        })
    }
}

/// The driver's name for a code, e.g. `CUDA_ERROR_INVALID_VALUE`.
pub(super) fn name(code: raw::Code) -> String {
    let mut name = ptr::null();
    // SAFETY: the driver writes the address of a static string, or leaves null.
    let known = unsafe { raw::cuGetErrorName(code, &mut name) } == 0 && !name.is_null();
    if known {
        // SAFETY: it is a NUL-terminated string that lives as long as the driver.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    } else {
        "unknown to this driver".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_from_a_refusal() {
        let call = |code| DriverError::Call { call: "cuStreamSynchronize", code, name: name(code) };
        assert!(call(700).breaks_context());
        assert!(call(719).breaks_context());
        assert!(!call(1).breaks_context());
        assert!(!call(701).breaks_context());
        assert_eq!(check("cuInit", 0), Ok(()));
        assert_eq!(check("cuInit", 3).unwrap_err().code(), Some(3));
    }

    #[test]
    fn an_error_is_one_line_that_names_the_call() {
        let line = CudaResult::<()>::Err(CudaError::OutOfMemory).named("cuMemAlloc").unwrap_err().to_string();
        assert!(line.starts_with("cuMemAlloc: ") && line.ends_with("(2)") && !line.contains('\n'), "{line}");
    }
}

//! One GPU and its context.

use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use cust::context::{Context, CurrentContext};
use cust::device::Device;
use cust::sys::{CUcontext, CUdevice_attribute_enum as Attribute};
use spec::{DeviceLimits, Sm};

use super::DriverError;
use super::error::Named;
use super::raw::{PERSISTING_L2_BYTES, call};

/// One GPU with its primary context, which other libraries of the process share. Clones are the same GPU.
#[derive(Clone, Debug)]
pub struct Gpu(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: Context,
    name: String,
    uuid: String,
    rates: Rates,
    limits: DeviceLimits,
    l2: L2Limits,
}

/// How fast a GPU can go at most, as its driver tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Compute capability.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Highest clock of the multiprocessors in Hz.
    pub clock_hz: f64,
    /// Peak of the memory in bytes per second.
    pub memory_bytes_per_s: f64,
}

/// How much of L2 can be kept. All is 0 where nothing can, as in a slice of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L2Limits {
    /// Bytes that can be set aside at most.
    pub set_aside_bytes: u64,
    /// Bytes of a window at most.
    pub window_bytes: u64,
}

impl Gpu {
    /// How many GPUs the driver sees.
    pub fn count() -> Result<u32, DriverError> {
        driver_shim::available()?;
        cust::init(cust::CudaFlags::empty()).named("cuInit")?;
        Device::num_devices().named("cuDeviceGetCount")
    }

    /// Opens GPU number `ordinal`. On a thread that had no context, its own stays current.
    pub fn open(ordinal: u32) -> Result<Self, DriverError> {
        let count = Self::count()?;
        if ordinal >= count {
            return Err(DriverError::NoGpu { ordinal, count });
        }
        let device = Device::get_device(ordinal).named("cuDeviceGet")?;
        let name = device.name().named("cuDeviceGetName")?;
        let rates = rates(device)?;
        let (major, minor) = rates.capability;
        let Some(sm) = Sm::for_capability(major, minor) else {
            return Err(DriverError::Capability { name, major, minor });
        };
        let limits = limits(device, sm)?;
        let l2 = L2Limits {
            set_aside_bytes: attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MAX_PERSISTING_L2_CACHE_SIZE)?.into(),
            window_bytes: attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MAX_ACCESS_POLICY_WINDOW_SIZE)?.into(),
        };
        let uuid = uuid(device)?;
        let before = current()?;
        let context = Context::new(device).named("cuDevicePrimaryCtxRetain")?;
        // Opening made it current.
        drop(Current { before: Some(before).filter(|before| !before.is_null()) });
        Ok(Self(Arc::new(Inner { context, name, uuid, rates, limits, l2 })))
    }

    /// Its name, e.g. `NVIDIA H100 80GB HBM3`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its UUID as NVIDIA's tools print it: `GPU-` and 32 hex digits in five groups.
    pub fn uuid(&self) -> &str {
        &self.0.uuid
    }

    /// What it allows.
    pub fn limits(&self) -> &DeviceLimits {
        &self.0.limits
    }

    /// How fast it can go at most.
    pub fn rates(&self) -> &Rates {
        &self.0.rates
    }

    /// How much of L2 can be kept.
    pub fn l2(&self) -> &L2Limits {
        &self.0.l2
    }

    /// Bytes of its memory that nobody has allocated.
    pub fn free_bytes(&self) -> Result<u64, DriverError> {
        let _current = self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: a context is current, and both outlive the call.
        unsafe { call!(cuMemGetInfo_v2(&mut free, &mut total)) }?;
        Ok(free as u64)
    }

    /// Waits for all work of the context; reports what any kernel did wrong.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        let _current = self.bind()?;
        CurrentContext::synchronize().named("cuCtxSynchronize")
    }

    /// Returns persisting lines of L2 to normal.
    pub fn reset_persisting_l2(&self) -> Result<(), DriverError> {
        let _current = self.bind()?;
        // SAFETY: a context is current.
        unsafe { call!(cuCtxResetPersistingL2Cache()) }
    }

    /// Sets so many bytes of L2 aside for lines that windows keep, for all work of the context; other lines lose them. At
    /// most [`L2Limits::set_aside_bytes`] are.
    pub fn set_aside_l2(&self, bytes: u64) -> Result<(), DriverError> {
        let bytes = bytes.min(self.0.l2.set_aside_bytes);
        if self.0.l2.set_aside_bytes == 0 {
            return Ok(());
        }
        let _current = self.bind()?;
        // SAFETY: a context is current.
        unsafe { call!(cuCtxSetLimit(PERSISTING_L2_BYTES, bytes as usize)) }
    }

    /// Bytes of L2 that are set aside.
    pub fn l2_set_aside(&self) -> Result<u64, DriverError> {
        if self.0.l2.set_aside_bytes == 0 {
            return Ok(0);
        }
        let _current = self.bind()?;
        let mut bytes = 0;
        // SAFETY: a context is current, and `bytes` outlives the call.
        unsafe { call!(cuCtxGetLimit(&mut bytes, PERSISTING_L2_BYTES)) }?;
        Ok(bytes as u64)
    }

    /// Makes the context current on this thread for as long as the result lives.
    pub(super) fn bind(&self) -> Result<Current, DriverError> {
        let before = current()?;
        if before == self.0.context.as_raw() {
            return Ok(Current { before: None });
        }
        CurrentContext::set_current(&self.0.context).named("cuCtxSetCurrent")?;
        Ok(Current { before: Some(before) })
    }

    /// Whether this is the GPU's context.
    pub(super) fn owns(&self, context: CUcontext) -> bool {
        context == self.0.context.as_raw()
    }
}

/// A context that is current on this thread; once dropped, the one before it is again. The thread may be the caller's,
/// whose own calls count on the context they left there.
#[must_use]
pub(super) struct Current {
    /// `None` if nothing is to be put back.
    before: Option<CUcontext>,
}

impl Drop for Current {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // SAFETY: it was current when it was noted; null leaves none current.
            _ = unsafe { call!(cuCtxSetCurrent(before)) };
        }
    }
}

/// The context that is current on this thread, null if none is.
fn current() -> Result<CUcontext, DriverError> {
    let mut context = ptr::null_mut();
    // SAFETY: `context` outlives the call.
    unsafe { call!(cuCtxGetCurrent(&mut context)) }?;
    Ok(context)
}

fn attribute(device: Device, attribute: Attribute) -> Result<u32, DriverError> {
    let mut value: c_int = 0;
    // SAFETY: `value` outlives the call.
    unsafe { call!(cuDeviceGetAttribute(&mut value, attribute as u32, device.as_raw())) }?;
    Ok(value.max(0).unsigned_abs())
}

fn limits(device: Device, sm: Sm) -> Result<DeviceLimits, DriverError> {
    use Attribute::*;
    Ok(DeviceLimits {
        sm,
        multiprocessors: attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes_per_block: attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        shared_bytes_per_sm: attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
        shared_bytes_reserved: attribute(device, CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK)?,
        registers_per_sm: attribute(device, CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR)?,
        threads_per_sm: attribute(device, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
        l2_bytes: attribute(device, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
    })
}

fn rates(device: Device) -> Result<Rates, DriverError> {
    use Attribute::*;
    let hertz = |kilohertz: u32| f64::from(kilohertz) * 1e3;
    let memory_hz = hertz(attribute(device, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?);
    let bus_bytes = f64::from(attribute(device, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?) / 8.0;
    Ok(Rates {
        capability: (
            attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        clock_hz: hertz(attribute(device, CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?),
        // The memory moves data on both edges of its clock.
        memory_bytes_per_s: 2.0 * memory_hz * bus_bytes,
    })
}

fn uuid(device: Device) -> Result<String, DriverError> {
    let mut bytes = [0; 16];
    // SAFETY: `bytes` outlives the call and has the size of a UUID.
    unsafe { call!(cuDeviceGetUuid(&mut bytes, device.as_raw())) }?;
    Ok(format_uuid(bytes))
}

fn format_uuid(bytes: [u8; 16]) -> String {
    let mut text = String::from("GPU");
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 0 | 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text += &format!("{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_read_as_nvidia_prints_them() {
        let bytes = std::array::from_fn(|i| i as u8 * 17);
        assert_eq!(format_uuid(bytes), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn a_missing_gpu_is_an_error() {
        assert!(Gpu::open(u32::MAX).is_err());
    }
}

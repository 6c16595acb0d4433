//! What NVIDIA's management library knows: driver version, clocks, throttling. It may be absent where the driver is there.

use std::fmt;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::Clock;
use nvml_wrapper::error::NvmlError;

/// Reads clocks of one GPU.
#[derive(Debug)]
pub struct Monitor {
    nvml: Nvml,
    uuid: String,
}

/// Clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Of the multiprocessors, in MHz.
    pub sm_mhz: u32,
    /// Of the memory, in MHz.
    pub memory_mhz: u32,
    reasons: ThrottleReasons,
}

/// Slowdowns that come from outside the kernel. The power cap is not among them: at full load a GPU always runs into it,
/// and how far is the kernel's own doing.
const FOREIGN: ThrottleReasons = ThrottleReasons::HW_SLOWDOWN
    .union(ThrottleReasons::HW_THERMAL_SLOWDOWN)
    .union(ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN)
    .union(ThrottleReasons::SW_THERMAL_SLOWDOWN)
    .union(ThrottleReasons::SYNC_BOOST);

impl Monitor {
    /// The monitor of the GPU with this UUID; `None` where the library is absent or does not know the GPU.
    pub fn open(uuid: &str) -> Option<Self> {
        let nvml = Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init().ok()?;
        nvml.device_by_uuid(uuid).ok()?;
        Some(Self { nvml, uuid: uuid.to_owned() })
    }

    /// The driver's version, e.g. `580.159.04`.
    pub fn driver_version(&self) -> Option<String> {
        self.nvml.sys_driver_version().ok()
    }

    /// The clocks now; `None` if the GPU does not tell.
    pub fn clocks(&self) -> Option<Clocks> {
        self.read().ok()
    }

    fn read(&self) -> Result<Clocks, NvmlError> {
        let device = self.nvml.device_by_uuid(self.uuid.as_str())?;
        Ok(Clocks {
            sm_mhz: device.clock_info(Clock::SM)?,
            memory_mhz: device.clock_info(Clock::Memory)?,
            reasons: device.current_throttle_reasons()?,
        })
    }
}

impl Clocks {
    /// Whether something other than the work itself slows the GPU down.
    pub fn throttled(&self) -> bool {
        self.reasons.intersects(FOREIGN)
    }
}

impl fmt::Display for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SM {} MHz, memory {} MHz", self.sm_mhz, self.memory_mhz)?;
        if self.throttled() {
            write!(f, ", throttled ({:?})", self.reasons & FOREIGN)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_power_cap_is_no_throttling() {
        let clocks = |reasons| Clocks { sm_mhz: 1980, memory_mhz: 2619, reasons };
        assert!(!clocks(ThrottleReasons::SW_POWER_CAP | ThrottleReasons::GPU_IDLE).throttled());
        let hot = clocks(ThrottleReasons::SW_POWER_CAP | ThrottleReasons::HW_THERMAL_SLOWDOWN);
        assert!(hot.throttled());
        assert!(hot.to_string().ends_with("throttled (ThrottleReasons(HW_THERMAL_SLOWDOWN))"), "{hot}");
    }
}

//! Global memory.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

#[cfg(not(target_arch = "nvptx64"))]
use super::shared::{bytes, words};

/// An address in global memory.
#[derive(Clone, Copy, Debug)]
pub struct Global(u64);

impl Global {
    /// The handle of an address that the host passed.
    #[inline(always)]
    pub fn new(address: u64) -> Self {
        Self(address)
    }

    /// Whether the host passed no address.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address `bytes` further on.
    #[inline(always)]
    pub fn at(self, bytes: i64) -> Self {
        Self(self.0.wrapping_add_signed(bytes))
    }

    /// The address as the instructions take it.
    #[inline(always)]
    pub(super) fn address(self) -> u64 {
        self.0
    }

    /// Loads a byte that no one writes during the launch.
    #[inline(always)]
    pub fn load_u8(self) -> u8 {
        #[cfg(target_arch = "nvptx64")]
        {
            let value: u16;
            // SAFETY: as for `load_u16`.
            unsafe { asm!("ld.global.nc.u8 {0}, [{1}];", out(reg16) value, in(reg64) self.0, options(nostack)) };
            value as u8
        }
        #[cfg(not(target_arch = "nvptx64"))]
        u8::from_le_bytes(simt::load_global(self.0))
    }

    /// Loads 2 bytes that no one writes during the launch.
    #[inline(always)]
    pub fn load_u16(self) -> u16 {
        #[cfg(target_arch = "nvptx64")]
        {
            let value: u16;
            // SAFETY: callers stay inside the tensors that the host describes; so for all accesses here.
            unsafe { asm!("ld.global.nc.b16 {0}, [{1}];", out(reg16) value, in(reg64) self.0, options(nostack)) };
            value
        }
        #[cfg(not(target_arch = "nvptx64"))]
        u16::from_le_bytes(simt::load_global(self.0))
    }

    /// Loads 4 bytes that no one writes during the launch.
    #[inline(always)]
    pub fn load_u32(self) -> u32 {
        #[cfg(target_arch = "nvptx64")]
        {
            let value: u32;
            // SAFETY: as for `load_u16`.
            unsafe { asm!("ld.global.nc.b32 {0}, [{1}];", out(reg32) value, in(reg64) self.0, options(nostack)) };
            value
        }
        #[cfg(not(target_arch = "nvptx64"))]
        u32::from_le_bytes(simt::load_global(self.0))
    }

    /// Loads one fp32 that no one writes during the launch.
    #[inline(always)]
    pub fn load_f32(self) -> f32 {
        f32::from_bits(self.load_u32())
    }

    /// Loads 8 bytes that no one writes during the launch.
    #[inline(always)]
    pub fn load_pair(self) -> [u32; 2] {
        #[cfg(target_arch = "nvptx64")]
        {
            let (a, b): (u32, u32);
            // SAFETY: as for `load_u16`.
            unsafe {
                asm!("ld.global.nc.v2.b32 {{{0}, {1}}}, [{2}];",
                    out(reg32) a, out(reg32) b, in(reg64) self.0, options(nostack));
            }
            [a, b]
        }
        #[cfg(not(target_arch = "nvptx64"))]
        {
            let all = u64::from_le_bytes(simt::load_global(self.0));
            [all as u32, (all >> 32) as u32]
        }
    }

    /// Loads 16 bytes that no one writes during the launch.
    #[inline(always)]
    pub fn load_chunk(self) -> [u32; 4] {
        #[cfg(target_arch = "nvptx64")]
        {
            let (a, b, c, d): (u32, u32, u32, u32);
            // SAFETY: as for `load_u16`.
            unsafe {
                asm!("ld.global.nc.v4.b32 {{{0}, {1}, {2}, {3}}}, [{4}];",
                    out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg64) self.0, options(nostack));
            }
            [a, b, c, d]
        }
        #[cfg(not(target_arch = "nvptx64"))]
        words(simt::load_global(self.0))
    }

    /// Stores 16 bytes if `wanted`, without a branch.
    #[inline(always)]
    pub fn store_chunk_if(self, wanted: bool, [a, b, c, d]: [u32; 4]) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `load_u16`.
        unsafe {
            asm!("{{ .reg .pred p; setp.ne.u32 p, {5}, 0; @p st.global.v4.b32 [{0}], {{{1}, {2}, {3}, {4}}}; }}",
                in(reg64) self.0, in(reg32) a, in(reg32) b, in(reg32) c, in(reg32) d, in(reg32) u32::from(wanted),
                options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        if wanted {
            self.store_chunk([a, b, c, d]);
        }
    }

    /// Stores 2 bytes.
    #[inline(always)]
    pub fn store_u16(self, value: u16) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `load_u16`.
        unsafe {
            asm!("st.global.b16 [{0}], {1};", in(reg64) self.0, in(reg16) value, options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::store_global(self.0, value.to_le_bytes());
    }

    /// Stores 4 bytes.
    #[inline(always)]
    pub fn store_u32(self, value: u32) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `load_u16`.
        unsafe {
            asm!("st.global.b32 [{0}], {1};", in(reg64) self.0, in(reg32) value, options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::store_global(self.0, value.to_le_bytes());
    }

    /// Stores 8 bytes.
    #[inline(always)]
    pub fn store_pair(self, [a, b]: [u32; 2]) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `load_u16`.
        unsafe {
            asm!("st.global.v2.b32 [{0}], {{{1}, {2}}};", in(reg64) self.0, in(reg32) a, in(reg32) b, options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::store_global(self.0, (u64::from(a) | u64::from(b) << 32).to_le_bytes());
    }

    /// Stores 16 bytes.
    #[inline(always)]
    pub fn store_chunk(self, [a, b, c, d]: [u32; 4]) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `load_u16`.
        unsafe {
            asm!("st.global.v4.b32 [{0}], {{{1}, {2}, {3}, {4}}};",
                in(reg64) self.0, in(reg32) a, in(reg32) b, in(reg32) c, in(reg32) d, options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::store_global(self.0, bytes([a, b, c, d]));
    }

    /// Stores one fp32.
    #[inline(always)]
    pub fn store_f32(self, value: f32) {
        self.store_u32(value.to_bits());
    }
}

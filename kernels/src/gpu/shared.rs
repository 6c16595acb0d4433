//! Shared memory: one dynamic array per block, addressed by bytes.

#[cfg(target_arch = "nvptx64")]
use core::arch::{asm, global_asm};

// One mechanism only: a section attribute would silently give global memory.
#[cfg(target_arch = "nvptx64")]
global_asm!(".extern .shared .align 1024 .b8 dynamic_shared[];");

/// An address in the block's shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Shared(u32);

impl Shared {
    /// The start of the block's dynamic shared memory, aligned to 1024 bytes.
    #[inline(always)]
    pub fn base() -> Self {
        #[cfg(target_arch = "nvptx64")]
        {
            let address: u32;
            // SAFETY: takes the address of the array declared above.
            unsafe { asm!("mov.u32 {0}, dynamic_shared;", out(reg32) address, options(pure, nomem, nostack)) };
            Self(address)
        }
        #[cfg(not(target_arch = "nvptx64"))]
        Self(0)
    }

    /// The address `bytes` further on.
    #[inline(always)]
    pub fn at(self, bytes: u32) -> Self {
        Self(self.0 + bytes)
    }

    /// The address as the instructions take it.
    #[inline(always)]
    pub(super) fn address(self) -> u32 {
        self.0
    }

    /// Loads 4 bytes.
    #[inline(always)]
    pub fn load_u32(self) -> u32 {
        #[cfg(target_arch = "nvptx64")]
        {
            let value: u32;
            // SAFETY: the layout keeps the address inside the block's shared memory; so for all accesses here.
            unsafe { asm!("ld.shared.b32 {0}, [{1}];", out(reg32) value, in(reg32) self.0, options(nostack)) };
            value
        }
        #[cfg(not(target_arch = "nvptx64"))]
        u32::from_le_bytes(simt::load_shared(self.0))
    }

    /// Loads 16 bytes.
    #[inline(always)]
    pub fn load_chunk(self) -> [u32; 4] {
        #[cfg(target_arch = "nvptx64")]
        {
            let (a, b, c, d): (u32, u32, u32, u32);
            // SAFETY: as for `load_u32`.
            unsafe {
                asm!("ld.shared.v4.b32 {{{0}, {1}, {2}, {3}}}, [{4}];",
                    out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg32) self.0, options(nostack));
            }
            [a, b, c, d]
        }
        #[cfg(not(target_arch = "nvptx64"))]
        words(simt::load_shared(self.0))
    }

    /// Loads one fp32.
    #[inline(always)]
    pub fn load_f32(self) -> f32 {
        f32::from_bits(self.load_u32())
    }

    /// Stores 2 bytes.
    #[inline(always)]
    pub fn store_u16(self, value: u16) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `load_u32`.
        unsafe {
            asm!("st.shared.b16 [{0}], {1};", in(reg32) self.0, in(reg16) value, options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::store_shared(self.0, value.to_le_bytes());
    }

    /// Stores 4 bytes.
    #[inline(always)]
    pub fn store_u32(self, value: u32) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `load_u32`.
        unsafe {
            asm!("st.shared.b32 [{0}], {1};", in(reg32) self.0, in(reg32) value, options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::store_shared(self.0, value.to_le_bytes());
    }

    /// Stores 8 bytes.
    #[inline(always)]
    pub fn store_pair(self, [a, b]: [u32; 2]) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `load_u32`.
        unsafe {
            asm!("st.shared.v2.b32 [{0}], {{{1}, {2}}};", in(reg32) self.0, in(reg32) a, in(reg32) b, options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::store_shared(self.0, (u64::from(a) | u64::from(b) << 32).to_le_bytes());
    }

    /// Stores 16 bytes.
    #[inline(always)]
    pub fn store_chunk(self, [a, b, c, d]: [u32; 4]) {
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: as for `load_u32`.
        unsafe {
            asm!("st.shared.v4.b32 [{0}], {{{1}, {2}, {3}, {4}}};",
                in(reg32) self.0, in(reg32) a, in(reg32) b, in(reg32) c, in(reg32) d, options(nostack));
        }
        #[cfg(not(target_arch = "nvptx64"))]
        simt::store_shared(self.0, bytes([a, b, c, d]));
    }

    /// Stores one fp32.
    #[inline(always)]
    pub fn store_f32(self, value: f32) {
        self.store_u32(value.to_bits());
    }
}

/// Four words of 16 bytes, little-endian as on the GPU.
#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn words(bytes: [u8; 16]) -> [u32; 4] {
    let all = u128::from_le_bytes(bytes);
    [all as u32, (all >> 32) as u32, (all >> 64) as u32, (all >> 96) as u32]
}

/// Inverse of [`words`].
#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn bytes([a, b, c, d]: [u32; 4]) -> [u8; 16] {
    (u128::from(a) | u128::from(b) << 32 | u128::from(c) << 64 | u128::from(d) << 96).to_le_bytes()
}

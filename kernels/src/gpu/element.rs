//! The element types and their conversions.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use super::{Global, Shared};

/// An element type of Q, K, V and O.
pub trait Element: Copy + 'static {
    /// Size in bytes.
    const BYTES: u32;

    /// Loads eight neighbouring elements.
    fn load_octet(from: Shared) -> [[f32; 2]; 4];

    /// Loads two neighbouring elements.
    fn load_pair(from: Shared) -> [f32; 2];

    /// Stores two neighbouring elements, rounded.
    fn store_pair_shared(to: Shared, pair: [f32; 2]);

    /// Loads element `index` from here on, which no one writes during the launch.
    fn load(from: Global, index: u32) -> f32;

    /// Stores two neighbouring elements, rounded, at a multiple of 4.
    fn store_pair(to: Global, pair: [f32; 2]);
}

/// IEEE single precision: what everything is accumulated in.
#[derive(Clone, Copy, Debug)]
pub enum F32 {}

impl Element for F32 {
    const BYTES: u32 = 4;

    #[inline(always)]
    fn load_octet(from: Shared) -> [[f32; 2]; 4] {
        let [[a, b, c, d], [e, f, g, h]] = [from, from.at(16)].map(|chunk| chunk.load_chunk().map(f32::from_bits));
        [[a, b], [c, d], [e, f], [g, h]]
    }

    #[inline(always)]
    fn load_pair(from: Shared) -> [f32; 2] {
        [from.load_f32(), from.at(4).load_f32()]
    }

    #[inline(always)]
    fn store_pair_shared(to: Shared, pair: [f32; 2]) {
        to.store_pair(pair.map(f32::to_bits));
    }

    #[inline(always)]
    fn load(from: Global, index: u32) -> f32 {
        from.at(i64::from(index * 4)).load_f32()
    }

    #[inline(always)]
    fn store_pair(to: Global, [low, high]: [f32; 2]) {
        to.store_f32(low);
        to.at(4).store_f32(high);
    }
}

impl<E: Half> Element for E {
    const BYTES: u32 = HALF_BYTES;

    #[inline(always)]
    fn load_octet(from: Shared) -> [[f32; 2]; 4] {
        from.load_chunk().map(E::unpack)
    }

    #[inline(always)]
    fn load_pair(from: Shared) -> [f32; 2] {
        E::unpack(from.load_u32())
    }

    #[inline(always)]
    fn store_pair_shared(to: Shared, [low, high]: [f32; 2]) {
        to.store_u32(E::pack(low, high));
    }

    #[inline(always)]
    fn load(from: Global, index: u32) -> f32 {
        E::unpack(from.at(i64::from(index * 2)).load_u16().into())[0]
    }

    #[inline(always)]
    fn store_pair(to: Global, [low, high]: [f32; 2]) {
        to.store_u32(E::pack(low, high));
    }
}

/// Bytes of an element that tensor cores multiply.
pub const HALF_BYTES: u32 = 2;

/// A 16-bit element type, which tensor cores multiply. Two elements share a register, the first in the low half.
pub trait Half: Copy + 'static {
    /// Whether it is bfloat16.
    const IS_BF16: bool;

    /// Rounds two fp32 to nearest even and packs them.
    fn pack(low: f32, high: f32) -> u32;

    /// Widens two packed elements.
    fn unpack(pair: u32) -> [f32; 2];

    /// `c += a b` on the tensor cores (`mma.sync.m16n8k16`), by the whole warp.
    ///
    /// `a` is 16 x 16, `b` 16 x 8, `c` 16 x 8 in fp32. Lane `l` holds of `a` the rows `l / 4` and `l / 4 + 8` and the
    /// columns `2 (l % 4)` and the next, then the same 8 columns further; of `b` the rows `2 (l % 4)` and the next, then
    /// 8 further, in column `l / 4`; of `c` the rows of `a` in columns `2 (l % 4)` and the next.
    fn mma(c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]);
}

#[cfg(target_arch = "nvptx64")]
macro_rules! mma {
    ($kind:literal, $c:ident, $a:ident, $b:ident) => {{
        let [c0, c1, c2, c3] = $c;
        // SAFETY: registers only; the whole warp runs it, since kernels issue it in straight-line code.
        unsafe {
            asm!(concat!("mma.sync.aligned.m16n8k16.row.col.f32.", $kind, ".", $kind,
                    ".f32 {{{0}, {1}, {2}, {3}}}, {{{4}, {5}, {6}, {7}}}, {{{8}, {9}}}, {{{0}, {1}, {2}, {3}}};"),
                inout(reg32) *c0, inout(reg32) *c1, inout(reg32) *c2, inout(reg32) *c3,
                in(reg32) $a[0], in(reg32) $a[1], in(reg32) $a[2], in(reg32) $a[3],
                in(reg32) $b[0], in(reg32) $b[1], options(pure, nomem, nostack));
        }
    }};
}

/// An element type that tensor cores multiply, 32 bytes of each row at a time.
pub trait Factor: Copy + 'static {
    /// Which it is.
    const KIND: Kind;

    /// Size in bytes.
    const BYTES: u32 = match Self::KIND {
        Kind::F16 | Kind::Bf16 => HALF_BYTES,
        Kind::E4m3 => 1,
    };

    /// Adds a product to `c` like [`Half::mma`]; of elements of one byte twice as deep, each register holding four in the place
    /// of two.
    fn mma(c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]);
}

/// The types that tensor cores multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`F16`].
    F16,
    /// [`Bf16`].
    Bf16,
    /// [`E4m3`].
    E4m3,
}

impl Kind {
    /// The type as the CPU machine names it.
    #[cfg(not(target_arch = "nvptx64"))]
    pub(super) const fn on_cpu(self) -> simt::MmaKind {
        match self {
            Self::F16 => simt::MmaKind::F16,
            Self::Bf16 => simt::MmaKind::Bf16,
            Self::E4m3 => simt::MmaKind::E4m3,
        }
    }
}

impl<E: Half> Factor for E {
    const KIND: Kind = if E::IS_BF16 { Kind::Bf16 } else { Kind::F16 };

    #[inline(always)]
    fn mma(c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
        <E as Half>::mma(c, a, b);
    }
}

/// fp8 with 4 bits of exponent and 3 of fraction: no infinities, and nothing above 448. Four share a register, the first in
/// the lowest byte.
#[derive(Clone, Copy, Debug)]
pub enum E4m3 {}

impl E4m3 {
    /// Rounds four fp32 to nearest even and packs them; what is beyond the largest becomes the largest, NaN stays NaN.
    #[inline(always)]
    pub fn pack([a, b, c, d]: [f32; 4]) -> u32 {
        #[cfg(target_arch = "nvptx64")]
        {
            let four: u32;
            // SAFETY: registers only.
            unsafe {
                asm!("{{ .reg .b16 l, h; cvt.rn.satfinite.e4m3x2.f32 l, {2}, {1}; \
                        cvt.rn.satfinite.e4m3x2.f32 h, {4}, {3}; mov.b32 {0}, {{l, h}}; }}",
                    out(reg32) four, in(reg32) a, in(reg32) b, in(reg32) c, in(reg32) d,
                    options(pure, nomem, nostack));
            }
            four
        }
        #[cfg(not(target_arch = "nvptx64"))]
        u32::from_le_bytes([a, b, c, d].map(simt::e4m3_from_f32))
    }

    /// Widens four packed elements to two pairs of fp16, exactly.
    #[inline(always)]
    fn widen(four: u32) -> [u32; 2] {
        #[cfg(target_arch = "nvptx64")]
        {
            let (low, high): (u32, u32);
            // SAFETY: registers only.
            unsafe {
                asm!("{{ .reg .b16 l, h; mov.b32 {{l, h}}, {2}; cvt.rn.f16x2.e4m3x2 {0}, l; \
                        cvt.rn.f16x2.e4m3x2 {1}, h; }}",
                    out(reg32) low, out(reg32) high, in(reg32) four, options(pure, nomem, nostack));
            }
            [low, high]
        }
        #[cfg(not(target_arch = "nvptx64"))]
        {
            let [a, b, c, d] = four.to_le_bytes().map(|bits| simt::f16_from_f32(simt::f32_from_e4m3(bits)));
            [[a, b], [c, d]].map(|[low, high]| u32::from(low) | u32::from(high) << 16)
        }
    }
}

impl Factor for E4m3 {
    const KIND: Kind = Kind::E4m3;

    /// A warp's own product of fp8 is newer than the PTX that kernels are written in: two of fp16, which holds every e4m3.
    #[inline(always)]
    fn mma(c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
        let (a, b) = (a.map(Self::widen), b.map(Self::widen));
        <F16 as Half>::mma(c, a.map(|[low, _]| low), b.map(|[low, _]| low));
        <F16 as Half>::mma(c, a.map(|[_, high]| high), b.map(|[_, high]| high));
    }
}

/// IEEE half precision.
#[derive(Clone, Copy, Debug)]
pub enum F16 {}

/// bfloat16.
#[derive(Clone, Copy, Debug)]
pub enum Bf16 {}

impl Half for F16 {
    const IS_BF16: bool = false;

    #[inline(always)]
    fn pack(low: f32, high: f32) -> u32 {
        #[cfg(target_arch = "nvptx64")]
        {
            let pair: u32;
            // SAFETY: registers only.
            unsafe {
                asm!("cvt.rn.f16x2.f32 {0}, {1}, {2};", out(reg32) pair, in(reg32) high, in(reg32) low,
                    options(pure, nomem, nostack));
            }
            pair
        }
        #[cfg(not(target_arch = "nvptx64"))]
        {
            u32::from(simt::f16_from_f32(low)) | u32::from(simt::f16_from_f32(high)) << 16
        }
    }

    #[inline(always)]
    fn unpack(pair: u32) -> [f32; 2] {
        #[cfg(target_arch = "nvptx64")]
        {
            let (low, high): (f32, f32);
            // SAFETY: registers only.
            unsafe {
                asm!("{{ .reg .b16 l, h; mov.b32 {{l, h}}, {2}; cvt.f32.f16 {0}, l; cvt.f32.f16 {1}, h; }}",
                    out(reg32) low, out(reg32) high, in(reg32) pair, options(pure, nomem, nostack));
            }
            [low, high]
        }
        #[cfg(not(target_arch = "nvptx64"))]
        [simt::f32_from_f16(pair as u16), simt::f32_from_f16((pair >> 16) as u16)]
    }

    #[inline(always)]
    fn mma(c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
        #[cfg(target_arch = "nvptx64")]
        mma!("f16", c, a, b);
        #[cfg(not(target_arch = "nvptx64"))]
        {
            *c = simt::mma_m16n8(simt::MmaKind::F16, a, b, *c);
        }
    }
}

impl Half for Bf16 {
    const IS_BF16: bool = true;

    #[inline(always)]
    fn pack(low: f32, high: f32) -> u32 {
        #[cfg(target_arch = "nvptx64")]
        {
            let pair: u32;
            // SAFETY: registers only.
            unsafe {
                asm!("cvt.rn.bf16x2.f32 {0}, {1}, {2};", out(reg32) pair, in(reg32) high, in(reg32) low,
                    options(pure, nomem, nostack));
            }
            pair
        }
        #[cfg(not(target_arch = "nvptx64"))]
        {
            u32::from(simt::bf16_from_f32(low)) | u32::from(simt::bf16_from_f32(high)) << 16
        }
    }

    #[inline(always)]
    fn unpack(pair: u32) -> [f32; 2] {
        // bf16 is the upper half of fp32.
        [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
    }

    #[inline(always)]
    fn mma(c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
        #[cfg(target_arch = "nvptx64")]
        mma!("bf16", c, a, b);
        #[cfg(not(target_arch = "nvptx64"))]
        {
            *c = simt::mma_m16n8(simt::MmaKind::Bf16, a, b, *c);
        }
    }
}

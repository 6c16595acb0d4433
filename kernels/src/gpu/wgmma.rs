//! `wgmma`: asynchronous matrix products of a warpgroup (sm_90a).
//!
//! Accumulators are [`Accumulator`]s while they are at rest and [`InFlight`] from [`Accumulator::begin`] to
//! [`InFlight::wait`]: the type keeps anyone from touching them in between, where the compiler would serialise the
//! products. On the GPU each fence and wait takes the registers as operands, since nothing else stops the code generator
//! from moving a read before the wait.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;
use core::marker::PhantomData;

#[cfg(target_arch = "nvptx64")]
use super::element::Kind;
use super::{Factor, Shared};

/// What a product reads from shared memory: an address with strides.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor(u64);

impl Descriptor {
    /// Rows of 128 bytes, permuted in groups of 8 rows (the copy engine's 128-byte mode).
    const PERMUTED_128: u64 = 1 << 62;
    /// From one group of 8 rows to the next, in units of 16 bytes.
    const GROUP: u64 = (1024 >> 4) << 32;

    /// A panel of rows of 128 bytes, whose product runs along the columns (Q, K). `start` is aligned to 1024 bytes.
    #[inline(always)]
    pub fn along_columns(start: Shared) -> Self {
        Self(u64::from(start.address() >> 4) & 0x3fff | 1 << 16 | Self::GROUP | Self::PERMUTED_128)
    }

    /// Panels of 64 columns, `panel` bytes apart, whose product runs along the rows (V).
    #[inline(always)]
    pub fn along_rows(start: Shared, panel: u32) -> Self {
        Self(u64::from(start.address() >> 4) & 0x3fff | u64::from(panel >> 4) << 16 | Self::GROUP | Self::PERMUTED_128)
    }

    /// The descriptor of what lies `bytes` further on.
    #[inline(always)]
    pub fn at(self, bytes: u32) -> Self {
        Self(self.0 + u64::from(bytes >> 4))
    }
}

/// `N` blocks of 64 rows x 8 columns in fp32, spread over a warpgroup as [`Half::mma`](super::Half::mma) says, 16 rows a warp.
#[derive(Clone, Copy, Debug)]
pub struct Accumulator<const N: usize> {
    /// The lane's elements.
    pub values: [[f32; 4]; N],
}

/// An accumulator that products may be writing to.
#[derive(Debug)]
pub struct InFlight<E, const N: usize> {
    /// On the CPU machine poison: it keeps the values itself.
    values: [[f32; 4]; N],
    #[cfg(not(target_arch = "nvptx64"))]
    accumulator: simt::Accumulator,
    element: PhantomData<E>,
}

/// An operand of 64 rows of 32 bytes in registers, laid out as operand `a` of [`Factor::mma`].
pub type Operand = [u32; 4];

/// Lets what computes `sums` come before what follows it, by a branch that is never taken: a sum of exponentials is not
/// negative. Without it the assembler moves a wait up, before arithmetic that was to run beside the products.
#[inline(always)]
pub fn settle(sums: [f32; 2]) {
    #[cfg(target_arch = "nvptx64")]
    if sums[0] + sums[1] < 0.0 {
        // SAFETY: waits.
        unsafe { asm!("nanosleep.u32 0;", options(nostack)) }
    }
    #[cfg(not(target_arch = "nvptx64"))]
    let _ = sums;
}

/// The products that an accumulator of `N` blocks of 8 columns can take.
pub trait Product<const N: usize> {
    /// Adds a product over 32 bytes, both operands from shared memory; with `fresh` the accumulator counts as zero.
    fn add_shared(&mut self, a: Descriptor, b: Descriptor, fresh: bool);

    /// Adds a product over 32 bytes, `a` from registers, `b` along the rows of shared memory; along the columns where elements
    /// have one byte.
    fn add_registers(&mut self, a: Operand, b: Descriptor);
}

impl<const N: usize> Accumulator<N> {
    /// All zeros.
    pub const ZERO: Self = Self { values: [[0.0; 4]; N] };

    /// Opens the accumulator to products. Operands in registers must be [`pin`]ned before.
    #[inline(always)]
    pub fn begin<E: Factor>(mut self) -> InFlight<E, N> {
        pin(&mut self.values);
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: orders register accesses of the warpgroup.
        unsafe {
            asm!("wgmma.fence.sync.aligned;", options(nostack));
        }
        pin(&mut self.values);
        InFlight {
            #[cfg(not(target_arch = "nvptx64"))]
            accumulator: simt::wgmma_begin(&mut self.values),
            values: self.values,
            element: PhantomData,
        }
    }
}

impl<E: Factor, const N: usize> InFlight<E, N> {
    /// Waits until at most `running` of the latest groups of products are under way, which must not be of this accumulator.
    /// `running` is 0 or 1, known at compile time.
    #[inline(always)]
    pub fn wait(mut self, running: u32) -> Accumulator<N> {
        pin(&mut self.values);
        #[cfg(target_arch = "nvptx64")]
        // SAFETY: waits.
        unsafe {
            if running == 1 {
                asm!("wgmma.wait_group.sync.aligned 1;", options(nostack));
            } else {
                asm!("wgmma.wait_group.sync.aligned 0;", options(nostack));
            }
        }
        #[cfg(not(target_arch = "nvptx64"))]
        {
            simt::wgmma_wait(running);
            simt::wgmma_end(self.accumulator, &mut self.values);
        }
        pin(&mut self.values);
        Accumulator { values: self.values }
    }
}

/// Closes the group of products issued since the last `commit_products`.
#[inline(always)]
pub fn commit_products() {
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: touches no memory.
    unsafe {
        asm!("wgmma.commit_group.sync.aligned;", options(nostack));
    }
    #[cfg(not(target_arch = "nvptx64"))]
    simt::wgmma_commit();
}

/// A register of 32 bits.
pub trait Register: Copy {
    /// Makes the value exist here, in a register, for the code generator.
    fn pin(four: &mut [Self; 4])
    where
        Self: Sized;
}

macro_rules! register {
    ($($type:ty),*) => {$(
        impl Register for $type {
            #[inline(always)]
            fn pin(four: &mut [Self; 4]) {
                #[cfg(target_arch = "nvptx64")]
                {
                    let [a, b, c, d] = four;
                    // SAFETY: no instruction.
                    unsafe {
                        asm!("// {0} {1} {2} {3}", inout(reg32) *a, inout(reg32) *b, inout(reg32) *c, inout(reg32) *d,
                            options(nostack));
                    }
                }
                #[cfg(not(target_arch = "nvptx64"))]
                let _ = four;
            }
        }
    )*};
}
register!(f32, u32);

/// Makes values exist in registers at this point, neither later nor earlier: the assembler serialises products whose
/// operands are defined between them.
#[inline(always)]
pub fn pin<T: Register, const N: usize>(values: &mut [[T; 4]; N]) {
    let mut n = 0;
    while n < N {
        T::pin(&mut values[n]);
        n += 1;
    }
}

/// The accumulator's operands in an instruction's text.
#[cfg(target_arch = "nvptx64")]
macro_rules! operands {
    ($first:literal $($rest:literal)*) => { concat!("{", $first, "}" $(, ", {", $rest, "}")*) };
}

/// The products for one width: columns, blocks of 8 of them, then the accumulator's operand numbers.
macro_rules! product {
    ($($columns:literal $blocks:literal: $($i:literal)*;)*) => {$(
        impl<E: Factor> Product<$blocks> for InFlight<E, $blocks> {
            #[inline(always)]
            fn add_shared(&mut self, a: Descriptor, b: Descriptor, fresh: bool) {
                #[cfg(target_arch = "nvptx64")]
                {
                    let d = &mut self.values;
                    let keep = u32::from(!fresh);
                    macro_rules! issue {
                        ($depth:literal, $kind:literal, $turned:literal) => {
                            asm!("{{ .reg .pred p; setp.ne.b32 p, {keep}, 0;",
                                concat!("wgmma.mma_async.sync.aligned.m64n", $columns, $depth, ".f32.", $kind, ".", $kind,
                                    " {{", operands!($($i)*), "}}, {a}, {b}, p, 1, 1", $turned, "; }}"),
                                $(inout(reg32) d[$i / 4][$i % 4],)*
                                a = in(reg64) a.0, b = in(reg64) b.0, keep = in(reg32) keep, options(nostack))
                        };
                    }
                    // SAFETY: the descriptors point into shared memory; the whole warpgroup runs it, in straight-line code.
                    unsafe {
                        match E::KIND {
                            Kind::F16 => issue!("k16", "f16", ", 0, 0"),
                            Kind::Bf16 => issue!("k16", "bf16", ", 0, 0"),
                            Kind::E4m3 => issue!("k32", "e4m3", ""),
                        }
                    }
                }
                #[cfg(not(target_arch = "nvptx64"))]
                simt::wgmma_shared(E::KIND.on_cpu(), self.accumulator, a.0, b.0, fresh);
            }

            #[inline(always)]
            fn add_registers(&mut self, a: Operand, b: Descriptor) {
                #[cfg(target_arch = "nvptx64")]
                {
                    let d = &mut self.values;
                    macro_rules! issue {
                        ($depth:literal, $kind:literal, $turned:literal) => {
                            asm!("{{ .reg .pred p; setp.eq.b32 p, 0, 0;",
                                concat!("wgmma.mma_async.sync.aligned.m64n", $columns, $depth, ".f32.", $kind, ".", $kind,
                                    " {{", operands!($($i)*), "}}, {{{a0}, {a1}, {a2}, {a3}}}, {b}, p, 1, 1", $turned,
                                    "; }}"),
                                $(inout(reg32) d[$i / 4][$i % 4],)*
                                a0 = in(reg32) a[0], a1 = in(reg32) a[1], a2 = in(reg32) a[2], a3 = in(reg32) a[3],
                                b = in(reg64) b.0, options(nostack))
                        };
                    }
                    // SAFETY: as for `add_shared`.
                    unsafe {
                        match E::KIND {
                            Kind::F16 => issue!("k16", "f16", ", 1"),
                            Kind::Bf16 => issue!("k16", "bf16", ", 1"),
                            Kind::E4m3 => issue!("k32", "e4m3", ""),
                        }
                    }
                }
                #[cfg(not(target_arch = "nvptx64"))]
                simt::wgmma_registers(E::KIND.on_cpu(), self.accumulator, a, b.0);
            }
        }
    )*};
}

product! {
    64 8: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21
        22 23 24 25 26 27 28 29 30 31;
    80 10: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21
        22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39;
    96 12: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21
        22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43
        44 45 46 47;
    112 14: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21
        22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43
        44 45 46 47 48 49 50 51 52 53 54 55;
    128 16: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21
        22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43
        44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63;
    160 20: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21
        22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43
        44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65
        66 67 68 69 70 71 72 73 74 75 76 77 78 79;
    176 22: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21
        22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43
        44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65
        66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87;
    192 24: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21
        22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43
        44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65
        66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87
        88 89 90 91 92 93 94 95;
    256 32: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21
        22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43
        44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65
        66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87
        88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109
        110 111 112 113 114 115 116 117 118 119 120 121 122 123 124 125 126 127;
}

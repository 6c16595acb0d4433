//! One product of a warpgroup, and where its operands lie in shared memory.

use crate::shared::{CHUNK, permute};
use crate::{Accumulator, Cause, MmaKind};

/// Rows of an accumulator.
pub(crate) const ROWS: usize = 64;
/// Where a product's factors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factors {
    /// `a` and `b` in shared memory, each along the depth.
    Shared {
        /// Descriptor of `a`.
        a: u64,
        /// Descriptor of `b`.
        b: u64,
        /// Whether the accumulator counts as zero.
        fresh: bool,
    },
    /// `a` in registers, `b` in shared memory: along its columns, but along the depth where elements have 8 bits.
    Registers {
        /// Descriptor of `b`.
        b: u64,
    },
}

/// A product as it is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Element type of the factors.
    pub kind: MmaKind,
    /// What it adds to.
    pub accumulator: Accumulator,
    /// What it multiplies.
    pub factors: Factors,
}

/// An operand in shared memory: what a descriptor says.
#[derive(Clone, Copy)]
struct Operand {
    start: u32,
    /// Along the columns, from one panel of 64 columns to the next.
    leading: u32,
    /// From one group of eight rows of 128 bytes to the next.
    stride: u32,
}

impl Operand {
    /// Takes descriptors of rows of 128 bytes in 128-byte permutation, from a multiple of 1024 bytes on.
    fn decode(bits: u64) -> Result<Self, Cause> {
        let field = |at: u32| (bits >> at & 0x3fff) as u32 * 16;
        let known = 0x3fff | 0x3fff << 16 | 0x3fff << 32;
        if bits & !known != 1 << 62 {
            return Err(Cause::Descriptor(bits));
        }
        Ok(Self { start: field(0), leading: field(16), stride: field(32) })
    }

    /// Chunk `part` along the depth of row (or column) `index`.
    fn along_depth(self, index: u32, part: u32) -> u32 {
        permute(self.start + index / 8 * self.stride + index % 8 * 128 + part * CHUNK as u32)
    }

    /// Eight columns, from 8 `part` on, of row `index`.
    fn along_columns(self, index: u32, part: u32) -> u32 {
        permute(
            self.start + part / 8 * self.leading + index / 8 * self.stride + index % 8 * 128 + part % 8 * CHUNK as u32,
        )
    }
}

impl Product {
    /// The chunks of `a` in shared memory.
    pub(crate) fn chunks_of_a(&self) -> Result<impl Iterator<Item = u32> + use<>, Cause> {
        let a = match self.factors {
            Factors::Shared { a, .. } => Some(Operand::decode(a)?),
            Factors::Registers { .. } => None,
        };
        Ok(a.into_iter().flat_map(|a| (0..ROWS as u32 * 2).map(move |i| a.along_depth(i / 2, i % 2))))
    }

    /// Whether `b` lies along the depth.
    pub(crate) fn b_along_depth(&self) -> bool {
        matches!(self.factors, Factors::Shared { .. }) || self.kind == MmaKind::E4m3
    }

    /// The chunks of `b`: two of each column, or all of each row.
    pub(crate) fn chunks_of_b(&self) -> Result<impl Iterator<Item = u32> + use<>, Cause> {
        let blocks = u32::from(self.accumulator.blocks);
        let (Factors::Shared { b, .. } | Factors::Registers { b }) = self.factors;
        let (b, along_depth) = (Operand::decode(b)?, self.b_along_depth());
        Ok((0..16 * blocks).map(move |i| match along_depth {
            true => b.along_depth(i / 2, i % 2),
            false => b.along_columns(i / blocks, i % blocks),
        }))
    }
}

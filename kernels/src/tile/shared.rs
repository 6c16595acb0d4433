//! A matrix of 16-bit elements in shared memory, kept in chunks of 16 bytes.

use spec::layout::CHUNK;

use crate::gpu::Shared;

/// A tile whose rows are `PITCH` bytes apart. With `PERMUTED`, chunk `c` of row `r` lies where chunk `c ^ (r % 8)` would:
/// eight rows' chunks of one column then lie in different banks without padding. Rows must hold a multiple of 8 chunks.
#[derive(Clone, Copy, Debug)]
pub struct SharedTile<const PITCH: u32, const PERMUTED: bool> {
    start: Shared,
}

impl<const PITCH: u32, const PERMUTED: bool> SharedTile<PITCH, PERMUTED> {
    /// The tile that starts at `start`.
    #[inline(always)]
    pub fn new(start: Shared) -> Self {
        Self { start }
    }

    /// The tile `bytes` further on.
    #[inline(always)]
    pub fn at(self, bytes: u32) -> Self {
        Self { start: self.start.at(bytes) }
    }

    /// Address of a chunk.
    #[inline(always)]
    pub fn chunk(self, row: u32, chunk: u32) -> Shared {
        let chunk = if PERMUTED { chunk ^ (row % 8) } else { chunk };
        self.start.at(row * PITCH + chunk * CHUNK)
    }

    /// Address of a byte of a row.
    #[inline(always)]
    pub fn byte(self, row: u32, byte: u32) -> Shared {
        self.chunk(row, byte / CHUNK).at(byte % CHUNK)
    }
}

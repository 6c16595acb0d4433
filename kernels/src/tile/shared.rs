//! A matrix in shared memory, kept in chunks of 16 bytes.

use spec::layout::CHUNK;

use crate::gpu::Shared;

/// A tile whose rows are `pitch` bytes apart. If `permuted`, chunk `c` of row `r` lies where chunk `c ^ (r % 8)` would:
/// eight rows' chunks of one column then lie in different banks without padding. Rows must hold a multiple of 8 chunks.
#[derive(Clone, Copy, Debug)]
pub struct SharedTile {
    start: Shared,
    pitch: u32,
    permuted: bool,
}

impl SharedTile {
    /// The tile that starts at `start`.
    #[inline(always)]
    pub fn new(start: Shared, pitch: u32, permuted: bool) -> Self {
        Self { start, pitch, permuted }
    }

    /// The like tile `bytes` further on.
    #[inline(always)]
    pub fn at(self, bytes: u32) -> Self {
        Self { start: self.start.at(bytes), ..self }
    }

    /// Address of a chunk.
    #[inline(always)]
    pub fn chunk(self, row: u32, chunk: u32) -> Shared {
        let chunk = if self.permuted { chunk ^ (row % 8) } else { chunk };
        self.start.at(row * self.pitch + chunk * CHUNK)
    }

    /// Address of a byte of a row.
    #[inline(always)]
    pub fn byte(self, row: u32, byte: u32) -> Shared {
        self.chunk(row, byte / CHUNK).at(byte % CHUNK)
    }
}

//! A matrix in shared memory, kept in chunks of 16 bytes.

use spec::layout::{CHUNK, PANEL_ROW};

use crate::gpu::Shared;

/// A tile whose rows are `pitch` bytes apart. If `permuted`, chunk `c` of row `r` lies where chunk `c ^ (r % 8)` would:
/// eight rows' chunks of one column then lie in different banks without padding. Rows must hold a multiple of 8 chunks. In
/// panels, rows have 8 chunks, and those that follow are `panel` bytes further on.
#[derive(Clone, Copy, Debug)]
pub struct SharedTile {
    start: Shared,
    pitch: u32,
    permuted: bool,
    /// 0 if rows are kept whole.
    panel: u32,
}

impl SharedTile {
    /// The tile that starts at `start`.
    #[inline(always)]
    pub fn new(start: Shared, pitch: u32, permuted: bool) -> Self {
        Self { start, pitch, permuted, panel: 0 }
    }

    /// The tile of so many rows that the copy engine leaves at `start`, in panels of 64 columns of two bytes.
    #[inline(always)]
    pub fn panels(start: Shared, rows: u32) -> Self {
        Self { start, pitch: PANEL_ROW, permuted: true, panel: rows * PANEL_ROW }
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
        let column = if self.panel == 0 {
            chunk * CHUNK
        } else {
            chunk * CHUNK / PANEL_ROW * self.panel + chunk * CHUNK % PANEL_ROW
        };
        self.start.at(row * self.pitch + column)
    }

    /// Address of a byte of a row.
    #[inline(always)]
    pub fn byte(self, row: u32, byte: u32) -> Shared {
        self.chunk(row, byte / CHUNK).at(byte % CHUNK)
    }
}

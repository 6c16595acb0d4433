//! Tiles from global to shared memory. Rows and columns that do not exist become zeros.

use spec::layout::CHUNK;

use super::Rows;
use crate::gpu::{CacheHint, Global, copy_chunk};
use crate::tile::SharedTile;

/// Threads that load together.
#[derive(Clone, Copy, Debug)]
pub struct Loader {
    /// Index of this thread among them.
    pub thread: u32,
    /// How many they are.
    pub threads: u32,
}

impl Loader {
    /// Calls `f` with this thread's share of `0..count`, in strides of the number of threads. `count` must be known at
    /// compile time, so that the loop can be unrolled.
    #[inline(always)]
    pub fn share(self, count: u32, mut f: impl FnMut(u32)) {
        let mut step = 0;
        while step < count.div_ceil(self.threads) {
            let index = self.thread + step * self.threads;
            if count.is_multiple_of(self.threads) || index < count {
                f(index);
            }
            step += 1;
        }
    }
}

/// Rows of a tensor that fill a tile.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// First row.
    pub first: u32,
    /// Rows from here on are not read: they do not exist, or no query row of the block sees them.
    pub end: u32,
    /// Rows of the tile.
    pub rows: u32,
    /// Bytes of a row.
    pub row_bytes: u32,
}

/// Where rows of a tensor are.
pub trait Source {
    /// Address of the first element of a row.
    fn row(&self, row: u32) -> Global;
}

impl Source for Rows {
    #[inline(always)]
    fn row(&self, row: u32) -> Global {
        self.row(row)
    }
}

/// Starts copying a span into a tile, each row filled up with zeros to a multiple of 32 bytes.
#[inline(always)]
pub fn copy_tile(tile: SharedTile, source: &impl Source, span: Span, hint: CacheHint, loader: Loader) {
    let Span { first, end, rows, row_bytes } = span;
    let chunks = row_bytes.div_ceil(2 * CHUNK) * 2;
    loader.share(rows * chunks, |index| {
        let (row, chunk) = (index / chunks, index % chunks);
        let valid = first + row < end && (row_bytes == chunks * CHUNK || chunk * CHUNK < row_bytes);
        // What is not read must still be an address of the tensor.
        let from = if valid { source.row(first + row).at(i64::from(chunk * CHUNK)) } else { source.row(0) };
        copy_chunk(tile.chunk(row, chunk), from, valid, hint);
    });
}

/// Loads a span into a tile, `load_bytes` (2, 4, 8 or 16) at a time.
#[inline(always)]
pub fn load_tile(tile: SharedTile, source: &impl Source, span: Span, load_bytes: u32, loader: Loader) {
    let Span { first, end, rows, row_bytes } = span;
    let loads = row_bytes / load_bytes;
    loader.share(rows * loads, |index| {
        let (row, byte) = (index / loads, index % loads * load_bytes);
        let to = tile.byte(row, byte);
        let valid = first + row < end;
        let from = source.row(if valid { first + row } else { 0 }).at(i64::from(byte));
        match load_bytes {
            2 => to.store_u16(if valid { from.load_u16() } else { 0 }),
            4 => to.store_u32(if valid { from.load_u32() } else { 0 }),
            8 => to.store_pair(if valid { from.load_pair() } else { [0; 2] }),
            _ => to.store_chunk(if valid { from.load_chunk() } else { [0; 4] }),
        }
    });
}

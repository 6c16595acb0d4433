//! Where a query tile's output goes.

use spec::AttentionArgs;

use super::{Coordinates, Rows, Source};
use crate::gpu::Global;

/// Rows that a tile's output goes to.
pub trait Target: Source {
    /// How far the LSE of a row is from that of the tile's first row.
    fn lse_index(&self, row: u32) -> u32;
}

impl Target for Rows {
    #[inline(always)]
    fn lse_index(&self, row: u32) -> u32 {
        row
    }
}

/// Where the rows of a query tile and their LSE go; rows of one head, unless [packed](super::PackedRows).
#[derive(Clone, Copy, Debug)]
pub struct Destination<R = Rows> {
    /// O from the tile's first row on.
    pub o: R,
    /// LSE of that row; null if it is not wanted.
    pub lse: Global,
    /// Rows of the tile that exist.
    pub rows: u32,
}

impl Destination {
    /// That of the tile at these coordinates, of which so many rows exist, of elements of so many bytes.
    #[inline(always)]
    pub fn of(tile: Coordinates, rows: u32, args: &AttentionArgs, element_bytes: u32) -> Self {
        let Coordinates { batch, head, first_row } = tile;
        let row = i64::from(batch * args.heads_q.value + head) * i64::from(args.seqlen_q) + i64::from(first_row);
        let lse = Global::new(args.lse);
        Self {
            o: Rows::of(args.o, &args.o_strides, batch, head, element_bytes).from(first_row),
            lse: if lse.is_null() { lse } else { lse.at(row * 4) },
            rows,
        }
    }
}

impl<R: Target> Destination<R> {
    /// Writes the LSE of a row of the tile if it is wanted and the row exists.
    #[inline(always)]
    pub fn store_lse(&self, row: u32, lse: f32) {
        if !self.lse.is_null() && row < self.rows {
            self.lse.at(i64::from(self.o.lse_index(row)) * 4).store_f32(lse);
        }
    }
}

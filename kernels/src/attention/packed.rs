//! Query heads that share K and V, as rows of one tile: K and V are read once for all of them.

use spec::{AttentionArgs, Divisor};

use super::{Destination, Mask, Rows, Source, Target, Work};
use crate::gpu::Global;

/// A tile of packed rows. Of all rows that share a head of K and V, number `r` is query row `r / n` of the `r % n`-th of the `n`
/// query heads that share it.
#[derive(Clone, Copy, Debug)]
pub struct PackedTile {
    /// K and V, and what is seen by the query rows of which the tile has some heads.
    pub work: Work,
    /// First packed row.
    pub first: u32,
    /// Packed rows of the tile that exist.
    pub rows: u32,
    heads: Divisor,
}

impl PackedTile {
    /// The tile of number `block`, of `tile_q` packed rows, on elements of so many bytes.
    #[inline(always)]
    pub fn of(block: u32, args: &AttentionArgs, tile_q: u32, element_bytes: u32) -> Self {
        let (tile, head_kv_total) = args.groups.split(block);
        let heads = args.heads_per_kv;
        let (batch, head) = args.heads_q.divide(head_kv_total * heads.value);
        let (head_kv, _) = heads.divide(head);
        let first = args.walk.tile(tile, args.tiles_q) * tile_q;
        let rows = (args.seqlen_q * heads.value - first).min(tile_q);
        let (first_row, _) = heads.divide(first);
        let (last_row, _) = heads.divide(first + rows - 1);
        let work = Work {
            batch,
            head,
            head_kv,
            first_row,
            rows: last_row + 1 - first_row,
            q: Rows::of(args.q, &args.q_strides, batch, head, element_bytes),
            k: Rows::of(args.k, &args.k_strides, batch, head_kv, element_bytes),
            v: Rows::of(args.v, &args.v_strides, batch, head_kv, element_bytes),
            mask: Mask::new(args),
        };
        Self { work, first, rows, heads }
    }

    /// The query row that a row of the tile is of.
    #[inline(always)]
    pub fn query_row(&self, row: u32) -> u32 {
        self.heads.divide(self.first + row).0
    }

    /// Packed rows of Q, on elements of so many bytes.
    #[inline(always)]
    pub fn q(&self, args: &AttentionArgs, element_bytes: u32) -> PackedRows {
        let head_stride = args.q_strides.head * i64::from(element_bytes);
        PackedRows { rows: self.work.q, head_stride, first: self.first, heads: self.heads, seqlen_q: args.seqlen_q }
    }

    /// Where the tile's output goes, on elements of so many bytes.
    #[inline(always)]
    pub fn destination(&self, args: &AttentionArgs, element_bytes: u32) -> Destination<PackedRows> {
        let Work { batch, head, .. } = self.work;
        let first_head = i64::from(batch * args.heads_q.value + head);
        let lse = Global::new(args.lse);
        let rows = Rows::of(args.o, &args.o_strides, batch, head, element_bytes);
        let head_stride = args.o_strides.head * i64::from(element_bytes);
        Destination {
            o: PackedRows { rows, head_stride, first: self.first, heads: self.heads, seqlen_q: args.seqlen_q },
            lse: if lse.is_null() { lse } else { lse.at(first_head * i64::from(args.seqlen_q) * 4) },
            rows: self.rows,
        }
    }
}

/// Packed rows of a tensor, from the first of a tile on.
#[derive(Clone, Copy, Debug)]
pub struct PackedRows {
    /// Rows of the first head.
    rows: Rows,
    /// Bytes from one head to the next.
    head_stride: i64,
    /// First packed row of the tile.
    first: u32,
    heads: Divisor,
    seqlen_q: u32,
}

impl Source for PackedRows {
    #[inline(always)]
    fn row(&self, row: u32) -> Global {
        let (row, head) = self.heads.divide(self.first + row);
        self.rows.row(row).at(i64::from(head) * self.head_stride)
    }
}

impl Target for PackedRows {
    /// From that of the first head's first row.
    #[inline(always)]
    fn lse_index(&self, row: u32) -> u32 {
        let (row, head) = self.heads.divide(self.first + row);
        head * self.seqlen_q + row
    }
}

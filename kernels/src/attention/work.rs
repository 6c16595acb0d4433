//! What a block works on.

use spec::{AttentionArgs, Strides};

use super::Mask;
use crate::gpu::{Global, block_index};

/// The rows of one head of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    start: Global,
    stride: i64,
}

impl Rows {
    #[inline(always)]
    pub(super) fn of(tensor: u64, strides: &Strides, batch: u32, head: u32, element_bytes: u32) -> Self {
        let element = i64::from(element_bytes);
        let offset = i64::from(batch) * strides.batch + i64::from(head) * strides.head;
        Self { start: Global::new(tensor).at(offset * element), stride: strides.seq * element }
    }

    /// The rows from this one on.
    #[inline(always)]
    pub fn from(self, row: u32) -> Self {
        Self { start: self.row(row), ..self }
    }

    /// The same rows so many bytes further on.
    #[inline(always)]
    pub fn at(self, bytes: i64) -> Self {
        Self { start: self.start.at(bytes), ..self }
    }

    /// Address of the first element of a row.
    #[inline(always)]
    pub fn row(&self, row: u32) -> Global {
        self.start.at(i64::from(row) * self.stride)
    }
}

/// Which query tile.
#[derive(Clone, Copy, Debug)]
pub struct Coordinates {
    /// Batch entry.
    pub batch: u32,
    /// Query head.
    pub head: u32,
    /// First query row.
    pub first_row: u32,
}

impl Coordinates {
    /// Query rows of a tile of `tile_q` rows that exist.
    #[inline(always)]
    pub fn rows(&self, args: &AttentionArgs, tile_q: u32) -> u32 {
        (args.seqlen_q - self.first_row).min(tile_q)
    }

    /// As they are kept in memory.
    #[inline(always)]
    pub fn to_words(self) -> [u32; 4] {
        [self.batch, self.head, self.first_row, 0]
    }

    /// From what [`Coordinates::to_words`] gave.
    #[inline(always)]
    pub fn from_words([batch, head, first_row, _]: [u32; 4]) -> Self {
        Self { batch, head, first_row }
    }
}

/// A query tile of one head.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Batch entry.
    pub batch: u32,
    /// Query head.
    pub head: u32,
    /// Key/value head.
    pub head_kv: u32,
    /// First query row.
    pub first_row: u32,
    /// Query rows of the tile that exist.
    pub rows: u32,
    /// Rows of the head's Q.
    pub q: Rows,
    /// Rows of its K.
    pub k: Rows,
    /// Rows of its V.
    pub v: Rows,
    /// What each row sees.
    pub mask: Mask,
}

impl Work {
    /// The work of this block for query tiles of `tile_q` rows.
    #[inline(always)]
    pub fn of_this_block(args: &AttentionArgs, tile_q: u32, element_bytes: u32) -> Self {
        Self::of(block_index(), args, tile_q, element_bytes)
    }

    /// The work of number `block`, on elements of so many bytes.
    #[inline(always)]
    pub fn of(block: u32, args: &AttentionArgs, tile_q: u32, element_bytes: u32) -> Self {
        let (tile, head_total) = args.groups.split(block);
        let tile = args.walk.tile(tile, args.tiles_q);
        let (batch, head) = args.heads_q.divide(head_total);
        let (head_kv, _) = args.heads_per_kv.divide(head);
        let at = Coordinates { batch, head, first_row: tile * tile_q };
        Self {
            batch,
            head,
            head_kv,
            first_row: at.first_row,
            rows: at.rows(args, tile_q),
            q: Rows::of(args.q, &args.q_strides, batch, head, element_bytes),
            k: Rows::of(args.k, &args.k_strides, batch, head_kv, element_bytes),
            v: Rows::of(args.v, &args.v_strides, batch, head_kv, element_bytes),
            mask: Mask::new(args),
        }
    }

    /// Where the tile is.
    #[inline(always)]
    pub fn coordinates(&self) -> Coordinates {
        Coordinates { batch: self.batch, head: self.head, first_row: self.first_row }
    }

    /// Keys that some row of the tile sees: `0..keys`.
    #[inline(always)]
    pub fn keys(&self) -> u32 {
        self.mask.visible(self.first_row + self.rows - 1)
    }
}

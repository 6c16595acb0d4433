//! Merging the partial results of groups that saw different keys.

use spec::layout::PartialLayout;

use super::{Destination, Features, Loader, Plain, RowState, Scale, Target, add_weighted};
use crate::gpu::{ClusterShared, Half, Shared, exp2, fma};
use crate::tile::Lane;

/// The partial results of several groups for the same rows, in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Partials {
    start: Shared,
    layout: PartialLayout,
    /// Bytes from one group's to the next's.
    stride: u32,
    rows: u32,
}

impl Partials {
    /// The partial results of so many rows, each `stride` bytes after the one before.
    #[inline(always)]
    pub fn new(start: Shared, layout: PartialLayout, stride: u32, rows: u32) -> Self {
        Self { start, layout, stride, rows }
    }

    #[inline(always)]
    fn output(&self, group: u32, row: u32, column: u32) -> u32 {
        group * self.stride + row * self.layout.pitch + column * 4
    }

    #[inline(always)]
    fn state(&self, group: u32, row: u32) -> u32 {
        group * self.stride + self.layout.states + row * 8
    }

    /// Keeps a group's fragment of 16 rows from `first_row` on.
    #[inline(always)]
    pub fn store<const N: usize>(
        &self,
        output: &[[f32; 4]; N],
        states: [RowState; 2],
        group: u32,
        first_row: u32,
        lane: Lane,
    ) {
        let mut half = 0;
        while half < 2 {
            let row = first_row + half as u32 * 8 + lane.row();
            let mut n = 0;
            while n < N {
                let pair = [output[n][2 * half].to_bits(), output[n][2 * half + 1].to_bits()];
                self.start.at(self.output(group, row, n as u32 * 8 + lane.column())).store_pair(pair);
                n += 1;
            }
            if lane.leads_row() {
                self.start.at(self.state(group, row)).store_pair(states[half].to_bits());
            }
            half += 1;
        }
    }

    /// Keeps a group's fragment of 16 rows in the cluster: its rows are shared out evenly over the blocks, and each
    /// block's rows go to where these partial results lie there.
    #[inline(always)]
    pub fn store_to_cluster<const N: usize>(
        &self,
        output: &[[f32; 4]; N],
        states: [RowState; 2],
        group: u32,
        first_row: u32,
        lane: Lane,
    ) {
        let mut half = 0;
        while half < 2 {
            let row = first_row + half as u32 * 8 + lane.row();
            let (rank, row) = (row / self.rows, row % self.rows);
            let start = ClusterShared::of(rank, self.start);
            let mut n = 0;
            while n < N {
                let pair = [output[n][2 * half].to_bits(), output[n][2 * half + 1].to_bits()];
                start.at(self.output(group, row, n as u32 * 8 + lane.column())).store_pair(pair);
                n += 1;
            }
            if lane.leads_row() {
                start.at(self.state(group, row)).store_pair(states[half].to_bits());
            }
            half += 1;
        }
    }

    #[inline(always)]
    fn load_state(&self, group: u32, row: u32) -> RowState {
        let address = self.start.at(self.state(group, row));
        RowState { max: address.load_f32(), sum: address.at(4).load_f32() }
    }
}

/// Adds up what `$groups` have of a row, 8 columns in `$chunk`: names the row's maximum and sum, the sums of the outputs relative to that
/// maximum in two halves, and 1 if the second half comes first, else 0.
///
/// A macro, since a function in its place is optimised otherwise: every recorded kernel that merges would become another one.
macro_rules! gather {
    ($partials:ident, $groups:ident, $row:ident, $chunk:ident, $scale:ident, $features:ty => $total:ident, $sums:ident, $swapped:ident) => {
        let mut $total = RowState::EMPTY;
        let mut group = 0;
        while group < $groups {
            $total.max = $total.max.max($partials.load_state(group, $row).max);
            group += 1;
        }
        // Lanes of every second four chunks read their second half first: eight lanes then read from different banks.
        let $swapped = $chunk / 4 % 2;
        let base = if $total.max == f32::NEG_INFINITY { 0.0 } else { $total.max * $scale.factor };
        let mut $sums = [[0.0; 4]; 2];
        let mut group = 0;
        while group < $groups {
            let state = $partials.load_state(group, $row);
            let weight = exp2(state.max * $scale.factor - base);
            $total.sum = fma(weight, state.sum, $total.sum);
            let mut half = 0;
            while half < 2 {
                let column = $chunk * 8 + (half as u32 ^ $swapped) * 4;
                let values = $partials.start.at($partials.output(group, $row, column)).load_chunk();
                let mut i = 0;
                while i < 4 {
                    $sums[half][i] = add_weighted::<$features>($sums[half][i], weight, f32::from_bits(values[i]));
                    i += 1;
                }
                half += 1;
            }
            group += 1;
        }
    };
}

/// Merges `groups` partial results of the tile's rows from `first_row` on, normalises, and writes O in chunks of 16 bytes,
/// and the LSE.
#[inline(always)]
pub fn merge<E: Half, F: Features>(
    partials: &Partials,
    groups: u32,
    first_row: u32,
    head_dim_v: u32,
    to: &Destination<impl Target>,
    scale: &Scale,
    loader: Loader,
) {
    let chunks = head_dim_v / 8;
    loader.share(partials.rows * chunks, |index| {
        let (row, chunk) = (index / chunks, index % chunks);
        gather!(partials, groups, row, chunk, scale, F => total, sums, swapped);
        let tile_row = first_row + row;
        if tile_row < to.rows {
            let inverse = total.normaliser();
            let [[a, b], [c, d]] =
                sums.map(|[w, x, y, z]| [E::pack(w * inverse, x * inverse), E::pack(y * inverse, z * inverse)]);
            let packed = if swapped == 1 { [c, d, a, b] } else { [a, b, c, d] };
            to.o.row(tile_row).at(i64::from(chunk * 16)).store_chunk(packed);
        }
        if chunk == 0 {
            to.store_lse(tile_row, total.lse(scale));
        }
    });
}

/// Merges `groups` partial results of a block's tile, and leaves the block's own to its cluster: rows are shared out evenly over the
/// blocks, and each block's rows go to where `inbox` lies there, as the share of the block of this `rank`.
#[inline(always)]
pub fn merge_for_cluster(
    partials: &Partials,
    groups: u32,
    inbox: &Partials,
    rank: u32,
    head_dim_v: u32,
    scale: &Scale,
    loader: Loader,
) {
    let chunks = head_dim_v / 8;
    loader.share(partials.rows * chunks, |index| {
        let (row, chunk) = (index / chunks, index % chunks);
        gather!(partials, groups, row, chunk, scale, Plain => total, sums, swapped);
        let (owner, row) = (row / inbox.rows, row % inbox.rows);
        let start = ClusterShared::of(owner, inbox.start);
        let mut half = 0;
        while half < 2 {
            let to = start.at(inbox.output(rank, row, chunk * 8 + (half as u32 ^ swapped) * 4));
            let [a, b, c, d] = sums[half].map(f32::to_bits);
            to.store_pair([a, b]);
            to.at(8).store_pair([c, d]);
            half += 1;
        }
        if chunk == 0 {
            start.at(inbox.state(rank, row)).store_pair(total.to_bits());
        }
    });
}

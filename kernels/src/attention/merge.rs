//! Merging the partial results of groups that saw different keys.

use spec::layout::MmaLayout;

use super::{Loader, RowState, Scale, Work};
use crate::gpu::{Element, Shared, exp2, fma};

/// The partial results of a block's groups in shared memory: per group `tile_q` rows of unnormalised fp32 outputs, then
/// each row's maximum and sum.
#[derive(Clone, Copy, Debug)]
pub struct Partials {
    start: Shared,
    layout: MmaLayout,
    tile_q: u32,
}

impl Partials {
    /// The partial results at the start of a block's shared memory.
    #[inline(always)]
    pub fn new(start: Shared, layout: MmaLayout, tile_q: u32) -> Self {
        Self { start, layout, tile_q }
    }

    /// Address of an output.
    #[inline(always)]
    pub fn output(&self, group: u32, row: u32, column: u32) -> Shared {
        self.start.at(group * self.layout.partial + row * self.layout.partial_pitch + column * 4)
    }

    #[inline(always)]
    fn state_address(&self, group: u32, row: u32) -> Shared {
        self.start.at(group * self.layout.partial + self.tile_q * self.layout.partial_pitch + row * 8)
    }

    /// Keeps a row's maximum and sum.
    #[inline(always)]
    pub fn store_state(&self, group: u32, row: u32, state: RowState) {
        self.state_address(group, row).store_pair([state.max.to_bits(), state.sum.to_bits()]);
    }

    #[inline(always)]
    fn load_state(&self, group: u32, row: u32) -> RowState {
        let address = self.state_address(group, row);
        RowState { max: address.load_f32(), sum: address.at(4).load_f32() }
    }
}

/// Merges `groups` partial results, normalises, and writes O in chunks of 16 bytes, and the LSE.
#[inline(always)]
pub fn merge<E: Element>(
    partials: &Partials,
    groups: u32,
    head_dim_v: u32,
    work: &Work,
    scale: &Scale,
    loader: Loader,
) {
    let chunks = head_dim_v / 8;
    loader.share(partials.tile_q * chunks, |index| {
        let (row, chunk) = (index / chunks, index % chunks);
        let mut total = RowState::EMPTY;
        let mut group = 0;
        while group < groups {
            total.max = total.max.max(partials.load_state(group, row).max);
            group += 1;
        }
        let base = if total.max == f32::NEG_INFINITY { 0.0 } else { total.max * scale.factor };
        let mut sum = [0.0; 8];
        let mut group = 0;
        while group < groups {
            let state = partials.load_state(group, row);
            let weight = exp2(state.max * scale.factor - base);
            total.sum = fma(weight, state.sum, total.sum);
            let mut half = 0;
            while half < 2 {
                let values = partials.output(group, row, chunk * 8 + half * 4).load_chunk();
                let mut i = 0;
                while i < 4 {
                    let at = half as usize * 4 + i;
                    sum[at] = fma(weight, f32::from_bits(values[i]), sum[at]);
                    i += 1;
                }
                half += 1;
            }
            group += 1;
        }
        if row < work.rows {
            let inverse = total.normaliser();
            let packed = [0, 2, 4, 6].map(|i| E::pack(sum[i] * inverse, sum[i + 1] * inverse));
            work.o.row(work.first_row + row).at(i64::from(chunk * 16)).store_chunk(packed);
        }
        if chunk == 0 {
            work.store_lse(row, total.lse(scale));
        }
    });
}

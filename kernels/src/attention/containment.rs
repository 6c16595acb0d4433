//! Keeping NaN and infinity in V to the rows that see their keys.
//!
//! Tiles are multiplied whole, and zero times NaN is NaN, so that one such value would reach all rows of a tile. Most
//! tensors hold none: a block first works without any care, and only if some of its output is not finite does it work once
//! more, with zeros in the place of these values ([`make_finite`]). Then each row gets those that it sees ([`add_seen`]).

use super::{Features, Loader};
use crate::gpu::{Element, Shared, any_lane, fma, sync_block};
use crate::tile::SharedTile;

/// Whether all of these are finite.
#[inline(always)]
pub fn all_finite<const N: usize>(values: &[[f32; N]]) -> bool {
    // Without a way out before the end, since lanes would part there.
    values.as_flattened().iter().fold(true, |finite, value| finite & value.is_finite())
}

/// Makes zeros of the elements of a tile of `rows` x `columns` that are not finite.
#[inline(always)]
pub fn make_finite<E: Element>(tile: SharedTile, rows: u32, columns: u32, loader: Loader) {
    let pairs = columns / 2;
    let mut index = loader.thread;
    while index < rows * pairs {
        let at = tile.byte(index / pairs, index % pairs * (2 * E::BYTES));
        E::store_pair_shared(at, E::load_pair(at).map(|x| if x.is_finite() { x } else { 0.0 }));
        index += loader.threads;
    }
}

/// `sum`, and a value that the row sees if it is not finite. The probability does not matter, as it is above zero.
#[inline(always)]
pub fn add_seen(sum: f32, value: f32, seen: bool) -> f32 {
    if seen && !value.is_finite() { sum + value } else { sum }
}

/// `sum + weight * value` with a weight above zero, if ever so small: where there are features, infinity stays.
#[inline(always)]
pub fn add_weighted<F: Features>(sum: f32, weight: f32, value: f32) -> f32 {
    if F::ON && value.is_infinite() { sum + value } else { fma(weight, value, sum) }
}

/// Whether `flag` holds for any thread of the block; the same answer for all. It overwrites a word of each of its warps at
/// `words`.
#[inline(always)]
pub fn any_thread(flag: bool, words: Shared, Loader { thread, threads }: Loader) -> bool {
    let flag = any_lane(flag);
    // What lies there is no longer needed once all are here.
    sync_block();
    if thread.is_multiple_of(32) {
        words.at(thread / 32 * 4).store_u32(flag.into());
    }
    sync_block();
    let mut any = 0;
    let mut warp = 0;
    while warp < threads / 32 {
        any |= words.at(warp * 4).load_u32();
        warp += 1;
    }
    // And what is put there next must not overtake this.
    sync_block();
    any != 0
}

//! Sums put aside: what tensor cores have added up of one-byte elements, kept in fp32 in shared memory.
//!
//! Their sums keep 13 bits of fraction and cut each product off to that, so that beside a large sum small products vanish.

use spec::layout::CHUNK;

use crate::attention::{RowState, Scale};
use crate::gpu::{Shared, fma};
use crate::tile::Lane;

/// From one chunk of a lane's to the next: those of a warp lie side by side.
const CHUNKS: u32 = 32 * CHUNK;

/// Leaves a fragment of two rows in these states at `to`, which is the warp's own; each lane finds there what it wrote.
#[inline(always)]
pub(super) fn put<const N: usize>(sums: &[[f32; 4]; N], states: &[RowState; 2], to: Shared, lane: Lane) {
    let mut n = 0;
    while n < N {
        chunk(to, n, lane).store_chunk(sums[n].map(f32::to_bits));
        n += 1;
    }
    maxima::<N>(to, lane).store_pair([states[0].max.to_bits(), states[1].max.to_bits()]);
}

/// Adds to a fragment of two rows that are in these states by now what was put aside.
#[inline(always)]
pub(super) fn add<const N: usize>(
    sums: &mut [[f32; 4]; N],
    states: &[RowState; 2],
    scale: &Scale,
    from: Shared,
    lane: Lane,
) {
    let before = maxima::<N>(from, lane);
    let factors = [0, 1].map(|half: usize| states[half].correction(before.at(half as u32 * 4).load_f32(), scale));
    let mut n = 0;
    while n < N {
        let aside = chunk(from, n, lane).load_chunk().map(f32::from_bits);
        let mut e = 0;
        while e < 4 {
            sums[n][e] = fma(aside[e], factors[e / 2], sums[n][e]);
            e += 1;
        }
        n += 1;
    }
}

#[inline(always)]
fn chunk(warp: Shared, n: usize, lane: Lane) -> Shared {
    warp.at(n as u32 * CHUNKS + lane.index() * CHUNK)
}

/// Where a lane's two maxima are.
#[inline(always)]
fn maxima<const N: usize>(warp: Shared, lane: Lane) -> Shared {
    warp.at(N as u32 * CHUNKS + lane.index() * 8)
}

//! `ldmatrix` and `stmatrix` (sm_90a).

use super::{Args, probe};
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
use crate::gpu::store_matrices;
use crate::gpu::{Shared, load_matrices, load_matrices_transposed, sync_warp, thread_index};

/// Fills shared memory with four matrices, 16 bytes from each lane, and loads them with the rows in another order.
#[inline(always)]
fn load(args: &Args, load: impl Fn(Shared) -> [u32; 4]) {
    let lane = thread_index();
    let row = |lane: u32| Shared::base().at(lane * 16);
    row(lane).store_chunk(args.input(lane * 4).load_chunk());
    sync_warp();
    args.output(lane * 4).store_chunk(load(row((lane * 5 + 3) % 32)));
}

probe!(probe_load_matrices, |args| { load(&args, load_matrices) });
probe!(probe_load_matrices_transposed, |args| { load(&args, load_matrices_transposed) });

// The reverse: four fragments from each lane to rows in another order.
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
probe!(probe_store_matrices, |args| {
    let lane = thread_index();
    store_matrices(Shared::base().at((lane * 5 + 3) % 32 * 16), args.input(lane * 4).load_chunk());
    sync_warp();
    args.output(lane * 4).store_chunk(Shared::base().at(lane * 16).load_chunk());
});

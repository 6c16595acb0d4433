//! Who a thread is.

use super::probe;
use crate::gpu::{block_index, grid_blocks, thread_index};

probe!(probe_indices, |args| {
    let word = block_index() * 64 + thread_index();
    args.output(3 * word).store_u32(block_index());
    args.output(3 * word + 1).store_u32(thread_index());
    args.output(3 * word + 2).store_u32(grid_blocks());
});

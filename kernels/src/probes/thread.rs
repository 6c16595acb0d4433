//! Who a thread is.

use super::probe;
use crate::gpu::{block_index, grid_blocks, opaque, thread_index};

probe!(probe_indices, |args| {
    let word = block_index() * 64 + thread_index();
    args.output(3 * word).store_u32(block_index());
    args.output(3 * word + 1).store_u32(thread_index());
    args.output(3 * word + 2).store_u32(grid_blocks());
});

probe!(probe_opaque, |args| {
    let word = block_index() * 32 + thread_index();
    args.output(word).store_u32(opaque(args.input(word).load_u32()));
});

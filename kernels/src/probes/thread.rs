//! Who a thread is.

use super::probe;
use crate::gpu::{block_index, thread_index};

probe!(probe_indices, |args| {
    let word = block_index() * 64 + thread_index();
    args.output(2 * word).store_u32(block_index());
    args.output(2 * word + 1).store_u32(thread_index());
});

//! Overlap with other grids of the stream (sm_90).

use super::probe;
use crate::gpu::{await_earlier_grids, let_later_grids_start, thread_index};

probe!(probe_overlapping_grids, |args| {
    let thread = thread_index();
    let_later_grids_start();
    await_earlier_grids();
    args.output(thread).store_u32(args.input(thread).load_u32());
});

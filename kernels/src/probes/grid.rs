//! Overlap with other grids of the stream (sm_90).

use super::probe;
use crate::gpu::{overlap_grids, thread_index};

probe!(probe_overlapping_grids, |args| {
    let thread = thread_index();
    overlap_grids();
    args.output(thread).store_u32(args.input(thread).load_u32());
});

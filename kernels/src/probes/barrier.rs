//! Barriers: values pass through shared memory again and again, and each step needs the one before.

use super::{Args, probe};
use crate::gpu::{Shared, sync_block, sync_group, sync_warp, thread_index};

/// Each of `threads` threads adds its neighbour's value to its own, `rounds` times, with a barrier after each step.
#[inline(always)]
fn pass_on(args: &Args, threads: u32, rounds: u32, barrier: impl Fn()) {
    let thread = thread_index();
    let (group, member) = (thread / threads * threads, thread % threads);
    let place = |member: u32| Shared::base().at((group + member % threads) * 4);
    let mut value = args.input(thread).load_u32();
    let mut round = 0;
    while round < rounds {
        place(member).store_u32(value);
        barrier();
        value = value.wrapping_add(place(member + 1).load_u32());
        barrier();
        round += 1;
    }
    args.output(thread).store_u32(value);
}

probe!(probe_sync_block, |args| { pass_on(&args, 256, 90, sync_block) });
probe!(probe_sync_warp, |args| { pass_on(&args, 32, 90, sync_warp) });

// Barriers in both arms of a branch, passed a different number of times: a compiler must not merge them.
probe!(probe_sync_group, |args| {
    if thread_index() < 128 {
        pass_on(&args, 128, 90, || sync_group(1, 128));
    } else {
        pass_on(&args, 128, 60, || sync_group(2, 128));
    }
});

//! `cp.async`.

use super::{Args, probe};
use crate::gpu::{CacheHint, Shared, commit, copy_chunk, sync_block, thread_index, wait};

/// Each thread copies 16 bytes, or none and gets zeros; another thread reads them after a barrier. The input holds the
/// bytes, then for each thread whether they are wanted.
#[inline(always)]
fn copy(args: &Args, hint: CacheHint) {
    let thread = thread_index();
    let place = |thread: u32| Shared::base().at(thread % 64 * 16);
    let valid = args.input(256 + thread).load_u32() == 1;
    place(thread).store_chunk([u32::MAX; 4]);
    copy_chunk(place(thread), args.input(thread * 4), valid, hint);
    commit();
    wait(0);
    sync_block();
    args.output(thread * 4).store_chunk(place(thread + 37).load_chunk());
}

probe!(probe_copy_chunk, |args| { copy(&args, CacheHint::None) });
probe!(probe_copy_chunk_evict_last, |args| { copy(&args, CacheHint::EvictLast) });
probe!(probe_copy_chunk_fetch_128, |args| { copy(&args, CacheHint::Fetch128) });

/// A ring of stages, as main loops have it: in each step the oldest of `STAGES` copies is waited for, read and replaced.
#[inline(always)]
fn ring<const STAGES: u32>(args: &Args) {
    let thread = thread_index();
    let place = |step: u32| Shared::base().at((step % STAGES * 32 + thread) * 16);
    let start = |step: u32| {
        if step < 16 {
            copy_chunk(place(step), args.input((step * 32 + thread) * 4), true, CacheHint::None);
        }
        // An empty group keeps the count right at the end.
        commit();
    };
    let mut step = 0;
    while step < STAGES {
        start(step);
        step += 1;
    }
    let mut step = 0;
    while step < 16 {
        wait(STAGES - 1);
        args.output((step * 32 + thread) * 4).store_chunk(place(step).load_chunk());
        start(step + STAGES);
        step += 1;
    }
}

probe!(probe_wait_1, |args| { ring::<2>(&args) });
probe!(probe_wait_2, |args| { ring::<3>(&args) });
probe!(probe_wait_3, |args| { ring::<4>(&args) });
probe!(probe_wait_4, |args| { ring::<5>(&args) });
probe!(probe_wait_5, |args| { ring::<6>(&args) });
probe!(probe_wait_6, |args| { ring::<7>(&args) });

//! Exchange among lanes.

use super::probe;
use crate::gpu::{any_lane, shuffle_xor, thread_index, uniform};

probe!(probe_shuffle_xor, |args| {
    let thread = thread_index();
    let value = args.load_f32(thread);
    // All distances that kernels use, and one that is no power of two.
    args.output(thread).store_f32(shuffle_xor(value, 1));
    args.output(64 + thread).store_f32(shuffle_xor(value, 2));
    args.output(128 + thread).store_f32(shuffle_xor(value, 4));
    args.output(192 + thread).store_f32(shuffle_xor(value, 8));
    args.output(256 + thread).store_f32(shuffle_xor(value, 16));
    args.output(320 + thread).store_f32(shuffle_xor(value, 21));
});

probe!(probe_any_lane, |args| {
    let thread = thread_index();
    let mut pattern = 0;
    while pattern < 34 {
        let predicate = args.input(pattern).load_u32() >> (thread % 32) & 1 == 1;
        args.output(pattern * 64 + thread).store_u32(u32::from(any_lane(predicate && thread < 32)));
        pattern += 1;
    }
});

probe!(probe_uniform, |args| {
    let thread = thread_index();
    args.output(thread).store_u32(uniform(args.input(thread).load_u32()));
});

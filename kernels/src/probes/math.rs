//! Arithmetic.

use super::{Args, probe};
use crate::gpu::{divide, exp2, exp2_polynomial, fma, log2, pick_bytes, thread_index};

/// Each thread replaces one fp32 by a function of it.
#[inline(always)]
fn map(args: &Args, function: impl Fn(f32) -> f32) {
    let thread = thread_index();
    args.output(thread).store_f32(function(args.load_f32(thread)));
}

probe!(probe_exp2, |args| { map(&args, exp2) });
probe!(probe_exp2_polynomial, |args| { map(&args, exp2_polynomial) });
probe!(probe_log2, |args| { map(&args, log2) });

probe!(probe_fma, |args| {
    let thread = thread_index();
    let [a, b, c] = [0, 1, 2].map(|i| args.load_f32(3 * thread + i));
    args.output(thread).store_f32(fma(a, b, c));
});

probe!(probe_pick_bytes, |args| {
    let thread = thread_index();
    let [low, high] = args.input(2 * thread).load_pair();
    args.output(2 * thread).store_u32(pick_bytes::<0x6420>(low, high));
    args.output(2 * thread + 1).store_u32(pick_bytes::<0x1753>(low, high));
});

probe!(probe_divide, |args| {
    let thread = thread_index();
    let [a, b] = args.input(2 * thread).load_pair();
    let (quotient, rest) = divide(a, b);
    args.output(2 * thread).store_u32(quotient);
    args.output(2 * thread + 1).store_u32(rest);
});

//! Global and shared memory.

use super::probe;
use crate::gpu::{Global, Shared, thread_index};

probe!(probe_load_u16, |args| {
    let thread = thread_index();
    let value = Global::new(args.input).at(i64::from(thread) * 2).load_u16();
    args.output(thread).store_u32(u32::from(value));
});

probe!(probe_load_u32, |args| {
    let thread = thread_index();
    // Backwards: offsets may be negative.
    let last = args.input(63);
    args.output(thread).store_u32(last.at(i64::from(thread) * -4).load_u32());
});

probe!(probe_load_pair, |args| {
    let thread = thread_index();
    let [a, b] = args.input(2 * thread).load_pair();
    args.output(2 * thread).store_u32(b);
    args.output(2 * thread + 1).store_u32(a);
});

probe!(probe_load_chunk, |args| {
    let thread = thread_index();
    let [a, b, c, d] = args.input(4 * thread).load_chunk();
    let mut i = 0;
    while i < 4 {
        args.output(4 * thread + i).store_u32([d, c, b, a][i as usize]);
        i += 1;
    }
});

probe!(probe_store_u16, |args| {
    let thread = thread_index();
    let value = args.input(thread).load_u32();
    let to = args.output(thread);
    to.store_u16((value >> 16) as u16);
    to.at(2).store_u16(value as u16);
});

probe!(probe_store_pair, |args| {
    let thread = thread_index();
    let [a, b] = args.input(2 * thread).load_pair();
    args.output(2 * thread).store_pair([b, a]);
});

probe!(probe_store_chunk, |args| {
    let thread = thread_index();
    let value = args.input(thread).load_u32();
    args.output(4 * thread).store_chunk([value, value + 1, value + 2, value + 3]);
});

probe!(probe_store_chunk_if, |args| {
    let thread = thread_index();
    let chunk = args.input(4 * thread).load_chunk();
    let (to, even) = (args.output(4 * thread), chunk[0].is_multiple_of(2));
    to.store_chunk_if(even, chunk);
    to.store_chunk_if(!even, [0; 4]);
});

probe!(probe_store_f32, |args| {
    let thread = thread_index();
    args.output(thread).store_f32(args.load_f32(thread));
});

probe!(probe_null, |args| {
    if thread_index() == 0 {
        args.output(0).store_u32(u32::from(Global::new(0).is_null()));
        args.output(1).store_u32(u32::from(Global::new(args.input).is_null()));
    }
});

/// Each thread's 16 bytes of shared memory.
#[inline(always)]
fn own() -> Shared {
    Shared::base().at(thread_index() * 16)
}

probe!(probe_shared_words, |args| {
    let thread = thread_index();
    own().store_u32(args.input(thread).load_u32());
    own().at(4).store_f32(args.load_f32(thread));
    own().at(8).store_u16(thread as u16);
    own().at(10).store_u16(0xbeef);
    args.output(3 * thread).store_f32(own().load_f32());
    args.output(3 * thread + 1).store_u32(own().at(4).load_u32());
    args.output(3 * thread + 2).store_u32(own().at(8).load_u32());
});

probe!(probe_shared_pair, |args| {
    let thread = thread_index();
    own().at(8).store_pair(args.input(2 * thread).load_pair());
    args.output(2 * thread).store_u32(own().at(8).load_u32());
    args.output(2 * thread + 1).store_u32(own().at(12).load_u32());
});

probe!(probe_shared_chunk, |args| {
    let thread = thread_index();
    own().store_chunk(args.input(4 * thread).load_chunk());
    args.output(4 * thread).store_chunk(own().load_chunk());
});

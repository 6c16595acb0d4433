//! The element types that tensor cores multiply.

use super::{Args, probe};
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
use crate::gpu::E4m3;
use crate::gpu::{Bf16, F16, Factor, Half, thread_index};

/// Each thread packs two fp32.
#[inline(always)]
fn pack<E: Half>(args: &Args) {
    let thread = thread_index();
    let pair = E::pack(args.load_f32(2 * thread), args.load_f32(2 * thread + 1));
    args.output(thread).store_u32(pair);
}

/// Each thread unpacks a pair.
#[inline(always)]
fn unpack<E: Half>(args: &Args) {
    let thread = thread_index();
    let [low, high] = E::unpack(args.input(thread).load_u32());
    args.output(2 * thread).store_f32(low);
    args.output(2 * thread + 1).store_f32(high);
}

/// A times B plus C of 16 x 8, rows of A and columns of B of 32 bytes. The input holds A by rows and B by columns, then C by rows
/// in fp32; the output is by rows.
#[inline(always)]
fn mma<E: Factor>(args: &Args) {
    let lane = thread_index();
    let (group, pair) = (lane / 4, lane % 4);
    let a = [0, 1, 2, 3].map(|i| args.input((group + i % 2 * 8) * 8 + pair + i / 2 * 4).load_u32());
    let b = [0, 1].map(|i| args.input(128 + group * 8 + pair + i * 4).load_u32());
    let place = [0, 1, 2, 3].map(|i| (group + i / 2 * 8) * 8 + pair * 2 + i % 2);
    let mut c = place.map(|place| args.load_f32(192 + place));
    E::mma(&mut c, a, b);
    let mut i = 0;
    while i < 4 {
        args.output(place[i]).store_f32(c[i]);
        i += 1;
    }
}

probe!(probe_pack_f16, |args| { pack::<F16>(&args) });
probe!(probe_pack_bf16, |args| { pack::<Bf16>(&args) });
probe!(probe_unpack_f16, |args| { unpack::<F16>(&args) });
probe!(probe_unpack_bf16, |args| { unpack::<Bf16>(&args) });
// Each thread packs four fp32.
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
probe!(probe_pack_e4m3, |args| {
    let thread = thread_index();
    let four = [0, 1, 2, 3].map(|i| args.load_f32(4 * thread + i));
    args.output(thread).store_u32(E4m3::pack(four));
});
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
probe!(probe_mma_e4m3, |args| { mma::<E4m3>(&args) });
probe!(probe_mma_f16, |args| { mma::<F16>(&args) });
probe!(probe_mma_bf16, |args| { mma::<Bf16>(&args) });

//! `wgmma` (sm_90a): one warpgroup, operands in the permutation that the copy engine makes.

use super::{Args, probe};
use crate::gpu::wgmma::{Accumulator, Descriptor, InFlight, Product, commit_products, pin};
use crate::gpu::{Bf16, E4m3, F16, Factor, Shared, publish_mbarriers, sync_block, thread_index};

/// Bytes of an operand of 64 rows of 128.
const OPERAND: u32 = 8192;

/// Brings the input's operands `a` and `b`, row by row in the input, to shared memory.
#[inline(always)]
fn bring(args: &Args) {
    let thread = thread_index();
    let mut step = 0;
    while step < 8 {
        let index = thread + step * 128;
        let (row, chunk) = (index / 8, index % 8);
        Shared::base().at(row * 128 + (chunk ^ (row % 8)) * 16).store_chunk(args.input(index * 4).load_chunk());
        step += 1;
    }
    // Products see stores like the copy engine does.
    publish_mbarriers();
    sync_block();
}

/// Word of an element of the thread's fragment in a matrix of `columns` columns, 4-byte elements.
#[inline(always)]
fn place(block: usize, e: usize, columns: u32) -> u32 {
    let thread = thread_index();
    let row = thread / 32 * 16 + thread % 32 / 4 + e as u32 / 2 * 8;
    row * columns + block as u32 * 8 + thread % 4 * 2 + e as u32 % 2
}

#[inline(always)]
fn store<const N: usize>(args: &Args, first: u32, values: &[[f32; 4]; N]) {
    let mut block = 0;
    while block < N {
        let mut e = 0;
        while e < 4 {
            args.output(first + place(block, e, N as u32 * 8)).store_f32(values[block][e]);
            e += 1;
        }
        block += 1;
    }
}

/// Two accumulators at once: `a b^T` from nothing, and `1 + a b^T` over the second half of the depth, waited for last.
#[inline(always)]
fn shared<E: Factor>(args: &Args)
where
    InFlight<E, 8>: Product<8>,
{
    bring(args);
    let a = Descriptor::along_columns(Shared::base());
    let b = Descriptor::along_columns(Shared::base().at(OPERAND));
    let mut whole = Accumulator::<8> { values: [[f32::NAN; 4]; 8] }.begin::<E>();
    let mut half = Accumulator::<8> { values: [[1.0; 4]; 8] }.begin::<E>();
    let mut k16 = 0;
    while k16 < 4 {
        whole.add_shared(a.at(k16 * 32), b.at(k16 * 32), k16 == 0);
        k16 += 1;
    }
    commit_products();
    let mut k16 = 2;
    while k16 < 4 {
        half.add_shared(a.at(k16 * 32), b.at(k16 * 32), false);
        k16 += 1;
    }
    commit_products();
    let whole = whole.wait(1);
    let half = half.wait(0);
    store(args, 0, &whole.values);
    store(args, 64 * 64, &half.values);
}

/// `a [a b]` with the first `a` in registers, and `a` and `b` side by side as panels.
#[inline(always)]
fn registers<E: Factor>(args: &Args)
where
    InFlight<E, 16>: Product<16>,
{
    bring(args);
    let panels = Descriptor::along_rows(Shared::base(), OPERAND);
    let operands = operands(args);
    let mut products = Accumulator::<16>::ZERO.begin::<E>();
    let mut k16 = 0;
    while k16 < 4 {
        products.add_registers(operands[k16], panels.at(k16 as u32 * 2048));
        k16 += 1;
    }
    commit_products();
    store(args, 0, &products.wait(0).values);
}

/// `a b^T` with `a` in registers, of elements of one byte.
#[inline(always)]
fn registers_of_bytes(args: &Args) {
    bring(args);
    let b = Descriptor::along_columns(Shared::base().at(OPERAND));
    let operands = operands(args);
    let mut products = Accumulator::<8>::ZERO.begin::<E4m3>();
    let mut k32 = 0;
    while k32 < 4 {
        products.add_registers(operands[k32], b.at(k32 as u32 * 32));
        k32 += 1;
    }
    commit_products();
    store(args, 0, &products.wait(0).values);
}

/// The input's `a` as operands in registers.
#[inline(always)]
fn operands(args: &Args) -> [[u32; 4]; 4] {
    let mut operands = [[0; 4]; 4];
    let mut k16 = 0;
    while k16 < 4 {
        let mut i = 0;
        while i < 4 {
            // The registers go down the rows first, then 16 bytes on.
            let word = place(k16 * 2 + i / 2, i % 2 * 2, 64) / 2;
            operands[k16][i] = args.input(word).load_u32();
            i += 1;
        }
        k16 += 1;
    }
    pin(&mut operands);
    operands
}

probe!(probe_wgmma_shared_f16, |args| { shared::<F16>(&args) });
probe!(probe_wgmma_shared_bf16, |args| { shared::<Bf16>(&args) });
probe!(probe_wgmma_shared_e4m3, |args| { shared::<E4m3>(&args) });
probe!(probe_wgmma_registers_e4m3, |args| { registers_of_bytes(&args) });
probe!(probe_wgmma_registers_f16, |args| { registers::<F16>(&args) });
probe!(probe_wgmma_registers_bf16, |args| { registers::<Bf16>(&args) });

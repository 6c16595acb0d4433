//! Products of warpgroups.

use simt::{Access, Accumulator, Actor, Buffer, Cause, Fault, Launch, MmaKind, Op, address_of, thread_idx};

/// Where operands are in shared memory: `a` of 64 x 64, `b` of 64 x 64, each in rows of 128 bytes.
const A: u32 = 0;
const B: u32 = 8192;

/// Rows of 128 bytes in 128-byte permutation, groups of eight rows 1024 bytes apart, panels `leading` bytes apart.
fn descriptor(start: u32, leading: u32) -> u64 {
    u64::from(start / 16) | u64::from(leading / 16) << 16 | (1024 / 16) << 32 | 1 << 62
}

/// A small whole number for an element, exact in both types with all sums exact in fp32.
fn number(row: u32, column: u32, salt: u32) -> f32 {
    ((row * 7 + column * 3 + salt) % 11) as f32 - 5.0
}

/// The bits of an element, in the low half where it has but 8.
fn bits(kind: MmaKind, value: f32) -> u16 {
    match kind {
        MmaKind::F16 => simt::f16_from_f32(value),
        MmaKind::Bf16 => simt::bf16_from_f32(value),
        MmaKind::E4m3 => simt::e4m3_from_f32(value).into(),
    }
}

/// Fills 128 rows at `start` with numbers: element `[row][column]` at its permuted place.
fn fill(kind: MmaKind, start: u32, salt: u32) {
    let threads = simt::block_dim();
    for chunk in (thread_idx()..64 * 8).step_by(threads as usize) {
        let (row, part) = (chunk / 8, chunk % 8);
        let mut bytes = [0; 16];
        let size = 32 / kind.depth();
        for (i, element) in (0..).zip(bytes.chunks_exact_mut(size)) {
            let number = number(row, part * 16 / size as u32 + i, salt);
            element.copy_from_slice(&bits(kind, number).to_le_bytes()[..size]);
        }
        simt::store_shared(start + row * 128 + (part ^ (row % 8)) * 16, bytes);
    }
}

/// Fills both operands and makes them ready for products.
fn prepare(kind: MmaKind) {
    fill(kind, A, 0);
    fill(kind, B, 5);
    simt::fence_proxy_async();
    simt::barrier_sync(0, simt::block_dim());
}

/// Row and column of an element of the thread's fragment.
fn place(block: usize, e: usize) -> (u32, u32) {
    let (warp, lane) = (thread_idx() / 32 % 4, thread_idx() % 32);
    (warp * 16 + lane / 4 + e as u32 / 2 * 8, block as u32 * 8 + lane % 4 * 2 + e as u32 % 2)
}

/// The thread's fragment of `f`.
fn fragment<const N: usize>(f: impl Fn(u32, u32) -> f32) -> [[f32; 4]; N] {
    std::array::from_fn(|block| {
        std::array::from_fn(|e| {
            let (row, column) = place(block, e);
            f(row, column)
        })
    })
}

fn dot(depths: std::ops::Range<u32>, a: impl Fn(u32) -> f32, b: impl Fn(u32) -> f32) -> f32 {
    depths.map(|depth| a(depth) * b(depth)).sum()
}

fn expect<const N: usize>(values: &[[f32; 4]; N], f: impl Fn(u32, u32) -> f32) {
    assert_eq!(*values, fragment(f));
}

fn run(threads: u32, seed: u64, kernel: impl Fn()) -> Result<(), Fault> {
    let launch = Launch { shared_bytes: 32768, seed, ..Launch::new("k", 1, threads) };
    simt::run(&launch, &mut [], kernel).map(drop)
}

/// The cause under several schedules, all of which must fault.
fn causes(threads: u32, kernel: impl Fn()) -> Vec<Cause> {
    (0..10).map(|seed| run(threads, seed, &kernel).expect_err("the kernel is wrong").cause).collect()
}

fn shared(accumulator: Accumulator, depth16: u32, fresh: bool) {
    let at = depth16 * 32;
    simt::wgmma_shared(MmaKind::F16, accumulator, descriptor(A + at, 16), descriptor(B + at, 16), fresh);
}

#[test]
fn products_of_shared_operands() {
    for (kind, seed) in [(MmaKind::F16, 0), (MmaKind::Bf16, 1), (MmaKind::E4m3, 2)] {
        // Two warpgroups, each with its own accumulators.
        run(256, seed, || {
            prepare(kind);
            let start = |row, column| (row + column) as f32;
            let mut values: [[f32; 4]; 8] = fragment(start);
            let accumulator = simt::wgmma_begin(&mut values);
            for step in 1..4 {
                let at = step * 32;
                simt::wgmma_shared(kind, accumulator, descriptor(A + at, 16), descriptor(B + at, 16), false);
            }
            simt::wgmma_commit();
            simt::wgmma_wait(0);
            simt::wgmma_end(accumulator, &mut values);
            expect(&values, |row, column| {
                let depth = kind.depth() as u32;
                start(row, column) + dot(depth..4 * depth, |d| number(row, d, 0), |d| number(column, d, 5))
            });
        })
        .unwrap();
    }
}

#[test]
fn products_of_registers_and_rows() {
    run(128, 2, || {
        prepare(MmaKind::F16);
        let a = |row, column| number(row, column, 3);
        let mut values: [[f32; 4]; 8] = [[f32::NAN; 4]; 8];
        let accumulator = simt::wgmma_begin(&mut values);
        shared(accumulator, 0, true);
        let [left, right]: [[f32; 4]; 2] = fragment(a);
        let pack =
            |[low, high]: [f32; 2]| u32::from(bits(MmaKind::F16, low)) | u32::from(bits(MmaKind::F16, high)) << 16;
        let operand = [[left[0], left[1]], [left[2], left[3]], [right[0], right[1]], [right[2], right[3]]].map(pack);
        // Rows 16 to 31 of `b`.
        simt::wgmma_registers(MmaKind::F16, accumulator, operand, descriptor(B + 16 * 128, 4096));
        simt::wgmma_commit();
        simt::wgmma_wait(0);
        simt::wgmma_end(accumulator, &mut values);
        expect(&values, |row, column| {
            dot(0..16, |d| number(row, d, 0), |d| number(column, d, 5))
                + dot(0..16, |d| a(row, d), |d| number(16 + d, column, 5))
        });
    })
    .unwrap();
}

#[test]
fn products_of_registers_and_columns_of_bytes() {
    run(128, 4, || {
        prepare(MmaKind::E4m3);
        let mut values: [[f32; 4]; 8] = [[0.0; 4]; 8];
        let accumulator = simt::wgmma_begin(&mut values);
        let a = |row, depth| number(row, depth, 3);
        let (row, first) = (place(0, 0).0, thread_idx() % 4 * 4);
        let operand = [(0, 0), (8, 0), (0, 16), (8, 16)].map(|(down, along)| {
            let byte = |i| simt::e4m3_from_f32(a(row + down, first + along + i));
            u32::from_le_bytes([0, 1, 2, 3].map(byte))
        });
        simt::wgmma_registers(MmaKind::E4m3, accumulator, operand, descriptor(B + 32, 16));
        simt::wgmma_commit();
        simt::wgmma_wait(0);
        simt::wgmma_end(accumulator, &mut values);
        expect(&values, |row, column| dot(0..32, |d| a(row, d), |d| number(column, 32 + d, 5)));
    })
    .unwrap();
}

#[test]
fn panels_follow_each_other() {
    run(128, 3, || {
        fill(MmaKind::Bf16, B, 5);
        fill(MmaKind::Bf16, B + 8192, 6);
        simt::fence_proxy_async();
        simt::barrier_sync(0, 128);
        let mut values = [[0.0; 4]; 16];
        let accumulator = simt::wgmma_begin(&mut values);
        // The identity in the first warp, zero elsewhere.
        let one = |row: u32, column: u32| if row == column { 1.0 } else { 0.0 };
        let [left, right]: [[f32; 4]; 2] = fragment(one);
        let pack =
            |[low, high]: [f32; 2]| u32::from(bits(MmaKind::Bf16, low)) | u32::from(bits(MmaKind::Bf16, high)) << 16;
        let operand = [[left[0], left[1]], [left[2], left[3]], [right[0], right[1]], [right[2], right[3]]].map(pack);
        simt::wgmma_registers(MmaKind::Bf16, accumulator, operand, descriptor(B, 8192));
        simt::wgmma_commit();
        simt::wgmma_wait(0);
        simt::wgmma_end(accumulator, &mut values);
        expect(&values, |row, column| if row < 16 { number(row, column % 64, 5 + column / 64) } else { 0.0 });
    })
    .unwrap();
}

#[test]
fn accumulators_are_poison_until_their_end_and_groups_end_in_order() {
    run(128, 4, || {
        prepare(MmaKind::F16);
        let (mut first, mut second) = ([[1.0; 4]; 8], [[2.0; 4]; 4]);
        let one = simt::wgmma_begin(&mut first);
        let two = simt::wgmma_begin(&mut second);
        assert!(first.iter().flatten().chain(second.iter().flatten()).all(|value| value.is_nan()));
        shared(one, 0, false);
        simt::wgmma_commit();
        shared(two, 1, true);
        simt::wgmma_commit();
        simt::wgmma_wait(1);
        simt::wgmma_end(one, &mut first);
        expect(&first, |row, column| 1.0 + dot(0..16, |d| number(row, d, 0), |d| number(column, d, 5)));
        // The place of the first is taken again while the second is open.
        let mut third = [[3.0; 4]; 2];
        let three = simt::wgmma_begin(&mut third);
        simt::wgmma_wait(0);
        simt::wgmma_end(two, &mut second);
        simt::wgmma_end(three, &mut third);
        assert_eq!(third, [[3.0; 4]; 2]);
        expect(&second, |row, column| dot(16..32, |d| number(row, d, 0), |d| number(column, d, 5)));
    })
    .unwrap();
}

#[test]
fn operands_are_read_late() {
    // Stored to by another warp between issue and wait, whichever comes first.
    let overwrite = |order: fn()| {
        move || {
            prepare(MmaKind::F16);
            if thread_idx() < 128 {
                let mut values = [[0.0; 4]; 8];
                let accumulator = simt::wgmma_begin(&mut values);
                shared(accumulator, 0, true);
                simt::wgmma_commit();
                order();
                simt::wgmma_wait(0);
                simt::wgmma_end(accumulator, &mut values);
                simt::barrier_arrive(2, 160);
            } else {
                order();
                if thread_idx() == 130 {
                    simt::store_shared(B, [0; 4]);
                }
                simt::barrier_sync(2, 160);
            }
        }
    };
    for cause in causes(160, overwrite(|| simt::barrier_sync(1, 160))) {
        let late = Cause::Operand { address: B, bytes: 4 };
        let after = matches!(cause, Cause::Race { access: Access::Store, other: Actor::Products, .. });
        assert!(cause == late || after, "{cause}");
    }
}

#[test]
fn a_wait_frees_operands_for_who_hears_of_it() {
    let kernel = |told: bool| {
        move || {
            prepare(MmaKind::F16);
            if thread_idx() == 0 {
                simt::mbarrier_init(16384, 1);
            }
            simt::barrier_sync(0, 160);
            if thread_idx() < 128 {
                let mut values = [[0.0; 4]; 8];
                let accumulator = simt::wgmma_begin(&mut values);
                shared(accumulator, 0, true);
                simt::wgmma_commit();
                if !told && thread_idx() == 0 {
                    simt::mbarrier_arrive(16384);
                }
                simt::wgmma_wait(0);
                // One thread speaks for all: the products of a warpgroup end together.
                if told && thread_idx() == 0 {
                    simt::mbarrier_arrive(16384);
                }
                simt::wgmma_end(accumulator, &mut values);
                expect(&values, |row, column| dot(0..16, |d| number(row, d, 0), |d| number(column, d, 5)));
            } else if thread_idx() == 130 {
                simt::mbarrier_wait(16384, 0);
                simt::store_shared(B, [0; 4]);
            }
        }
    };
    for seed in 0..10 {
        run(160, seed, kernel(true)).unwrap();
    }
    for cause in causes(160, kernel(false)) {
        assert!(matches!(cause, Cause::Operand { .. } | Cause::Race { other: Actor::Products, .. }), "{cause}");
    }
}

#[test]
fn stores_reach_products_by_fence_and_barrier() {
    let kernel = |fence: bool, barrier: bool| {
        move || {
            fill(MmaKind::F16, A, 0);
            fill(MmaKind::F16, B, 5);
            if fence {
                simt::fence_proxy_async();
            }
            if barrier {
                simt::barrier_sync(0, 128);
            }
            let mut values = [[0.0; 4]; 8];
            shared(simt::wgmma_begin(&mut values), 0, true);
        }
    };
    run(128, 0, kernel(true, true)).unwrap();
    assert!(causes(128, kernel(false, true)).iter().all(|cause| matches!(cause, Cause::Unfenced { .. })));
    assert!(causes(128, kernel(true, false)).iter().all(|cause| matches!(cause, Cause::Race { .. })));
}

#[test]
fn copies_reach_products_by_their_mbarrier() {
    let tensor = vec![0; 16384];
    let kernel = |wait: bool| {
        move || {
            let map = simt::TensorMap {
                address: address_of(0),
                extents: [64, 128, 1, 1],
                strides: [128, 16384, 16384],
                rows: 128,
            };
            if thread_idx() == 0 {
                simt::mbarrier_init(16384, 1);
                simt::fence_proxy_async();
                simt::mbarrier_arrive_expecting(16384, 16384);
                simt::tma_load(0, &map, 16384, [0; 4]);
            }
            simt::barrier_sync(0, 128);
            // One lane's wait is not its warp's.
            if wait || thread_idx() % 32 == 7 {
                simt::mbarrier_wait(16384, 0);
            }
            let mut values = [[1.0; 4]; 8];
            let accumulator = simt::wgmma_begin(&mut values);
            shared(accumulator, 0, true);
            simt::wgmma_commit();
            simt::wgmma_wait(0);
            simt::wgmma_end(accumulator, &mut values);
            assert_eq!(values, [[0.0; 4]; 8]);
        }
    };
    for seed in 0..5 {
        let launch = Launch { shared_bytes: 32768, seed, ..Launch::new("k", 1, 128) };
        let run = |wait| simt::run(&launch, &mut [Buffer::read("t", &tensor)], kernel(wait)).map(drop);
        run(true).unwrap();
        let cause = run(false).unwrap_err().cause;
        assert!(matches!(cause, Cause::Race { other: Actor::Copy, .. }), "{cause}");
    }
}

#[test]
fn warps_of_a_warpgroup_agree() {
    let found = causes(128, || {
        prepare(MmaKind::F16);
        let mut values = [[0.0; 4]; 8];
        let accumulator = simt::wgmma_begin(&mut values);
        shared(accumulator, u32::from(thread_idx() >= 96), true);
    });
    assert!(found.iter().all(|cause| matches!(cause, Cause::Warpgroup { op: Op::Wgmma(_), other: Op::Wgmma(_) })));
    let text = found[0].to_string();
    assert!(text.starts_with("wgmma.m64n64k16.f16(0x40000040"), "{text}");
    let found = causes(128, || {
        prepare(MmaKind::F16);
        if thread_idx() < 96 {
            simt::wgmma_commit();
            simt::wgmma_wait(0);
        }
    });
    let expected = Cause::Deadlock("warpgroup 0 waits for products that not all its warps have issued".into());
    assert!(found.iter().all(|cause| *cause == expected), "{found:?}");
}

#[test]
fn warps_outside_a_warpgroup_have_no_products() {
    let found = causes(160, || {
        if thread_idx() >= 128 {
            simt::wgmma_commit();
        }
    });
    assert!(found.iter().all(|cause| *cause == Cause::NoWarpgroup));
}

#[test]
fn accumulators_are_misused_in_many_ways() {
    let found = |kernel: fn(Accumulator, &mut [[f32; 4]; 8])| {
        let all = causes(128, || {
            prepare(MmaKind::F16);
            let mut values = [[0.0; 4]; 8];
            let accumulator = simt::wgmma_begin(&mut values);
            kernel(accumulator, &mut values);
        });
        let Cause::Accumulator(text) = all[0] else { panic!("{}", all[0]) };
        assert!(all.iter().all(|cause| *cause == Cause::Accumulator(text)), "{all:?}");
        text
    };
    let early = |accumulator, values: &mut [[f32; 4]; 8]| {
        shared(accumulator, 0, true);
        simt::wgmma_commit();
        simt::wgmma_wait(1);
        simt::wgmma_end(accumulator, values);
    };
    assert_eq!(found(early), "is read while products write to it");
    let uncommitted = |accumulator, values: &mut [[f32; 4]; 8]| {
        shared(accumulator, 0, true);
        simt::wgmma_wait(0);
        simt::wgmma_end(accumulator, values);
    };
    assert_eq!(found(uncommitted), "is read while products write to it");
    let closed = |accumulator, values: &mut [[f32; 4]; 8]| {
        simt::wgmma_end(accumulator, values);
        shared(accumulator, 0, true);
    };
    assert_eq!(found(closed), "is not open");
    let twice = |accumulator, values: &mut [[f32; 4]; 8]| {
        simt::wgmma_end(accumulator, values);
        simt::wgmma_end(accumulator, values);
    };
    assert_eq!(found(twice), "is not open, or has another width");
    assert_eq!(
        found(|accumulator, _| simt::wgmma_end(accumulator, &mut [[0.0; 4]; 7])),
        "is not open, or has another width"
    );
    let too = "has 8 to 256 columns, and a thread opens at most 32";
    assert_eq!(found(|_, _| _ = simt::wgmma_begin(&mut [])), too);
    assert_eq!(found(|_, _| _ = simt::wgmma_begin(&mut [[0.0; 4]; 33])), too);
    assert_eq!(found(|_, _| (0..32).for_each(|_| _ = simt::wgmma_begin(&mut [[0.0; 4]]))), too);
}

#[test]
fn descriptors_must_be_ones_the_machine_takes() {
    let with = |a: u64| {
        let found = causes(128, || {
            prepare(MmaKind::F16);
            let mut values = [[0.0; 4]; 8];
            simt::wgmma_shared(MmaKind::F16, simt::wgmma_begin(&mut values), a, descriptor(B, 16), true);
        });
        found.into_iter().next().expect("ten schedules")
    };
    for bad in [descriptor(A, 16) ^ 1 << 62, descriptor(A, 16) | 1 << 49, descriptor(A, 16) | 1 << 63] {
        assert_eq!(with(bad), Cause::Descriptor(bad));
    }
    let beyond = with(descriptor(32768 - 1024, 16));
    assert!(matches!(beyond, Cause::OutOfShared { access: Access::Load, size: 32768, .. }), "{beyond}");
}

#[test]
fn the_tensor_cores_are_counted() {
    let launch = Launch { shared_bytes: 32768, ..Launch::new("k", 1, 128) };
    let stats = simt::run(&launch, &mut [], || {
        prepare(MmaKind::F16);
        let mut values = [[0.0; 4]; 8];
        shared(simt::wgmma_begin(&mut values), 0, true);
        simt::wgmma_wait(0);
    })
    .unwrap();
    assert_eq!((stats.wgmma_blocks, stats.wgmma_waits), (32, 4));
}

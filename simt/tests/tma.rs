//! Bulk copies.

use simt::{Access, Actor, Buffer, Cause, Fault, Launch, Misuse, TensorMap, address_of, thread_idx};

/// Columns, rows, heads and batch entries of the tensor, whose rows are 160 bytes apart.
const EXTENTS: [u32; 4] = [72, 20, 2, 2];
const STRIDES: [u64; 3] = [160, 160 * 20, 160 * 40];
/// Bytes of a box of 16 rows.
const BOX: u32 = 16 * 128;

fn map() -> TensorMap {
    TensorMap { address: address_of(0), extents: EXTENTS, strides: STRIDES, rows: 16 }
}

/// Element at a place: all are different and none is zero.
fn element(column: u32, row: u32, head: u32, batch: u32) -> u16 {
    (1 + column + 80 * (row + 20 * (head + 2 * batch))) as u16
}

fn tensor() -> Vec<u8> {
    let mut bytes = vec![0xee; 160 * 80];
    for (batch, head, row, column) in
        (0..2).flat_map(|b| (0..2).flat_map(move |h| (0..20).flat_map(move |r| (0..72).map(move |c| (b, h, r, c)))))
    {
        let at = (column * 2 + row * 160 + head * 160 * 20 + batch * 160 * 40) as usize;
        bytes[at..at + 2].copy_from_slice(&element(column, row, head, batch).to_le_bytes());
    }
    bytes
}

/// Runs 64 threads with the tensor as buffer 0, an output of 2048 bytes as buffer 1, and an mbarrier of one arrival at 0.
fn run(seed: u64, kernel: impl Fn(u32)) -> Result<Vec<u8>, Fault> {
    let input = tensor();
    let mut output = vec![0xaa; BOX as usize];
    let launch = Launch { shared_bytes: 8192, seed, ..Launch::new("k", 1, 64) };
    simt::run(&launch, &mut [Buffer::read("in", &input), Buffer::write("out", &mut output)], || {
        let thread = thread_idx();
        if thread == 0 {
            simt::mbarrier_init(0, 1);
            simt::fence_proxy_async();
        }
        simt::barrier_sync(0, 64);
        kernel(thread);
    })?;
    Ok(output)
}

fn cause(kernel: impl Fn(u32)) -> Cause {
    run(0, kernel).expect_err("the kernel is wrong").cause
}

/// Thread 0 copies the box at these coordinates to 1024.
fn start(thread: u32, at: [u32; 4]) {
    if thread == 0 {
        simt::mbarrier_arrive_expecting(0, BOX);
        simt::tma_load(1024, &map(), 0, at);
    }
}

fn read_back(thread: u32) {
    for i in (thread..BOX / 16).step_by(64) {
        simt::store_global::<16>(address_of(1) + u64::from(16 * i), simt::load_shared(1024 + 16 * i));
    }
}

#[test]
fn boxes_arrive_permuted_and_filled_with_zeros() {
    let far = |below: u32| 0u32.wrapping_sub(below);
    for (seed, at) in (0..).zip([[0, 0, 0, 0], [64, 3, 1, 0], [8, 12, 1, 1], [far(8), far(4), 0, 1], [0, 0, 2, 0]]) {
        let output = run(seed, |thread| {
            start(thread, at);
            simt::mbarrier_wait(0, 0);
            read_back(thread);
        })
        .unwrap();
        for (row, column) in (0..16u32).flat_map(|row| (0..64u32).map(move |column| (row, column))) {
            let place = (row * 128 + ((column / 8) ^ (row % 8)) * 16 + column % 8 * 2) as usize;
            let (c, r, [.., head, batch]) = (at[0].wrapping_add(column), at[1].wrapping_add(row), at);
            let inside = c < EXTENTS[0] && r < EXTENTS[1] && head < EXTENTS[2] && batch < EXTENTS[3];
            let expected = if inside { element(c, r, head, batch) } else { 0 };
            assert_eq!(output[place..place + 2], expected.to_le_bytes(), "row {row} column {column} of {at:?}");
        }
    }
}

#[test]
fn bytes_may_come_before_they_are_expected() {
    for seed in 0..10 {
        run(seed, |thread| {
            if thread == 0 {
                simt::tma_load(1024, &map(), 0, [0; 4]);
            }
            simt::barrier_sync(0, 64);
            simt::barrier_sync(0, 64);
            if thread == 0 {
                simt::mbarrier_arrive_expecting(0, BOX);
            }
            simt::mbarrier_wait(0, 0);
            read_back(thread);
        })
        .unwrap();
    }
}

#[test]
fn reading_without_a_wait_is_caught_whenever_the_copy_lands() {
    let mut kinds = [0; 2];
    for seed in 0..30 {
        let fault = run(seed, |thread| {
            start(thread, [0; 4]);
            simt::barrier_sync(0, 64);
            if thread == 0 {
                simt::load_shared::<4>(1024);
            }
        });
        match fault.unwrap_err().cause {
            Cause::InFlight { access: Access::Load, address: 1024, bytes: 4, issuer: Actor::Thread(0) } => {
                kinds[0] += 1
            }
            Cause::Race { access: Access::Load, address: 1024, other: Actor::Copy, .. } => kinds[1] += 1,
            other => panic!("{other}"),
        }
    }
    assert!(kinds.iter().all(|&count| count > 0), "{kinds:?}");
}

#[test]
fn destinations_must_be_free() {
    let late = |order: fn()| {
        move |thread: u32| {
            if thread == 40 {
                simt::load_shared::<4>(1024);
            }
            order();
            start(thread, [0; 4]);
            simt::mbarrier_wait(0, 0);
        }
    };
    let found = cause(late(|| ()));
    assert!(matches!(found, Cause::Race { .. } | Cause::InFlight { .. }), "{found}");
    run(0, late(|| simt::barrier_sync(0, 64))).unwrap();
    // Twice to the same place.
    let twice = |thread: u32| {
        start(thread, [0; 4]);
        if thread == 0 {
            simt::tma_load(1024, &map(), 0, [0; 4]);
        }
    };
    assert!(matches!(cause(twice), Cause::InFlight { access: Access::Store, address: 1024, .. }));
}

#[test]
fn one_phase_tells_nothing_of_another_barriers_copies() {
    for seed in 0..10 {
        let fault = run(seed, |thread| {
            if thread == 0 {
                simt::mbarrier_init(8, 1);
                simt::fence_proxy_async();
                simt::mbarrier_arrive_expecting(8, BOX);
                simt::tma_load(4096, &map(), 8, [0; 4]);
            }
            start(thread, [0; 4]);
            simt::mbarrier_wait(0, 0);
            if thread == 9 {
                simt::load_shared::<16>(4096);
            }
        });
        let cause = fault.unwrap_err().cause;
        assert!(matches!(cause, Cause::InFlight { .. } | Cause::Race { other: Actor::Copy, .. }), "{cause}");
    }
}

#[test]
fn bad_copies_are_named() {
    let load = |to: u32, map: TensorMap, barrier: u32| {
        cause(move |thread| {
            if thread == 0 {
                simt::tma_load(to, &map, barrier, [0; 4]);
            }
        })
    };
    assert!(matches!(load(1040, map(), 0), Cause::MisalignedShared { address: 1040, align: 1024, .. }));
    assert!(matches!(load(7168, map(), 0), Cause::OutOfShared { address: 7168, bytes: BOX, size: 8192, .. }));
    assert!(matches!(load(1024, map(), 8), Cause::Mbarrier { address: 8, misuse: Misuse::NotInitialised }));
    for bad in [
        TensorMap { address: address_of(0) + 8, ..map() },
        TensorMap { strides: [160, 24, 160], ..map() },
        TensorMap { extents: [72, 0, 2, 2], ..map() },
        TensorMap { rows: 0, ..map() },
        TensorMap { rows: 257, ..map() },
    ] {
        assert!(matches!(load(1024, bad, 0), Cause::TensorMap(_)), "{bad:?}");
    }
    // Found when the copy runs, and blamed on the thread that issued it.
    let outside = TensorMap { extents: [72, 20, 2, 3], ..map() };
    let fault = run(3, |thread| {
        if thread == 33 {
            simt::mbarrier_arrive_expecting(0, BOX);
            simt::tma_load(1024, &outside, 0, [0, 0, 0, 2]);
            simt::mbarrier_wait(0, 0);
        }
    });
    let fault = fault.unwrap_err().to_string();
    assert!(fault.starts_with("kernel k, block 0, thread 33: 128-byte load at offset 12800 of buffer in"), "{fault}");
}

#[test]
fn barriers_are_published_before_copies_use_them() {
    let kernel = |fence: fn()| {
        move |thread: u32| {
            if thread == 0 {
                simt::mbarrier_init(8, 1);
                fence();
                simt::mbarrier_arrive_expecting(8, BOX);
                simt::tma_load(1024, &map(), 8, [0; 4]);
                simt::mbarrier_wait(8, 0);
            }
        }
    };
    assert_eq!(cause(kernel(|| ())), Cause::Mbarrier { address: 8, misuse: Misuse::Unpublished });
    run(0, kernel(simt::fence_proxy_async)).unwrap();
}

#[test]
fn blocks_do_not_end_before_their_copies() {
    let outcomes: Vec<_> = (0..20).map(|seed| run(seed, |thread| start(thread, [0; 4])).map(drop)).collect();
    let unfinished = outcomes.iter().flat_map(|outcome| outcome.as_ref().err());
    assert!(unfinished.clone().count() > 0 && unfinished.into_iter().all(|fault| fault.cause == Cause::Unfinished(1)));
}

#[test]
fn the_copy_engine_is_counted() {
    let launch = Launch { shared_bytes: 8192, ..Launch::new("k", 1, 32) };
    let stats = simt::run(&launch, &mut [Buffer::read("in", &tensor())], || {
        if thread_idx() == 0 {
            simt::mbarrier_init(0, 1);
            simt::fence_proxy_async();
            start(0, [0; 4]);
            simt::mbarrier_wait(0, 0);
        }
    })
    .unwrap();
    assert_eq!((stats.bulk_copies, stats.bulk_copy_bytes), (1, u64::from(BOX)));
    assert_eq!((stats.mbarrier_arrivals, stats.mbarrier_waits), (1, 1));
}

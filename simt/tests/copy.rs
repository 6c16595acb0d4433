//! `cp.async`.

use simt::{Access, Actor, Buffer, Cause, Fault, Launch, address_of, thread_idx};

/// Runs one warp with a buffer `in` of 64 bytes (0, 1, 2, ...) and returns 64 bytes of shared memory's end state, as
/// thread 0 reads it after `kernel`.
fn run(check_races: bool, kernel: impl Fn(u32)) -> Result<Vec<u8>, Fault> {
    let input: Vec<u8> = (0..64).collect();
    let mut output = vec![0; 64];
    let mut launch = Launch::new("k", 1, 32);
    (launch.shared_bytes, launch.check_races) = (64, check_races);
    simt::run(&launch, &mut [Buffer::read("in", &input), Buffer::write("out", &mut output)], || {
        kernel(thread_idx());
        if thread_idx() == 0 {
            for i in 0..4 {
                simt::store_global::<16>(address_of(1) + 16 * i, simt::load_shared(16 * i as u32));
            }
        }
    })?;
    Ok(output)
}

fn first(act: impl Fn()) -> impl Fn(u32) {
    move |thread| {
        if thread == 0 {
            act();
        }
    }
}

fn cause(kernel: impl Fn(u32)) -> Cause {
    run(true, kernel).expect_err("the kernel is wrong").cause
}

const FROM: fn(u64) -> u64 = |offset| address_of(0) + offset;

#[test]
fn copies_all_sizes_and_fills_with_zeros() {
    let shared = run(
        true,
        first(|| {
            simt::cp_async(0, FROM(4), 4, 4);
            simt::cp_async(8, FROM(8), 8, 8);
            simt::cp_async(16, FROM(16), 16, 16);
            simt::cp_async(32, FROM(32), 16, 5);
            // With nothing to read the source may be anywhere.
            simt::cp_async(48, FROM(4096), 16, 0);
            simt::cp_async_commit();
            simt::cp_async_wait(0);
        }),
    )
    .unwrap();
    let mut expected = [0xff; 64];
    expected[..4].copy_from_slice(&[4, 5, 6, 7]);
    expected[8..16].copy_from_slice(&[8, 9, 10, 11, 12, 13, 14, 15]);
    (16..32).for_each(|i| expected[i] = i as u8);
    expected[32..48].copy_from_slice(&[32, 33, 34, 35, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected[48..].fill(0);
    assert_eq!(shared, expected);
}

#[test]
fn waits_for_all_but_the_last_groups() {
    let early = |pending, check_races| {
        run(
            check_races,
            first(move || {
                for group in 0..3 {
                    simt::cp_async(16 * group, FROM(0), 16, 16);
                    simt::cp_async_commit();
                }
                // Never committed, so no wait covers it.
                simt::cp_async(48, FROM(0), 16, 16);
                simt::cp_async_wait(pending);
            }),
        )
    };
    let data: Vec<u8> = (0..16).collect();
    for pending in 0..4 {
        let shared = early(pending, false).unwrap();
        for (group, bytes) in shared.chunks(16).enumerate() {
            let there = (group as u32) < 3 - pending;
            assert_eq!(bytes, if there { &data[..] } else { &[0xff; 16] }, "group {group}, pending {pending}");
        }
        // Where races are checked, reading the rest is a fault.
        let address = 16 * (3 - pending);
        let expected = Cause::InFlight { access: Access::Load, address, bytes: 16, issuer: Actor::Thread(0) };
        assert_eq!(early(pending, true).unwrap_err().cause, expected);
    }
}

#[test]
fn empty_groups_count() {
    let shared = run(
        true,
        first(|| {
            (0..4).for_each(|i| simt::cp_async(16 * i, FROM(0), 16, 16));
            simt::cp_async_commit();
            simt::cp_async_commit();
            simt::cp_async_wait(1);
        }),
    );
    assert!(shared.is_ok());
}

#[test]
fn storing_into_a_copy_in_flight_is_a_fault() {
    for check_races in [false, true] {
        let kernel = first(|| {
            simt::cp_async(16, FROM(0), 16, 16);
            simt::cp_async_commit();
            simt::store_shared(20, [0; 2]);
        });
        let expected = Cause::InFlight { access: Access::Store, address: 20, bytes: 2, issuer: Actor::Thread(0) };
        assert_eq!(run(check_races, kernel).unwrap_err().cause, expected);
    }
    let twice = cause(first(|| (0..2).for_each(|_| simt::cp_async(0, FROM(0), 4, 4))));
    assert_eq!(twice, Cause::InFlight { access: Access::Store, address: 0, bytes: 4, issuer: Actor::Thread(0) });
}

#[test]
fn other_threads_need_a_barrier_after_the_wait() {
    let kernel = |barrier: fn()| {
        move |lane: u32| {
            if lane == 7 {
                (0..4).for_each(|i| simt::cp_async(16 * i, FROM(0), 16, 16));
                simt::cp_async_commit();
                simt::cp_async_wait(0);
            }
            barrier();
        }
    };
    assert!(run(true, kernel(|| simt::sync_warp(u32::MAX))).is_ok());
    // Which of the two is seen depends on who comes first.
    assert!(matches!(cause(kernel(|| ())), Cause::Race { .. } | Cause::InFlight { .. }));
    // A barrier before the wait is not enough.
    let wrong = |lane: u32| {
        if lane == 7 {
            (0..4).for_each(|i| simt::cp_async(16 * i, FROM(0), 16, 16));
            simt::cp_async_commit();
        }
        simt::sync_warp(u32::MAX);
        if lane == 7 {
            simt::cp_async_wait(0);
        }
    };
    assert!(matches!(cause(wrong), Cause::Race { .. } | Cause::InFlight { issuer: Actor::Thread(7), .. }));
}

#[test]
fn bad_copies_are_faults() {
    for (bytes, src_bytes) in [(2, 2), (32, 16), (8, 9)] {
        let found = cause(first(|| simt::cp_async(0, FROM(0), bytes, src_bytes)));
        assert_eq!(found, Cause::CopySize { bytes, src_bytes });
    }
    let found = cause(first(|| simt::cp_async(8, FROM(0), 16, 16)));
    assert!(matches!(found, Cause::MisalignedShared { access: Access::Store, address: 8, bytes: 16, align: 16 }));
    let found = cause(first(|| simt::cp_async(0, FROM(4), 8, 4)));
    assert!(matches!(found, Cause::MisalignedGlobal { offset: 4, .. }));
    // The bytes that are not read need not be there.
    let found = cause(first(|| simt::cp_async(0, FROM(64), 16, 1)));
    assert!(matches!(found, Cause::OutOfBuffer { offset: 64, bytes: 1, .. }));
}

#[test]
fn a_block_leaves_no_copies_behind() {
    let input = [1; 16];
    let mut launch = Launch::new("k", 2, 32);
    launch.shared_bytes = 16;
    let stats = simt::run(&launch, &mut [Buffer::read("in", &input)], || {
        if thread_idx() == 0 {
            assert_eq!(simt::load_shared::<1>(0), [0xff]);
            simt::cp_async(0, FROM(0), 16, 16);
            simt::cp_async_commit();
        }
    });
    assert_eq!(stats.unwrap().copies, 2);
}

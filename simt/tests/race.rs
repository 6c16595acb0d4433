//! Races in shared memory: seen where nothing orders two accesses, not seen where something does, whatever the schedule.

use simt::{Access, Actor, Cause, Launch, thread_idx};

/// Runs under several schedules; whether a race was found must not depend on which.
fn race(threads: u32, kernel: impl Fn(u32)) -> Option<Cause> {
    let mut launch = Launch::new("k", 2, threads);
    launch.shared_bytes = 4096;
    let results = (0..10).map(|seed| {
        launch.seed = seed;
        simt::run(&launch, &mut [], || kernel(thread_idx())).err().map(|fault| fault.cause)
    });
    let results: Vec<_> = results.collect();
    let races = results.iter().filter(|result| matches!(result, Some(Cause::Race { .. }))).count();
    assert!(races == 0 && results.iter().all(Option::is_none) || races == results.len(), "{results:?}");
    results.into_iter().next().flatten()
}

fn store(address: u32) {
    simt::store_shared(address, [0; 4]);
}

fn load(address: u32) {
    simt::load_shared::<4>(address);
}

#[test]
fn two_stores_without_a_barrier() {
    let found = race(64, |thread| store(thread / 2 * 4));
    assert!(matches!(
        found,
        Some(Cause::Race { access: Access::Store, other_access: Access::Store, address, other })
            if other == Actor::Thread(address / 2)
    ));
    assert!(race(64, |thread| store(thread * 4)).is_none());
}

#[test]
fn store_and_load_across_warps() {
    let exchange = |barrier: fn()| {
        move |thread: u32| {
            store(thread * 4);
            barrier();
            load((thread + 32) % 64 * 4);
        }
    };
    assert!(race(64, exchange(|| ())).is_some());
    assert!(race(64, exchange(|| simt::sync_warp(u32::MAX))).is_some());
    assert!(race(64, exchange(|| simt::barrier_sync(0, 64))).is_none());
}

#[test]
fn load_and_store_across_warps() {
    let kernel = |barrier: fn()| {
        move |thread: u32| {
            if thread < 32 {
                load(0);
                barrier();
            } else {
                barrier();
                if thread == 40 {
                    store(0);
                }
            }
        }
    };
    assert!(race(64, kernel(|| ())).is_some());
    assert!(race(64, kernel(|| simt::barrier_sync(0, 64))).is_none());
}

#[test]
fn lanes_of_a_warp_need_sync_warp() {
    let exchange = |between: fn()| {
        move |thread: u32| {
            store(thread * 4);
            between();
            load((thread ^ 1) * 4);
            between();
            store(thread * 4);
        }
    };
    assert!(race(32, exchange(|| ())).is_some());
    // A shuffle waits for the lanes, but orders no memory.
    assert!(
        race(
            32,
            exchange(|| {
                simt::shuffle_xor(u32::MAX, 0, 1);
            })
        )
        .is_some()
    );
    assert!(race(32, exchange(|| simt::sync_warp(u32::MAX))).is_none());
    assert!(race(32, exchange(|| simt::sync_warp(3 << (thread_idx() / 2 * 2)))).is_none());
}

#[test]
fn partial_masks_order_their_lanes_alone() {
    // Lanes 0 to 15 meet more often than the rest; then all meet.
    let kernel = |last: fn()| {
        move |lane: u32| {
            if lane < 16 {
                simt::sync_warp(0xffff);
                simt::sync_warp(0xffff);
            }
            load(0);
            last();
            if lane == 20 {
                store(0);
            }
        }
    };
    assert!(race(32, kernel(|| simt::sync_warp(u32::MAX))).is_none());
    assert!(race(32, kernel(|| simt::sync_warp(if thread_idx() < 16 { 0xffff } else { 0xffff_0000 }))).is_some());
}

#[test]
fn arriving_releases_and_syncing_acquires() {
    // Warp 0 produces, warp 1 consumes; then the same the other way round.
    let kernel = |full: bool| {
        move |thread: u32| {
            for _ in 0..3 {
                if thread < 32 {
                    store(thread * 4);
                    simt::barrier_arrive(1, 64);
                    if full {
                        simt::barrier_sync(2, 64);
                    }
                } else {
                    simt::barrier_sync(1, 64);
                    load((thread - 32) * 4);
                    if full {
                        simt::barrier_arrive(2, 64);
                    }
                }
            }
        }
    };
    assert!(race(64, kernel(true)).is_none());
    // Without the second barrier the producer overwrites what is being read, or runs into its own arrival.
    let mut launch = Launch::new("k", 1, 64);
    launch.shared_bytes = 4096;
    assert!(simt::run(&launch, &mut [], || kernel(false)(thread_idx())).is_err());
}

#[test]
fn order_is_passed_on() {
    // 0 -> 1 by barrier 1, 1 -> 2 by barrier 2: 2 may read what 0 wrote.
    let kernel = |thread: u32| match thread / 32 {
        0 => {
            store(thread * 4);
            simt::barrier_arrive(1, 64);
        }
        1 => {
            simt::barrier_sync(1, 64);
            simt::barrier_arrive(2, 64);
        }
        _ => {
            simt::barrier_sync(2, 64);
            load(thread % 32 * 4);
        }
    };
    assert!(race(96, kernel).is_none());
}

#[test]
fn a_barrier_of_others_orders_nothing() {
    let kernel = |thread: u32| {
        if thread < 64 {
            if thread == 0 {
                store(0);
            }
            simt::barrier_sync(1, 64);
        } else {
            load(0);
        }
    };
    assert!(race(96, kernel).is_some());
}

#[test]
fn neighbouring_bytes_are_not_the_same_place() {
    assert!(race(32, |lane| simt::store_shared(lane, [0])).is_none());
    assert!(race(32, |lane| simt::store_shared(lane * 2, [0; 2])).is_none());
    assert!(
        race(32, |lane| {
            if lane == 0 {
                simt::store_shared(0, [0; 16]);
            } else {
                simt::store_shared(lane, [0]);
            }
        })
        .is_some()
    );
}

#[test]
fn ldmatrix_reads_for_the_lane_that_gave_the_address() {
    let kernel = |between: fn()| {
        move |lane: u32| {
            simt::store_shared(lane * 16, [0; 16]);
            between();
            simt::ldmatrix::<4>((lane ^ 8) * 16, false);
        }
    };
    assert!(race(32, kernel(|| ())).is_some());
    assert!(race(32, kernel(|| simt::sync_warp(u32::MAX))).is_none());
}

#[test]
fn stmatrix_writes_for_the_lane_that_gave_the_address() {
    let kernel = |between: fn()| {
        move |lane: u32| {
            simt::stmatrix(lane * 16, [lane; 4]);
            between();
            simt::load_shared::<16>((lane ^ 8) * 16);
        }
    };
    assert!(race(32, kernel(|| ())).is_some());
    assert!(race(32, kernel(|| simt::sync_warp(u32::MAX))).is_none());
}

#[test]
fn the_check_can_be_left_out() {
    let mut launch = Launch::new("k", 1, 64);
    (launch.shared_bytes, launch.check_races) = (4, false);
    assert!(simt::run(&launch, &mut [], || store(0)).is_ok());
}

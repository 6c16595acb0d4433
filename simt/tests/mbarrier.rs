//! `mbarrier`.

use simt::{Access, Cause, Fault, Launch, Misuse, thread_idx};

/// Runs a block of `threads` threads under several schedules, which must agree on whether it faults; thread 0 has made an
/// mbarrier of `arrivals` arrivals at address 0, and everyone knows.
fn run(threads: u32, arrivals: u32, kernel: impl Fn(u32)) -> Result<(), Fault> {
    let results: Vec<_> = (0..8)
        .map(|seed| {
            let launch = Launch { shared_bytes: 1024, seed, ..Launch::new("k", 2, threads) };
            let kernel = || {
                if thread_idx() == 0 {
                    simt::mbarrier_init(0, arrivals);
                    simt::fence_proxy_async();
                }
                simt::barrier_sync(0, threads);
                kernel(thread_idx());
            };
            simt::run(&launch, &mut [], kernel).map(drop)
        })
        .collect();
    assert!(results.iter().all(|result| result.is_ok() == results[0].is_ok()), "{results:?}");
    results.into_iter().next().expect("at least one schedule")
}

fn cause(threads: u32, arrivals: u32, kernel: impl Fn(u32)) -> Cause {
    run(threads, arrivals, kernel).expect_err("the kernel is wrong").cause
}

fn misuse(arrivals: u32, kernel: impl Fn(u32)) -> Misuse {
    match cause(32, arrivals, kernel) {
        Cause::Mbarrier { address: _, misuse } => misuse,
        other => panic!("{other}"),
    }
}

fn on(thread: u32, act: impl Fn()) -> impl Fn(u32) {
    move |this| {
        if this == thread {
            act();
        }
    }
}

fn store(address: u32) {
    simt::store_shared(address, [0; 4]);
}

fn load(address: u32) {
    simt::load_shared::<4>(address);
}

#[test]
fn the_phase_before_the_first_is_over() {
    run(32, 1, |_| simt::mbarrier_wait(0, 1)).unwrap();
    let Cause::Deadlock(text) = cause(32, 1, |_| simt::mbarrier_wait(0, 0)) else { panic!() };
    assert!(text.contains("32 threads") && text.contains("phase 0, which lacks 1 arrivals and 0 bytes"), "{text}");
}

#[test]
fn phases_alternate() {
    // Two warps hand one place to and fro.
    let kernel = |thread: u32| {
        for _ in 0..3 {
            if thread == 0 {
                store(256);
            } else if thread == 32 {
                load(512);
            }
            simt::mbarrier_arrive(0);
            simt::mbarrier_wait(0, 0);
            if thread == 32 {
                load(256);
            } else if thread == 0 {
                store(512);
            }
            simt::mbarrier_arrive(0);
            simt::mbarrier_wait(0, 1);
        }
    };
    run(64, 64, kernel).unwrap();
}

#[test]
fn one_thread_speaks_for_itself_alone() {
    let hand_over = |writer: u32| {
        move |thread: u32| {
            if thread == writer {
                store(256);
            }
            if thread == 0 {
                simt::mbarrier_arrive(0);
            }
            if thread == 40 {
                simt::mbarrier_wait(0, 0);
                load(256);
            }
        }
    };
    run(64, 1, hand_over(0)).unwrap();
    assert!(matches!(cause(64, 1, hand_over(1)), Cause::Race { access: Access::Load, address: 256, .. }));
    // Nor does one thread's wait tell its neighbours.
    let neighbour = |thread: u32| {
        if thread == 0 {
            store(256);
            simt::mbarrier_arrive(0);
        }
        if thread == 40 {
            simt::mbarrier_wait(0, 0);
        }
        if thread >= 32 {
            simt::shuffle_xor(u32::MAX, 0, 1);
        }
        if thread == 41 {
            load(256);
        }
    };
    assert!(matches!(cause(64, 1, neighbour), Cause::Race { access: Access::Load, .. }));
}

#[test]
fn what_one_thread_has_learnt_it_hands_on() {
    // Warp 0 to thread 32 by a barrier, on to thread 64 by the mbarrier.
    let kernel = |thread: u32| {
        if thread < 32 {
            store(256 + 4 * thread);
        }
        if thread < 64 {
            simt::barrier_sync(1, 64);
        }
        if thread == 32 {
            simt::mbarrier_arrive(0);
        }
        if thread == 64 {
            simt::mbarrier_wait(0, 0);
            (0..32).for_each(|i| load(256 + 4 * i));
        }
    };
    run(96, 1, kernel).unwrap();
}

#[test]
fn accesses_after_the_arrival_are_not_covered() {
    let kernel = |thread: u32| {
        if thread == 0 {
            simt::mbarrier_arrive(0);
            store(256);
        }
        if thread == 32 {
            simt::mbarrier_wait(0, 0);
            load(256);
        }
    };
    assert!(matches!(cause(64, 1, kernel), Cause::Race { .. }));
}

#[test]
fn a_thread_that_sleeps_through_two_phases_goes_on_waiting() {
    let kernel = |thread: u32| {
        if thread == 0 {
            simt::mbarrier_arrive(0);
            simt::mbarrier_arrive(0);
        } else if thread == 32 {
            simt::barrier_sync(1, 32);
            simt::mbarrier_wait(0, 0);
        } else if thread > 32 {
            simt::barrier_sync(1, 32);
        }
    };
    // Whether it was asleep is up to the schedule.
    let outcomes = (0..40).map(|seed| {
        let launch = Launch { shared_bytes: 64, seed, ..Launch::new("k", 1, 64) };
        let all = || {
            if thread_idx() == 0 {
                simt::mbarrier_init(0, 1);
            }
            simt::barrier_sync(0, 64);
            kernel(thread_idx());
        };
        simt::run(&launch, &mut [], all).is_ok()
    });
    let outcomes: Vec<_> = outcomes.collect();
    assert!(outcomes.contains(&false), "{outcomes:?}");
}

#[test]
fn misuse_is_named() {
    assert_eq!(misuse(1, on(3, || simt::mbarrier_arrive(8))), Misuse::NotInitialised);
    assert_eq!(misuse(1, on(3, || simt::mbarrier_wait(u32::MAX - 7, 0))), Misuse::NotInitialised);
    assert_eq!(misuse(1, on(3, || simt::mbarrier_init(0, 1))), Misuse::AlreadyInitialised);
    assert_eq!(misuse(1, on(3, || simt::mbarrier_init(8, 0))), Misuse::Arrivals(0));
    assert_eq!(misuse(1, on(3, || simt::mbarrier_init(8, 1 << 20))), Misuse::Arrivals(1 << 20));
    assert_eq!(misuse(1, |_| simt::mbarrier_arrive_expecting(0, 16)), Misuse::TooManyArrivals);
    assert_eq!(misuse(1, on(3, || simt::mbarrier_arrive_expecting(0, 1 << 20))), Misuse::Bytes(1 << 20));
    assert_eq!(misuse(1, on(3, || store(4))), Misuse::Touched(Access::Store));
    assert_eq!(misuse(1, on(3, || load(0))), Misuse::Touched(Access::Load));
    let misaligned = cause(32, 1, on(3, || simt::mbarrier_init(12, 1)));
    assert_eq!(misaligned, Cause::MisalignedShared { access: Access::Store, address: 12, bytes: 8, align: 8 });
    assert!(matches!(cause(32, 1, on(3, || simt::mbarrier_init(1024, 1))), Cause::OutOfShared { .. }));
}

#[test]
fn initialising_orders_nothing() {
    let launch = Launch { shared_bytes: 64, ..Launch::new("k", 1, 32) };
    let kernel = |sync: fn()| {
        move || {
            if thread_idx() == 0 {
                simt::mbarrier_init(0, 32);
            }
            sync();
            simt::ballot(u32::MAX, true);
            simt::mbarrier_arrive(0);
        }
    };
    let found = simt::run(&launch, &mut [], kernel(|| ())).unwrap_err().cause;
    assert!(matches!(found, Cause::Race { access: Access::Load, address: 0, .. }), "{found}");
    simt::run(&launch, &mut [], kernel(|| simt::sync_warp(u32::MAX))).unwrap();
}

#[test]
fn barriers_end_with_their_block() {
    // Each of both blocks makes its own; `run` does so.
    run(32, 32, |_| simt::mbarrier_arrive(0)).unwrap();
}

//! Barriers and deadlocks, schedules, and the watchdog.

use std::cell::RefCell;

use simt::{Blocks, Cause, Class, Fault, Launch, Place, Stats, thread_idx};

fn run(threads: u32, seed: u64, kernel: impl Fn(u32)) -> Result<Stats, Fault> {
    let mut launch = Launch::new("k", 1, threads);
    (launch.seed, launch.shared_bytes) = (seed, 1024);
    simt::run(&launch, &mut [], || kernel(thread_idx()))
}

fn cause(threads: u32, kernel: impl Fn(u32)) -> Cause {
    run(threads, 0, kernel).expect_err("the kernel is wrong").cause
}

#[test]
fn nobody_passes_a_barrier_before_all_are_there() {
    for seed in 0..20 {
        let there = RefCell::new(0);
        run(128, seed, |_| {
            *there.borrow_mut() += 1;
            simt::barrier_sync(0, 128);
            assert_eq!(*there.borrow(), 128);
        })
        .unwrap();
    }
}

#[test]
fn named_barriers_gather_some_of_the_warps() {
    // Warps 0 and 1 meet ten times; 2 and 3 never wait for them.
    let stats = run(128, 1, |thread| {
        if thread < 64 {
            (0..10).for_each(|_| simt::barrier_sync(3, 64));
        } else {
            (0..7).for_each(|_| simt::barrier_sync(4, 64));
        }
    });
    assert_eq!(stats.unwrap().barriers, 2 * 10 + 2 * 7);
}

#[test]
fn who_arrives_does_not_wait() {
    for seed in 0..20 {
        let log = RefCell::new(Vec::new());
        run(64, seed, |thread| {
            if thread < 32 {
                simt::barrier_arrive(1, 64);
                log.borrow_mut().push(0);
                simt::barrier_sync(2, 64);
            } else {
                simt::barrier_sync(1, 64);
                log.borrow_mut().push(1);
                simt::barrier_arrive(2, 64);
            }
        })
        .unwrap();
        assert_eq!(log.borrow().len(), 64);
    }
}

#[test]
fn a_warp_that_skips_a_barrier_is_a_deadlock() {
    let fault = run(96, 0, |thread| {
        if thread >= 32 {
            simt::barrier_sync(5, 96);
        }
    })
    .unwrap_err();
    assert_eq!(fault.place, Place::Block(0));
    assert_eq!(fault.cause.class(), Class::Deadlock);
    assert_eq!(
        fault.to_string(),
        "kernel k, block 0: deadlock: 64 of 96 threads arrived at barrier 5, where warps 1, 2 wait"
    );
}

#[test]
fn two_groups_that_wait_for_each_other_are_a_deadlock() {
    let Cause::Deadlock(text) = cause(64, |thread| simt::barrier_sync(thread / 32, 64)) else { panic!() };
    assert_eq!(
        text,
        "32 of 64 threads arrived at barrier 0, where warps 0 wait; \
         32 of 64 threads arrived at barrier 1, where warps 1 wait"
    );
}

#[test]
fn lanes_that_skip_a_barrier_are_a_fault() {
    let found = cause(64, |thread| {
        if thread != 40 {
            simt::barrier_sync(0, 64);
        }
    });
    assert!(matches!(found, Cause::Exited { exited: 40, .. }), "{found}");
    let found = cause(32, |thread| match thread {
        0 => simt::sync_warp(u32::MAX),
        _ => simt::barrier_sync(0, 32),
    });
    assert!(matches!(found, Cause::Diverged { .. }), "{found}");
}

#[test]
fn bad_barriers_are_faults() {
    for (id, threads) in [(16, 64), (0, 0), (0, 33), (0, 96)] {
        assert!(matches!(cause(64, |_| simt::barrier_sync(id, threads)), Cause::Barrier { block_dim: 64, .. }));
    }
    let found = cause(96, |thread| match thread / 32 {
        0 => simt::barrier_sync(0, 96),
        1 => simt::barrier_sync(0, 64),
        _ => (),
    });
    assert!(matches!(found, Cause::BarrierCount { .. }), "{found}");
}

#[test]
fn endless_loops_are_caught() {
    let mut launch = Launch::new("k", 1, 32);
    launch.budget = 10_000;
    for endless in [|| simt::sync_warp(u32::MAX), || simt::cp_async_commit()] {
        let fault = simt::run(&launch, &mut [], || {
            loop {
                endless();
            }
        });
        assert_eq!(fault.unwrap_err().cause, Cause::Hang(10_000));
    }
}

/// The order in which warps of a block pass through a loop.
fn order(seed: u64, blocks: Blocks<'_>) -> Vec<u32> {
    let log = RefCell::new(Vec::new());
    let mut launch = Launch::new("k", 4, 128);
    (launch.seed, launch.blocks) = (seed, blocks);
    simt::run(&launch, &mut [], || {
        for _ in 0..20 {
            simt::sync_warp(u32::MAX);
            log.borrow_mut().push(thread_idx());
        }
    })
    .unwrap();
    log.take()
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(order(1, Blocks::All), order(1, Blocks::All));
    assert_ne!(order(1, Blocks::All), order(2, Blocks::All));
    // A block's schedule is its own.
    let all = order(1, Blocks::All);
    let (one, block) = (order(1, Blocks::Only(&[2])), all.len() / 4);
    assert_eq!(one, all[2 * block..3 * block]);
    assert_ne!(one, all[..block]);
}

#[test]
fn bad_launches_are_refused() {
    for threads in [0, 31, 1056] {
        let fault = simt::run(&Launch::new("k", 1, threads), &mut [], || ()).unwrap_err();
        assert_eq!((fault.place, fault.cause), (Place::Launch, Cause::Threads(threads)));
    }
    let mut launch = Launch::new("k", 2, 1024);
    assert_eq!(simt::run(&launch, &mut [], || ()).unwrap().blocks, 2);
    launch.blocks = Blocks::Only(&[1, 2]);
    assert_eq!(simt::run(&launch, &mut [], || ()).unwrap_err().cause, Cause::NoSuchBlock { block: 2, grid: 2 });
}

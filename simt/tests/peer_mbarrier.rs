//! Arrivals at barriers of other blocks of a cluster.

use simt::{Access, Actor, Cause, Fault, Launch, Misuse, thread_idx};

/// Runs a cluster of two blocks with 64 threads each under several schedules, which must agree on whether it faults; each has
/// mbarriers of `arrivals` arrivals at addresses 0 and 8, and everyone knows. Nobody leaves before all are through.
fn run(arrivals: u32, kernel: impl Fn(u32, u32)) -> Result<(), Fault> {
    let results: Vec<_> = (0..8)
        .map(|seed| {
            let launch = Launch { cluster: 2, shared_bytes: 1024, seed, ..Launch::new("k", 2, 64) };
            let kernel = || {
                if thread_idx() == 0 {
                    simt::mbarrier_init(0, arrivals);
                    simt::mbarrier_init(8, arrivals);
                    simt::fence_proxy_async();
                }
                sync();
                kernel(simt::cluster_rank(), thread_idx());
                sync();
            };
            simt::run(&launch, &mut [], kernel).map(drop)
        })
        .collect();
    assert!(results.iter().all(|result| result.is_ok() == results[0].is_ok()), "{results:?}");
    results.into_iter().next().expect("at least one schedule")
}

fn cause(arrivals: u32, kernel: impl Fn(u32, u32)) -> Cause {
    run(arrivals, kernel).expect_err("the kernel is wrong").cause
}

fn sync() {
    simt::cluster_arrive();
    simt::cluster_wait();
}

fn arrive_at(rank: u32, address: u32) {
    simt::mbarrier_arrive_cluster(simt::map_cluster(address, rank));
}

fn store_to(rank: u32, address: u32) {
    simt::store_cluster(simt::map_cluster(address, rank), [0; 4]);
}

#[test]
fn blocks_hand_a_place_to_and_fro() {
    run(64, |rank, thread| {
        let place = 256 + 4 * thread;
        for round in 0..5 {
            if rank == 0 {
                store_to(1, place);
                arrive_at(1, 0);
                simt::mbarrier_wait_cluster(0, round % 2);
            } else {
                simt::mbarrier_wait_cluster(0, round % 2);
                simt::load_shared::<4>(place);
                arrive_at(0, 0);
            }
        }
    })
    .unwrap();
}

#[test]
fn arrivals_of_all_blocks_count() {
    run(3, |_, thread| {
        if thread == 0 {
            arrive_at(0, 0);
            arrive_at(1, 0);
        } else if thread == 40 {
            simt::mbarrier_arrive(0);
        }
        simt::mbarrier_wait(0, 0);
    })
    .unwrap();
    let one_short = cause(3, |_, thread| {
        if thread == 0 {
            arrive_at(0, 0);
            simt::mbarrier_arrive(0);
        }
        simt::mbarrier_wait(0, 0);
    });
    let Cause::Deadlock(text) = one_short else { panic!("{one_short}") };
    assert!(text.contains("phase 0, which lacks 2 arrivals and 0 bytes"), "{text}");
}

/// Block 0 stores to block 1 and arrives there by `tell`; block 1 waits by `hear` and loads.
fn hand_over(tell: fn(), hear: fn()) -> Result<(), Fault> {
    run(1, |rank, thread| {
        if (rank, thread) == (0, 7) {
            store_to(1, 256);
            tell();
        } else if (rank, thread) == (1, 40) {
            hear();
            simt::load_shared::<4>(256);
        }
    })
}

#[test]
fn a_wait_of_the_clusters_scope_learns_of_peers() {
    let (tell, hear) = (|| arrive_at(1, 0), || simt::mbarrier_wait_cluster(0, 0));
    hand_over(tell, hear).unwrap();
    for (tell, hear) in [(tell as fn(), (|| ()) as fn()), (tell, || simt::mbarrier_wait(0, 0)), (|| (), || ())] {
        let found = hand_over(tell, hear).unwrap_err().cause;
        let Cause::Race { address: 256, other: Actor::Peer { .. }, .. } = found else { panic!("{found}") };
    }
}

#[test]
fn what_was_learnt_of_peers_is_handed_on() {
    // Block 0's thread 7 to block 1's thread 0, and on to that one's neighbour.
    run(1, |rank, thread| match (rank, thread) {
        (0, 7) => {
            store_to(1, 256);
            arrive_at(1, 0);
        }
        (1, 0) => {
            simt::mbarrier_wait_cluster(0, 0);
            simt::mbarrier_arrive(8);
        }
        (1, 40) => {
            simt::mbarrier_wait(8, 0);
            simt::load_shared::<4>(256);
        }
        _ => {}
    })
    .unwrap();
}

#[test]
fn accesses_after_the_arrival_are_not_covered() {
    let found = cause(1, |rank, thread| match (rank, thread) {
        (0, 0) => {
            arrive_at(1, 0);
            store_to(1, 256);
        }
        (1, 0) => {
            simt::mbarrier_wait_cluster(0, 0);
            simt::load_shared::<4>(256);
        }
        _ => {}
    });
    assert!(matches!(found, Cause::Race { address: 256, .. }), "{found}");
}

#[test]
fn misuse_is_named() {
    let by_one = |act: fn()| {
        move |rank: u32, thread: u32| {
            if (rank, thread) == (0, 3) {
                act();
            }
        }
    };
    assert_eq!(cause(1, by_one(|| arrive_at(2, 0))), Cause::NoPeer { rank: 2, cluster: 2 });
    let none = Cause::Mbarrier { address: 16, misuse: Misuse::NotInitialised };
    assert_eq!(cause(1, by_one(|| arrive_at(1, 16))), none);
    let touched = Cause::Mbarrier { address: 0, misuse: Misuse::Touched(Access::Store) };
    assert_eq!(cause(1, by_one(|| store_to(1, 0))), touched);
    let launch = Launch { cluster: 2, shared_bytes: 64, ..Launch::new("k", 2, 32) };
    let early = simt::run(&launch, &mut [], || {
        arrive_at(1 - simt::cluster_rank(), 0);
    });
    assert!(matches!(early.unwrap_err().cause, Cause::PeerNotStarted { .. }));
}

#[test]
fn exited_blocks_take_no_arrivals() {
    let outcomes: Vec<_> = (0..30)
        .map(|seed| {
            let launch = Launch { cluster: 2, shared_bytes: 64, seed, ..Launch::new("k", 2, 64) };
            simt::run(&launch, &mut [], || {
                if thread_idx() == 0 {
                    simt::mbarrier_init(0, 64);
                    simt::fence_proxy_async();
                }
                sync();
                if simt::cluster_rank() == 0 {
                    simt::barrier_sync(0, 64);
                    arrive_at(1, 0);
                }
            })
        })
        .collect();
    let causes = outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).map(|fault| &fault.cause);
    assert!(causes.clone().count() > 0 && causes.into_iter().all(|cause| *cause == Cause::PeerExited { rank: 1 }));
}

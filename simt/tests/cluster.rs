//! Clusters.

use simt::{Access, Actor, Blocks, Buffer, Cause, Fault, Launch, Place, address_of, thread_idx};

fn launch(cluster: u32, seed: u64) -> Launch<'static> {
    Launch { cluster, shared_bytes: 264, seed, ..Launch::new("k", 2 * cluster, 64) }
}

/// Runs two clusters under several schedules, which must agree on whether it faults.
fn run(cluster: u32, kernel: impl Fn(u32)) -> Result<(), Fault> {
    let results: Vec<_> =
        (0..8).map(|seed| simt::run(&launch(cluster, seed), &mut [], || kernel(thread_idx())).map(drop)).collect();
    assert!(results.iter().all(|result| result.is_ok() == results[0].is_ok()), "{results:?}");
    results.into_iter().next().expect("at least one schedule")
}

fn cause(cluster: u32, kernel: impl Fn(u32)) -> Cause {
    run(cluster, kernel).expect_err("the kernel is wrong").cause
}

fn sync() {
    simt::cluster_arrive();
    simt::cluster_wait();
}

fn store_to(rank: u32, address: u32, value: u32) {
    simt::store_cluster(simt::map_cluster(address, rank), value.to_le_bytes());
}

/// Every thread writes its number and rank to the next block, which passes it on to the output.
#[test]
fn blocks_write_each_others_memory() {
    for (cluster, seed) in [(2, 0), (3, 1), (8, 2)] {
        let blocks = 2 * cluster;
        let mut output = vec![0; (blocks * 64 * 4) as usize];
        simt::run(&launch(cluster, seed), &mut [Buffer::write("out", &mut output)], || {
            let (thread, rank) = (thread_idx(), simt::cluster_rank());
            sync();
            store_to((rank + 1) % cluster, 4 * thread, 1000 * rank + thread);
            sync();
            let at = u64::from(4 * (simt::block_idx() * 64 + thread));
            simt::store_global::<4>(address_of(0) + at, simt::load_shared(4 * thread));
        })
        .unwrap();
        for (i, word) in (0..).zip(output.chunks(4)) {
            let (rank, thread) = (i / 64 % cluster, i % 64);
            assert_eq!(word, (1000 * ((rank + cluster - 1) % cluster) + thread).to_le_bytes());
        }
    }
}

#[test]
fn memory_barriers_and_names_are_each_blocks_own() {
    run(2, |thread| {
        assert_eq!(simt::block_idx() % 2, simt::cluster_rank());
        assert!(thread < 64 && simt::block_dim() == 64 && simt::grid_dim() == 4);
        simt::store_shared(4 * thread, simt::cluster_rank().to_le_bytes());
        simt::barrier_sync(0, 64);
        let other = simt::load_shared(4 * (63 - thread));
        assert_eq!(u32::from_le_bytes(other), simt::cluster_rank());
        if thread == 0 {
            simt::mbarrier_init(256, 1);
            simt::mbarrier_arrive(256);
            simt::mbarrier_wait(256, 0);
        }
    })
    .unwrap();
}

#[test]
fn peers_race_too() {
    let unordered = cause(2, |thread| {
        sync();
        if thread == 0 && simt::cluster_rank() == 0 {
            store_to(1, 8, 1);
        }
        if thread == 5 && simt::cluster_rank() == 1 {
            simt::load_shared::<4>(8);
        }
        // Nobody leaves before.
        sync();
    });
    let Cause::Race { address: 8, other: Actor::Peer { rank, thread }, .. } = unordered else { panic!("{unordered}") };
    assert!([(0, 0), (1, 5)].contains(&(rank, thread)));
}

#[test]
fn peers_must_be_known_to_run() {
    let early = cause(2, |_| {
        if simt::cluster_rank() == 0 {
            store_to(1, 0, 0);
        }
    });
    assert_eq!(early, Cause::PeerNotStarted { rank: 1 });
    assert_eq!(cause(2, |_| store_to(2, 0, 0)), Cause::NoPeer { rank: 2, cluster: 2 });
    // Block 1 has nothing to wait for after the barrier.
    let outcomes = (0..30).map(|seed| {
        simt::run(&launch(2, seed), &mut [], || {
            sync();
            if simt::cluster_rank() == 0 {
                simt::barrier_sync(0, 64);
                store_to(1, 4 * thread_idx(), 0);
            }
        })
        .map(drop)
    });
    let outcomes: Vec<_> = outcomes.collect();
    let causes = outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).map(|fault| &fault.cause);
    assert!(causes.clone().count() > 0 && causes.into_iter().all(|cause| *cause == Cause::PeerExited { rank: 1 }));
    let outside = cause(2, |_| {
        sync();
        store_to(0, 264, 0);
    });
    assert!(matches!(outside, Cause::OutOfShared { access: Access::Store, address: 264, bytes: 4, size: 264 }));
}

#[test]
fn arrivals_and_waits_alternate() {
    assert!(matches!(cause(2, |_| simt::cluster_wait()), Cause::ClusterBarrier(_)));
    let twice = |_| {
        simt::cluster_arrive();
        simt::cluster_arrive();
    };
    assert!(matches!(cause(1, twice), Cause::ClusterBarrier(_)));
}

#[test]
fn exited_warps_are_not_waited_for() {
    run(2, |thread| {
        if thread < 32 {
            sync();
            sync();
        }
    })
    .unwrap();
    let Cause::Deadlock(text) = cause(2, |thread| {
        if simt::cluster_rank() == 0 {
            sync();
        } else {
            simt::barrier_sync(1 + thread / 32, 64);
        }
    }) else {
        panic!()
    };
    assert!(text.contains("2 warps arrived at the cluster's barrier, where warps 0, 1 wait"), "{text}");
    assert!(text.contains("32 of 64 threads arrived at barrier 2, where warps 3 wait"), "{text}");
}

#[test]
fn faults_name_the_block_of_the_grid() {
    let fault = simt::run(&launch(2, 0), &mut [], || {
        if simt::block_idx() == 3 && thread_idx() == 7 {
            simt::trap("here");
        }
    });
    assert_eq!(fault.unwrap_err().place, Place::Thread { block: 3, thread: 7 });
}

#[test]
fn selection_is_by_clusters() {
    let mut output = vec![0; 16];
    let launch = Launch { blocks: Blocks::Only(&[1]), ..launch(2, 0) };
    let stats = simt::run(&launch, &mut [Buffer::write("out", &mut output)], || {
        if thread_idx() == 0 {
            simt::store_global(address_of(0) + u64::from(4 * simt::block_idx()), [1; 4]);
        }
    });
    assert_eq!((stats.unwrap().blocks, output[..8].to_vec(), output[8..].to_vec()), (2, vec![0; 8], vec![1; 8]));
    let beyond = simt::run(&Launch { blocks: Blocks::Only(&[2]), ..launch }, &mut [], || ()).unwrap_err();
    assert_eq!(beyond.to_string(), "kernel k: block 2 is selected, but the grid has 2");
}

#[test]
fn impossible_clusters_are_refused() {
    for (cluster, grid, threads) in [(0, 4, 32), (9, 9, 32), (2, 3, 32), (8, 8, 1024)] {
        let launch = Launch { cluster, ..Launch::new("k", grid, threads) };
        let found = simt::run(&launch, &mut [], || ()).unwrap_err().cause;
        assert_eq!(found, Cause::Cluster { cluster, grid, threads });
    }
    let launch = Launch { shared_bytes: (1 << 20) + 1, ..Launch::new("k", 1, 32) };
    assert_eq!(simt::run(&launch, &mut [], || ()).unwrap_err().cause, Cause::SharedBytes((1 << 20) + 1));
}

//! Bulk copies to several blocks of a cluster.

use simt::{Access, Actor, Buffer, Cause, Fault, Launch, Misuse, Place, Stats, TensorMap, address_of, thread_idx};

/// Bytes of a box of 8 rows.
const BOX: u32 = 8 * 128;
/// Where boxes go in a block, from which its barrier comes first.
const TO: u32 = 1024;
/// Threads of a block.
const THREADS: u32 = 32;

/// Boxes one below the other.
fn map() -> TensorMap {
    TensorMap { address: address_of(0), extents: [64, 16, 1, 1], strides: [128, 16, 16], rows: 8 }
}

/// Two boxes, each element another number.
fn tensor() -> Vec<u8> {
    (1..=2 * BOX as u16 / 2).flat_map(u16::to_le_bytes).collect()
}

/// The box as it lies in shared memory.
fn permuted(index: usize) -> Vec<u8> {
    let tensor = tensor();
    let rows = tensor.chunks(128).skip(8 * index).take(8).zip(0..);
    rows.flat_map(|(row, r)| (0..8).flat_map(move |chunk: usize| row[(chunk ^ r) * 16..][..16].to_vec())).collect()
}

/// Runs one cluster of blocks that all have a barrier of one arrival at 0, of which all know. Gives the output of 2048 bytes a
/// block.
fn run(cluster: u32, seed: u64, kernel: impl Fn(u32, bool)) -> Result<(Vec<u8>, Stats), Fault> {
    let input = tensor();
    let mut output = vec![0; (2 * BOX * cluster) as usize];
    let launch = Launch { cluster, shared_bytes: TO + 2 * BOX, seed, ..Launch::new("k", cluster, THREADS) };
    let stats = simt::run(&launch, &mut [Buffer::read("in", &input), Buffer::write("out", &mut output)], || {
        let leads = thread_idx() == 0;
        if leads {
            simt::mbarrier_init(0, 1);
            simt::fence_proxy_async();
        }
        sync();
        kernel(simt::cluster_rank(), leads);
    })?;
    Ok((output, stats))
}

fn cause(cluster: u32, kernel: impl Fn(u32, bool)) -> Cause {
    run(cluster, 0, kernel).expect_err("the kernel is wrong").cause
}

fn sync() {
    simt::cluster_arrive();
    simt::cluster_wait();
}

/// Copies one box to its place in these blocks.
fn load(index: u32, blocks: u16) {
    simt::tma_load_multicast(TO + index * BOX, &map(), 0, [0, 8 * index, 0, 0], blocks);
}

fn read_back(index: u32) {
    let at = address_of(1) + u64::from((2 * simt::cluster_rank() + index) * BOX);
    for i in (16 * thread_idx()..BOX).step_by(16 * THREADS as usize) {
        simt::store_global::<16>(at + u64::from(i), simt::load_shared(TO + index * BOX + i));
    }
}

#[test]
fn every_addressed_block_gets_the_box() {
    for seed in 0..10 {
        // Blocks 0 and 2 bring a box each: to all, and to the two last.
        let kernel = |rank: u32, leads: bool| {
            let second = rank >= 1;
            if leads {
                simt::mbarrier_arrive_expecting(0, BOX * (1 + u32::from(second)));
                match rank {
                    0 => load(0, 0b111),
                    2 => load(1, 0b110),
                    _ => {}
                }
            }
            simt::mbarrier_wait(0, 0);
            read_back(0);
            if second {
                read_back(1);
            }
        };
        let (output, stats) = run(3, seed, kernel).unwrap();
        let (first, second) = (permuted(0), permuted(1));
        let expected = [&first, &vec![0; BOX as usize], &first, &second, &first, &second];
        assert!(output == expected.map(|part| part.as_slice()).concat(), "seed {seed}");
        // Read once, written to each.
        assert_eq!((stats.bulk_copies, stats.bulk_copy_bytes), (2, u64::from(5 * BOX)));
        assert_eq!(stats.global_load_bytes, u64::from(2 * BOX));
    }
}

#[test]
fn blocks_get_it_at_times_of_their_own() {
    // Whoever comes first after the cluster's barrier may find the box here, there, in both or in neither.
    let mut found = [false; 4];
    for seed in 0..100 {
        let launch =
            Launch { cluster: 2, shared_bytes: TO + BOX, seed, check_races: false, ..Launch::new("k", 2, THREADS) };
        let input = tensor();
        let mut output = vec![0; 8];
        simt::run(&launch, &mut [Buffer::read("in", &input), Buffer::write("out", &mut output)], || {
            let leads = thread_idx() == 0;
            if leads {
                simt::mbarrier_init(0, 1);
                simt::fence_proxy_async();
            }
            sync();
            if leads {
                simt::mbarrier_arrive_expecting(0, BOX);
                if simt::cluster_rank() == 0 {
                    load(0, 0b11);
                }
            }
            sync();
            if leads {
                let at = address_of(1) + u64::from(4 * simt::cluster_rank());
                simt::store_global::<4>(at, simt::load_shared(TO));
            }
            simt::mbarrier_wait(0, 0);
        })
        .unwrap();
        let landed = |word: &[u8]| match word {
            [0xff, 0xff, 0xff, 0xff] => 0,
            [1, 0, 2, 0] => 1,
            other => panic!("{other:?}"),
        };
        found[landed(&output[..4]) + 2 * landed(&output[4..])] = true;
    }
    assert_eq!(found, [true; 4]);
}

#[test]
fn reading_without_a_wait_is_caught_in_any_block() {
    let mut kinds = [0; 2];
    for seed in 0..30 {
        let fault = run(2, seed, |rank, leads| {
            if leads {
                simt::mbarrier_arrive_expecting(0, BOX);
                if rank == 0 {
                    load(0, 0b11);
                }
            }
            sync();
            if rank == 1 && leads {
                simt::load_shared::<4>(TO);
            }
            simt::mbarrier_wait(0, 0);
        });
        let fault = fault.unwrap_err();
        assert_eq!(fault.place, Place::Thread { block: 1, thread: 0 });
        match fault.cause {
            Cause::InFlight { access: Access::Load, address: TO, issuer, .. } => {
                assert_eq!(issuer, Actor::Peer { rank: 0, thread: 0 });
                kinds[0] += 1;
            }
            Cause::Race { access: Access::Load, address: TO, other: Actor::Copy, .. } => kinds[1] += 1,
            other => panic!("{other}"),
        }
    }
    assert!(kinds.iter().all(|&count| count > 0), "{kinds:?}");
}

#[test]
fn one_blocks_wait_tells_nothing_of_the_others_box() {
    // A place is stored to by another block as soon as that has its own box.
    for seed in 0..10 {
        let fault = run(2, seed, |rank, leads| {
            if leads {
                simt::mbarrier_arrive_expecting(0, BOX);
                if rank == 0 {
                    load(0, 0b11);
                    simt::mbarrier_wait(0, 0);
                    simt::store_cluster(simt::map_cluster(TO, 1), [0; 4]);
                }
            }
            simt::mbarrier_wait(0, 0);
            sync();
        });
        let cause = fault.unwrap_err().cause;
        assert!(matches!(cause, Cause::InFlight { .. } | Cause::Race { other: Actor::Copy, .. }), "{cause}");
    }
}

/// Block 1 reads its place and lets block 0 know by `tell`; block 0 listens by `hear` and brings a box there.
fn replace(seed: u64, tell: fn(u32), hear: fn(u32)) -> Result<(), Fault> {
    let kernel = |rank: u32, leads: bool| {
        if leads && rank == 1 {
            simt::store_shared(TO, [0; 4]);
            simt::load_shared::<4>(TO);
            simt::fence_proxy_async();
            simt::mbarrier_arrive_expecting(0, BOX);
            tell(8);
            simt::mbarrier_wait(0, 0);
            simt::load_shared::<4>(TO);
        } else if leads {
            hear(8);
            load(0, 0b10);
        }
        // Nobody leaves before.
        sync();
    };
    let kernel = |rank: u32, leads: bool| {
        if leads {
            simt::mbarrier_init(8, 1);
        }
        sync();
        kernel(rank, leads);
    };
    run(2, seed, kernel).map(drop)
}

#[test]
fn destinations_must_be_free_in_every_block() {
    let tell = |address: u32| simt::mbarrier_arrive_cluster(simt::map_cluster(address, 0));
    for seed in 0..10 {
        replace(seed, tell, |address| simt::mbarrier_wait_cluster(address, 0)).unwrap();
        for (tell, hear) in [
            (tell as fn(u32), (|_| ()) as fn(u32)),
            (tell, |address| simt::mbarrier_wait(address, 0)),
            (|_| (), |_| ()),
        ] {
            let found = replace(seed, tell, hear).unwrap_err().cause;
            assert!(matches!(found, Cause::Race { .. } | Cause::InFlight { .. }), "{found}");
        }
    }
}

#[test]
fn bad_sets_of_blocks_are_named() {
    let lead = |act: fn()| {
        move |rank: u32, leads: bool| {
            if rank == 0 && leads {
                act();
            }
        }
    };
    assert_eq!(cause(2, lead(|| load(0, 0b100))), Cause::NoPeer { rank: 2, cluster: 2 });
    assert_eq!(cause(1, lead(|| load(0, 0b10))), Cause::NoPeer { rank: 1, cluster: 1 });
    assert_eq!(cause(2, lead(|| load(0, 0))), Cause::ToNobody);
    let early = simt::run(
        &Launch { cluster: 2, shared_bytes: TO + BOX, ..Launch::new("k", 2, THREADS) },
        &mut [Buffer::read("in", &tensor())],
        || {
            if simt::cluster_rank() == 0 {
                load(0, 0b10);
            }
        },
    );
    assert_eq!(early.unwrap_err().cause, Cause::PeerNotStarted { rank: 1 });
}

#[test]
fn every_addressed_block_has_a_barrier_that_copies_may_use() {
    let kernel = |barrier: fn(u32)| {
        move |rank: u32, leads: bool| {
            if leads {
                barrier(rank);
            }
            sync();
            if leads && rank == 0 {
                simt::tma_load_multicast(TO, &map(), 8, [0; 4], 0b11);
            }
            sync();
        }
    };
    let only_one = kernel(|rank| {
        if rank == 0 {
            simt::mbarrier_init(8, 1);
            simt::fence_proxy_async();
        }
    });
    assert_eq!(cause(2, only_one), Cause::Mbarrier { address: 8, misuse: Misuse::NotInitialised });
    let one_unpublished = kernel(|rank| {
        simt::mbarrier_init(8, 1);
        if rank == 0 {
            simt::fence_proxy_async();
        }
    });
    assert_eq!(cause(2, one_unpublished), Cause::Mbarrier { address: 8, misuse: Misuse::Unpublished });
}

#[test]
fn blocks_do_not_end_before_copies_to_them() {
    // Block 1 does not wait for its box, which comes before its end, after it, or is issued after it.
    let (mut landed, mut under_way, mut late) = (0, 0, 0);
    for seed in 0..60 {
        let outcome = run(2, seed, |rank, leads| {
            if rank == 0 && leads {
                simt::mbarrier_arrive_expecting(0, BOX);
                load(0, 0b11);
                simt::mbarrier_wait(0, 0);
            }
        });
        match outcome {
            Ok(_) => landed += 1,
            Err(Fault { place: Place::Block(1), cause: Cause::Unfinished(1), .. }) => under_way += 1,
            Err(Fault { cause: Cause::PeerExited { rank: 1 }, .. }) => late += 1,
            Err(fault) => panic!("{fault}"),
        }
    }
    assert!(landed > 0 && under_way > 0 && late > 0, "{landed} {under_way} {late}");
}

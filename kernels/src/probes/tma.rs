//! The copy engine (sm_90a): boxes of 8 rows by 64 columns.

use super::{Args, probe};
use crate::gpu::{
    Mbarrier, Shared, arrive_cluster, block_index, cluster_rank, publish_mbarriers, sync_block, thread_index,
    wait_cluster,
};

/// Bytes of a box.
const BOX: u32 = 1024;

/// Boxes of the tensor, one below the other; there is room for them in front of the barrier.
const BOXES: u32 = 3;

/// The barrier, made, that waits for so many boxes.
#[inline(always)]
fn barrier(boxes: u32) -> Mbarrier {
    let full = Mbarrier::new(Shared::base().at(BOXES * BOX));
    if thread_index() == 0 {
        full.init(1);
        publish_mbarriers();
        full.arrive_expecting(boxes * BOX);
    }
    full
}

/// Stores what each place holds to the block's part of the output.
#[inline(always)]
fn store(args: &Args) {
    let mut chunk = thread_index();
    while chunk < BOXES * BOX / 16 {
        let to = args.output((block_index() * BOXES * BOX + chunk * 16) / 4);
        to.store_chunk(Shared::base().at(chunk * 16).load_chunk());
        chunk += 64;
    }
}

probe!(probe_tma_load, |args| {
    let full = barrier(BOXES);
    sync_block();
    if thread_index() == 0 {
        let map = args.map();
        map.prefetch();
        let mut index = 0;
        while index < BOXES {
            map.load(Shared::base().at(index * BOX), full, [0, 1, index * 8, 0]);
            index += 1;
        }
    }
    full.wait(0);
    store(&args);
});

// Clusters of two blocks, each with a head of its own. Each block brings a box to both, and the first the last box to the
// second alone, where the first keeps zeros.
probe!(probe_tma_load_multicast, |args| {
    let (thread, rank) = (thread_index(), cluster_rank());
    let full = barrier(2 + rank);
    if rank == 0 {
        Shared::base().at(2 * BOX + thread * 16).store_chunk([0; 4]);
    }
    arrive_cluster();
    wait_cluster();
    if thread == 0 {
        let (map, head) = (args.map(), block_index() / 2);
        map.load_multicast(Shared::base().at(rank * BOX), full, [0, head, rank * 8, 0], 0b11);
        if rank == 0 {
            map.load_multicast(Shared::base().at(2 * BOX), full, [0, head, 16, 0], 0b10);
        }
    }
    full.wait(0);
    store(&args);
});

//! `mbarrier` (sm_90a).

use super::probe;
use crate::gpu::{
    ClusterShared, Mbarrier, Shared, arrive_cluster, cluster_rank, publish_mbarriers, sync_block, thread_index,
    wait_cluster,
};

// A warp hands values to another through one place per lane, again and again: `full` and `empty` take turns, each phase with
// an arrival of every lane, one of which also expects no bytes.
probe!(probe_mbarrier, |args| {
    let thread = thread_index();
    let lane = thread % 32;
    let full = Mbarrier::new(Shared::base());
    let empty = full.at(1);
    let place = Shared::base().at(64 + lane * 4);
    if thread == 0 {
        full.init(32);
        empty.init(32);
        publish_mbarriers();
    }
    sync_block();
    let mut round = 0;
    while round < 9 {
        if thread < 32 {
            // The phase before the first is over from the start.
            empty.wait((round + 1) % 2);
            place.store_u32(args.input(round * 32 + lane).load_u32());
            if lane == 5 {
                full.arrive_expecting(0);
            } else {
                full.arrive();
            }
        } else {
            full.wait(round % 2);
            args.output(round * 32 + lane).store_u32(place.load_u32());
            empty.arrive();
        }
        round += 1;
    }
});

// The same between two blocks of a cluster, by pairs of values: each waits at its own barrier and arrives at the other's.
probe!(probe_mbarrier_peers, |args| {
    let lane = thread_index();
    let full = Mbarrier::new(Shared::base());
    let empty = full.at(1);
    let place = Shared::base().at(64 + lane * 8);
    if lane == 0 {
        full.init(32);
        empty.init(32);
        publish_mbarriers();
    }
    arrive_cluster();
    wait_cluster();
    let mut round = 0;
    while round < 9 {
        let index = (round * 32 + lane) * 2;
        if cluster_rank() == 0 {
            empty.wait_for_peers((round + 1) % 2);
            ClusterShared::of(1, place).store_pair(args.input(index).load_pair());
            full.arrive_at(1);
        } else {
            full.wait_for_peers(round % 2);
            args.output(index).store_u32(place.load_u32());
            args.output(index + 1).store_u32(place.at(4).load_u32());
            empty.arrive_at(0);
        }
        round += 1;
    }
    // No block leaves while the other still arrives there.
    arrive_cluster();
    wait_cluster();
});

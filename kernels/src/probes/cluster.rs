//! Clusters, of one block (sm_90a).

use super::probe;
use crate::gpu::{ClusterShared, Shared, arrive_cluster, cluster_rank, thread_index, wait_cluster};

probe!(probe_cluster, |args| {
    let thread = thread_index();
    let place = Shared::base().at(64);
    arrive_cluster();
    wait_cluster();
    let pair = args.input(2 * thread).load_pair();
    ClusterShared::of(cluster_rank(), place).at(8 * thread).store_pair(pair);
    arrive_cluster();
    wait_cluster();
    let neighbour = place.at(8 * ((thread + 33) % 64));
    args.output(2 * thread).store_u32(neighbour.load_u32());
    args.output(2 * thread + 1).store_u32(neighbour.at(4).load_u32());
});

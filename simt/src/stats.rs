//! What a launch did, counted.

use core::ops::AddAssign;

macro_rules! stats {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Counts over all blocks of a launch. Memory operations count once per thread, collectives once per warp.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct Stats {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl AddAssign for Stats {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

stats! {
    /// Blocks that ran.
    blocks,
    /// Times a thread was resumed.
    switches,
    /// Operations of all kinds, as the budget counts them.
    operations,
    /// Loads from global memory, copies included.
    global_loads,
    /// Bytes they read.
    global_load_bytes,
    /// Stores to global memory.
    global_stores,
    /// Bytes they wrote.
    global_store_bytes,
    /// Loads from shared memory, without `ldmatrix`.
    shared_loads,
    /// Bytes they read.
    shared_load_bytes,
    /// Stores to shared memory, without copies and `stmatrix`.
    shared_stores,
    /// Bytes they wrote.
    shared_store_bytes,
    /// Shuffles.
    shuffles,
    /// Ballots.
    ballots,
    /// Warp barriers.
    warp_syncs,
    /// Warps' arrivals at block barriers, with or without waiting.
    barriers,
    /// 8 x 8 matrices loaded by `ldmatrix` or stored by `stmatrix`.
    matrices,
    /// `mma.sync.m16n8k16`.
    mmas,
    /// Asynchronous copies issued.
    copies,
    /// Waits for them.
    copy_waits,
    /// Bulk copies issued.
    bulk_copies,
    /// Bytes they wrote, to all blocks together.
    bulk_copy_bytes,
    /// Arrivals at mbarriers.
    mbarrier_arrivals,
    /// Waits at them.
    mbarrier_waits,
    /// Blocks of 16 x 8 elements that `wgmma` added a depth of 16 to.
    wgmma_blocks,
    /// Waits for them.
    wgmma_waits,
    /// Warps' arrivals at the cluster's barrier.
    cluster_barriers,
}

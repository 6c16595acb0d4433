//! A CPU machine that runs GPU kernels written in Rust, one coroutine per GPU thread.
//!
//! A kernel is a function that every thread of every block runs. It reaches the machine through the free functions of
//! this crate, whose names and meanings follow PTX: thread ids, global and shared memory, warp collectives, barriers,
//! matrix instructions, asynchronous copies. Each access is checked; whatever a GPU leaves undefined is a [`Fault`] that
//! names the block and the thread.
//!
//! ```
//! let input = 20u32.to_le_bytes();
//! let mut output = [0; 128];
//! let buffers = &mut [simt::Buffer::read("input", &input), simt::Buffer::write("output", &mut output)];
//! let stats = simt::run(&simt::Launch::new("add", 1, 32), buffers, || {
//!     let value = u32::from_le_bytes(simt::load_global(simt::address_of(0)));
//!     let thread = simt::thread_idx();
//!     simt::store_global(simt::address_of(1) + u64::from(4 * thread), (value + thread).to_le_bytes());
//! })?;
//! assert_eq!(output[124..], 51u32.to_le_bytes());
//! assert_eq!(stats.global_store_bytes, 128);
//! # Ok::<(), simt::Fault>(())
//! ```
//!
//! # Time
//!
//! Blocks run one after another, those of a cluster together. Of their warps one is chosen at random (seeded) and each of
//! its lanes runs until it has to wait: at a collective for the other lanes, at a barrier for other threads. Loads and stores
//! take effect at once; the race check, not the schedule alone, finds the accesses that nothing orders.
//!
//! Operations that run beside the threads leave poison behind. `cp.async` delivers at the wait that names it, `wgmma` reads
//! its operands and delivers at the wait for its group, and bulk copies (TMA) land when the schedule says so and are over for
//! those that wait at their mbarrier.
//!
//! # What is not caught
//!
//! A loop that calls nothing of this crate never ends, and a thread whose stack outgrows 256 KiB takes the process with
//! it: callers that do not trust their kernels run them in a process of their own. Races in global memory are not looked
//! for. A kernel's panic is caught where panics unwind.
//!
//! # Panics
//!
//! The functions that a kernel calls panic outside a launch.

mod access;
mod async_copy;
mod barrier;
mod cluster;
mod events;
mod fault;
mod ffi;
mod global;
mod grid;
mod knowledge;
mod launch;
mod machine;
mod matrix;
mod mbarrier;
mod number;
mod op;
mod product;
mod proxy;
mod race;
mod schedule;
mod shared;
mod stats;
mod thread;
mod tma;
mod warp;
mod wgmma;

pub use access::{Access, Actor};
pub use async_copy::{cp_async, cp_async_commit, cp_async_wait};
pub use barrier::{barrier_arrive, barrier_sync};
pub use cluster::{cluster_arrive, cluster_rank, cluster_wait, map_cluster, store_cluster};
pub use fault::{Cause, Class, Fault, Place};
pub use ffi::{ABI_VERSION, CallError, Entry, RawReport, RawRequest, export};
pub use global::{address_of, load_global, store_global};
pub use grid::await_earlier_grids;
pub use launch::{Blocks, Buffer, Launch, run};
pub use matrix::{MmaKind, ldmatrix, mma_m16n8, stmatrix};
pub use mbarrier::{
    Misuse, mbarrier_arrive, mbarrier_arrive_cluster, mbarrier_arrive_expecting, mbarrier_init, mbarrier_wait,
    mbarrier_wait_cluster,
};
pub use number::{
    bf16_from_f32, e4m3_from_f32, exp2, f16_from_f32, f32_from_bf16, f32_from_e4m3, f32_from_f16, fma, log2,
};
pub use op::Op;
pub use product::{Factors, Product};
pub use proxy::fence_proxy_async;
pub use shared::{load_shared, store_shared};
pub use stats::Stats;
pub use thread::{block_dim, block_idx, grid_dim, thread_idx, trap};
pub use tma::{TensorMap, tma_load, tma_load_multicast};
pub use warp::{ballot, shuffle_idx, shuffle_xor, sync_warp};
pub use wgmma::{Accumulator, wgmma_begin, wgmma_commit, wgmma_end, wgmma_registers, wgmma_shared, wgmma_wait};

/// Threads of a warp.
pub const WARP: u32 = 32;

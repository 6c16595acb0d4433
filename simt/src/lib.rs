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
//! Blocks run one after another. In a block, a warp is chosen at random (seeded) and each of its lanes runs until it has
//! to wait: at a collective for the other lanes, at a barrier for other warps. Loads and stores take effect at once; the
//! race check, not the schedule alone, finds the accesses that nothing orders. Operations that finish later (`cp.async`)
//! leave poison behind and deliver at the wait that names them. Hopper's asynchronous operations fit the same way: a
//! queue per issuing thread, delivery at the wait, and a barrier kind of its own for mbarrier phases.
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

mod async_copy;
mod barrier;
mod fault;
mod ffi;
mod global;
mod launch;
mod machine;
mod matrix;
mod number;
mod race;
mod schedule;
mod shared;
mod stats;
mod thread;
mod warp;

pub use async_copy::{cp_async, cp_async_commit, cp_async_wait};
pub use barrier::{barrier_arrive, barrier_sync};
pub use fault::{Access, Cause, Class, Fault, Op, Place};
pub use ffi::{ABI_VERSION, CallError, Entry, RawReport, RawRequest, export};
pub use global::{address_of, load_global, store_global};
pub use launch::{Blocks, Buffer, Launch, run};
pub use matrix::{MmaKind, ldmatrix, mma_m16n8k16};
pub use number::{bf16_from_f32, exp2, f16_from_f32, f32_from_bf16, f32_from_f16, fma, log2};
pub use shared::{load_shared, store_shared};
pub use stats::Stats;
pub use thread::{block_dim, block_idx, grid_dim, thread_idx, trap};
pub use warp::{ballot, shuffle_idx, shuffle_xor, sync_warp};

/// Threads of a warp.
pub const WARP: u32 = 32;

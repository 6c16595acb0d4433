//! The machine the kernels run on.
//!
//! Each file has one surface and two bodies: PTX (`nvptx64`) and the CPU machine (any other target). Nothing outside
//! this module dereferences a pointer or depends on the code generator. Addresses are integers in typed handles, so
//! that the CPU machine can check each access.

mod async_copy;
mod barrier;
mod cluster;
mod element;
mod global;
mod grid;
mod math;
mod matrix;
mod mbarrier;
mod registers;
mod shared;
mod thread;
mod tma;
mod warp;
pub mod wgmma;

pub use async_copy::{CacheHint, commit, copy_chunk, wait};
pub use barrier::{arrive_group, sync_block, sync_group, sync_warp};
pub use cluster::{ClusterShared, arrive_cluster, cluster_rank, wait_cluster};
pub use element::{Bf16, E4m3, Element, F16, F32, Factor, HALF_BYTES, Half, Kind};
pub use global::Global;
pub use grid::overlap_grids;
pub use math::{divide, exp2, exp2_polynomial, fma, log2, pick_bytes, tanh};
pub use matrix::{load_matrices, load_matrices_transposed, store_matrices};
pub use mbarrier::{Mbarrier, publish_mbarriers, publish_shared};
pub use registers::{grow_registers, shrink_registers};
pub use shared::Shared;
pub use thread::{block_index, grid_blocks, opaque, thread_index};
pub use tma::TensorMap;
pub use warp::{any_lane, shuffle_xor, uniform};

/// What `core` asks for and a kernel never reaches.
#[cfg(target_arch = "nvptx64")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends the kernel with an error that the driver reports.
    unsafe { core::arch::nvptx::trap() }
}

//! A modelled time: what a block's counted operations take where each kind is the bottleneck, times the waves of blocks.
//!
//! It ranks variants by how much work they make of a problem, roughly. It knows nothing of latency, bank conflicts, registers
//! or caches, and is no prediction of a measured time.

use simt::Stats;
use spec::{DeviceLimits, LaunchGeometry, Problem};

/// Clock, in cycles per microsecond.
const CLOCK: f64 = 1500.0;
/// What a launch takes before its first and after its last block, in microseconds.
const LAUNCH_US: f64 = 2.0;
/// Warp instructions that one multiprocessor issues per cycle.
const ISSUE: f64 = 4.0;
/// fp32 multiply-adds of one multiprocessor per cycle.
const MULTIPLY_ADDS: f64 = 128.0;
/// Cycles of a multiprocessor's tensor cores for one m16n8k16.
const MMA: f64 = 2.0;
/// The same for one m16n8k16 of a warpgroup's product.
const WGMMA: f64 = 1.0;
/// Exponentials of one multiprocessor per cycle.
const EXPONENTIALS: f64 = 16.0;
/// Bytes of shared memory that one multiprocessor moves per cycle.
const SHARED: f64 = 128.0;
/// Bytes that one multiprocessor gets from L2 per cycle.
const L2: f64 = 64.0;
/// Bytes that all multiprocessors together get from memory per microsecond.
const MEMORY: f64 = 3e6;
/// Blocks that one multiprocessor keeps resident at most.
const RESIDENT: u32 = 32;

/// Modelled times of one launch, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Times {
    /// With everything in L2.
    pub(super) hot_us: f64,
    /// With everything in memory.
    pub(super) cold_us: f64,
}

/// The times of a launch of which `stats` counts some blocks.
pub(super) fn times_us(problem: &Problem, geometry: &LaunchGeometry, stats: &Stats, limits: &DeviceLimits) -> Times {
    let per_block = |count: u64| count as f64 / stats.blocks.max(1) as f64;
    let scores = problem.visible_scores() as f64 / f64::from(geometry.blocks);
    let dims = f64::from(problem.head_dim_qk + problem.head_dim_v);
    // Collectives count once per warp, memory operations once per thread.
    let per_warp = stats.shuffles + stats.ballots + stats.warp_syncs + stats.barriers + stats.matrices / 4 + stats.mmas;
    let per_thread = stats.global_loads + stats.global_stores + stats.shared_loads + stats.shared_stores;
    let shared_bytes =
        stats.shared_load_bytes + stats.shared_store_bytes + stats.bulk_copy_bytes + stats.matrices * 128;
    let tensor_cores = per_block(stats.mmas) * MMA + per_block(stats.wgmma_blocks) * WGMMA;
    let multiply_adds = if tensor_cores > 0.0 { tensor_cores } else { scores * dims / MULTIPLY_ADDS };
    let cycles = [
        (per_block(per_warp) + per_block(per_thread) / 32.0) / ISSUE,
        multiply_adds,
        scores / EXPONENTIALS,
        per_block(shared_bytes) / SHARED,
        per_block(stats.global_load_bytes + stats.global_store_bytes) / L2,
    ];
    let block = cycles.into_iter().fold(0.0, f64::max);

    let resident = (limits.threads_per_sm / geometry.threads)
        .min(limits.shared_bytes_per_sm / (geometry.shared_bytes + limits.shared_bytes_reserved))
        .clamp(1, RESIDENT);
    // Resident blocks share a multiprocessor; only the last wave leaves some of it idle.
    let at_once = f64::from(resident * limits.multiprocessors);
    let waves = (f64::from(geometry.blocks) / at_once).ceil();
    let per_wave = block * f64::from(resident.min(geometry.blocks.div_ceil(limits.multiprocessors)));
    let hot_us = LAUNCH_US + waves * per_wave / CLOCK;
    Times { hot_us, cold_us: hot_us + problem.bytes() as f64 / MEMORY }
}

#[cfg(test)]
mod tests {
    use spec::{Family, Variant, legal};

    use super::*;

    fn geometry(problem: &Problem) -> LaunchGeometry {
        let variant = Variant::smallest(Family::Tiled).with(spec::Gene::RowLanes, 16).unwrap();
        legal(problem, &variant, &DeviceLimits::H100).unwrap()
    }

    #[test]
    fn more_work_takes_longer() {
        let time = |stats: &Stats, problem: &Problem| times_us(problem, &geometry(problem), stats, &DeviceLimits::H100);
        let few = Stats { blocks: 2, shared_load_bytes: 1 << 22, ..Stats::default() };
        let many = Stats { shared_load_bytes: 1 << 23, ..few };
        assert!(time(&many, &Problem::SEED).hot_us > 1.5 * time(&few, &Problem::SEED).hot_us);
        let longer = Problem::SEED.with_seqlens(16_384, 512);
        assert!(time(&few, &longer).hot_us > 10.0 * time(&few, &Problem::SEED).hot_us);
        assert!(time(&few, &longer).cold_us > time(&few, &longer).hot_us);
    }

    #[test]
    fn nothing_is_faster_than_a_launch() {
        let stats = Stats { blocks: 1, ..Stats::default() };
        assert!(times_us(&Problem::SEED, &geometry(&Problem::SEED), &stats, &DeviceLimits::H100).hot_us > LAUNCH_US);
    }
}

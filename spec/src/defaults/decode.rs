//! Variants for a few query rows over many keys. Times: docs/notes/2026-11-29-decoding.md.

use super::variant;
use crate::legal::packed_rows;
use crate::{DeviceLimits, Family, Gene, Problem, Variant};

/// Query rows of a tile.
const TILE_Q: u16 = 16;

/// Packed rows that are worth reading K and V once for each tile of them; more have other families' taller tiles.
const MOST_ROWS: u32 = 32;

/// How a block holds keys.
#[derive(Clone, Copy)]
struct Rings {
    /// Keys of a warp's step.
    tile_kv: u16,
    warps: u16,
    stages: u16,
    blocks_per_sm: u16,
}

const fn rings(tile_kv: u16, warps: u16, stages: u16, blocks_per_sm: u16) -> Rings {
    Rings { tile_kv, warps, stages, blocks_per_sm }
}

/// For a few rows of the query heads that share K and V: as many blocks for each of their heads as leave no multiprocessor idle, while
/// each warp has a key tile. The copy engine begins the soonest; over many keys threads copy faster. The last is for GPUs with less
/// shared memory.
pub(super) fn decode(problem: &Problem, limits: &DeviceLimits) -> [Option<Variant>; 3] {
    let rows = packed_rows(problem);
    if rows > MOST_ROWS || problem.needs_features() || problem.dtype.bytes() != 2 {
        return [None; 3];
    }
    let tiles = u64::from(rows.div_ceil(TILE_Q.into())) * u64::from(problem.batch) * u64::from(problem.heads_kv);
    let multiprocessors = u64::from(limits.multiprocessors);
    let head_dim = problem.head_dim_qk.max(problem.head_dim_v);
    let fits = |rings: Rings, cluster: u16| {
        let keys = u32::from(rings.tile_kv * rings.warps * cluster);
        cluster == 1 || tiles * u64::from(cluster) <= multiprocessors && keys <= problem.seqlen_kv
    };
    let with = |copy_engine: bool, rings: Rings, clusters: &[u16]| {
        let largest = clusters.iter().copied().find(|cluster| fits(rings, *cluster));
        let cluster = if limits.sm.has_clusters() { largest? } else { 1 };
        // A launch whose clusters have the GPU to themselves has them spread over all of it; only short ones gain more by an early start.
        let early = limits.sm.launches_early() && (cluster == 1 || problem.seqlen_kv <= 2048);
        let genes = [
            (Gene::TileQ, TILE_Q),
            (Gene::TileKv, rings.tile_kv),
            (Gene::Warps, rings.warps),
            (Gene::Cluster, cluster),
            (Gene::Stages, rings.stages),
            (Gene::QInRegisters, u16::from(head_dim <= 192)),
            (Gene::BlocksPerSm, rings.blocks_per_sm),
            (Gene::CopyEngine, u16::from(copy_engine)),
            (Gene::EarlyLaunch, u16::from(early)),
        ];
        variant(Family::Decode, &genes)
    };
    let least = rings(16, 4, 2, 1);
    let (copied, alone, many) = match head_dim {
        0..=64 => (rings(64, 4, 2, 1), rings(32, 8, 2, 1), rings(32, 4, 3, 2)),
        65..=128 => (rings(32, 4, 2, 1), rings(16, 8, 2, 1), rings(16, 4, 3, 2)),
        _ => (least, least, least),
    };
    let copies = limits.sm.has_copy_engine() && head_dim.is_multiple_of(64);
    [
        if copies { with(true, copied, &[8, 4, 2]) } else { None },
        with(false, if tiles > multiprocessors { many } else { alone }, &[4, 1]),
        with(false, least, &[1]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Features, Sm, defaults};

    fn first(problem: &Problem, sm: Sm) -> Variant {
        defaults(problem, &DeviceLimits::of(sm)).next().unwrap()
    }

    #[test]
    fn decoding_shares_keys_out_over_clusters_while_multiprocessors_are_idle() {
        let genes = |problem: &Problem, sm| {
            let variant = first(problem, sm);
            assert_eq!(variant.family(), Family::Decode, "{problem} on {sm}");
            [Gene::Cluster, Gene::CopyEngine, Gene::BlocksPerSm, Gene::EarlyLaunch].map(|gene| variant.value(gene))
        };
        let step = |batch, keys| Problem { batch, ..Problem::DECODE }.with_seqlens(1, keys);
        for (batch, keys, expected) in [
            (1, 1024, [8, 1, 1, 1]),
            (1, 512, [4, 1, 1, 1]),
            (1, 64, [1, 0, 1, 1]),
            (1, 8192, [8, 1, 1, 0]),
            (4, 8192, [4, 1, 1, 0]),
            (16, 8192, [1, 0, 1, 1]),
            (64, 1024, [1, 0, 2, 1]),
        ] {
            assert_eq!(genes(&step(batch, keys), Sm::Sm90a), expected, "{batch} {keys}");
        }
        assert_eq!(genes(&step(1, 8192), Sm::Sm80), [1, 0, 1, 0], "no clusters there");
        let rows = |seqlen_q, heads_kv| Problem::DECODE.with_heads_kv(heads_kv).with_seqlens(seqlen_q, 8192);
        assert_eq!(genes(&rows(4, 4), Sm::Sm90a), [8, 1, 1, 0], "two tiles of 16 rows");
        assert_ne!(first(&rows(9, 8), Sm::Sm90a).family(), Family::Decode);
        let featured = Problem { features: Features { sinks: true, ..Features::NONE }, ..Problem::DECODE };
        assert_eq!(first(&featured, Sm::Sm90a).family(), Family::Mma);
    }
}

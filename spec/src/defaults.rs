//! Variants to take where nobody has measured which is the fastest.

mod decode;

use decode::decode;

use crate::{BlockOrder, DeviceLimits, Dtype, Family, Gene, Mask, Problem, Variant, legal};

/// Query rows below which a block of the `wgmma` family would be mostly empty.
const WGMMA_ROWS: u32 = 64;

/// Variants that can run the problem on the GPU, the one that should be fastest first. None if no variant can.
///
/// The last one is of the most portable family that takes the problem's dtype; it fits whatever any variant fits.
pub fn defaults(problem: &Problem, limits: &DeviceLimits) -> impl Iterator<Item = Variant> + use<> {
    // One block for each query tile leaves multiprocessors idle (half of them, where a block's own products are as fast as
    // Hopper's), or rows of tiles empty: share the keys out instead.
    let busy = tiles(problem, WGMMA_ROWS) * if Family::Wgmma.runs_on(limits.sm) { 2 } else { 1 };
    let short = problem.seqlen_q < WGMMA_ROWS || busy < u64::from(limits.multiprocessors);
    let first = if problem.dtype == Dtype::E4m3 {
        let early = u16::from(limits.sm.launches_early());
        [e4m3(problem, limits), e4m3_few(early), None, None, None, None]
    } else if short {
        let early = u16::from(limits.sm.launches_early() && !problem.needs_features());
        let tile_q = if problem.seqlen_q <= 16 { 16 } else { 32 };
        let [a, b, c] = [(128, 1), (64, 2), (64, 1)].map(|tile| mma_split(problem, tile_q, tile, early));
        let [d, e, f] = mma_copied(problem, limits);
        [d, e, f, a, b, c]
    } else {
        [wgmma_split(problem, limits), wgmma(problem, limits), None, None, None, None]
    };
    // The smallest tiles of the most portable family fit whatever any fit.
    let exact = if problem.dtype == Dtype::F32 { exact() } else { None };
    let others = [mma(64), mma(32), exact, Some(Variant::smallest(Family::most_portable(problem.dtype)))];
    let (problem, limits) = (*problem, *limits);
    decode(&problem, &limits)
        .into_iter()
        .chain(first)
        .chain(others)
        .flatten()
        .map(move |variant| {
            variant.with(Gene::BlockOrder, order(&problem, &variant, &limits) as u16).unwrap_or(variant)
        })
        .filter(move |variant| legal(&problem, variant, &limits).is_ok())
}

/// The variant with these values, its other genes at their smallest.
fn variant(family: Family, genes: &[(Gene, u16)]) -> Option<Variant> {
    genes.iter().try_fold(Variant::smallest(family), |variant, (gene, value)| variant.with(*gene, *value))
}

/// Query tiles of `rows` rows over all batch entries and heads.
fn tiles(problem: &Problem, rows: u32) -> u64 {
    u64::from(problem.seqlen_q.div_ceil(rows)) * u64::from(problem.batch) * u64::from(problem.heads_q)
}

/// As many query rows a block as leave no multiprocessor idle; where blocks are few, as leave the busiest one the fewest. Long
/// sequences take as wide a key tile as registers hold beside them; others narrow tiles and many stages, whose first keys
/// arrive sooner. The tallest tiles pay under a causal mask only where they can be [folded](BlockOrder::Folded).
fn wgmma(problem: &Problem, limits: &DeviceLimits) -> Option<Variant> {
    let multiprocessors = u64::from(limits.multiprocessors);
    let fills = |rows| tiles(problem, rows) * 4 >= multiprocessors * 3;
    // So many tiles of a block that it hardly matters if some blocks have one more than others.
    let many = |rows| tiles(problem, rows) >= multiprocessors * 4;
    let causal = problem.mask != Mask::Full;
    let long = problem.seqlen_q > if causal { 2048 } else { 1024 };
    let rows = |tile: u32| problem.seqlen_q.next_multiple_of(tile);
    let rounds = |tile: u16| rounds_of(tiles(problem, tile.into()), limits);
    // Rows that the busiest multiprocessor takes, one tile after the other. If they are as many, the tallest tile is the fastest.
    let in_turn = |tile: &u16| rounds(*tile) * u64::from(*tile);
    let quickest = [256, 192, 128].into_iter().min_by_key(in_turn).unwrap_or(128);
    let tall = rows(256) <= rows(192) && if causal { folds(problem, 256) } else { problem.seqlen_q <= 4096 };
    let (tile_q, tile_kv, stages, persistent) = match problem.head_dim_qk.max(problem.head_dim_v) {
        ..=64 if tall && many(256) => (256, 64, 4, true),
        ..=64 if problem.seqlen_q > 2048 && many(192) => (192, 112, 2, !causal),
        ..=64 if many(192) => (192, 64, 4, true),
        ..=64 if !causal && quickest > 128 => (quickest, 64, 4, rounds(quickest) > 1),
        ..=64 if fills(128) && problem.seqlen_q > 512 && causal => (128, 64, 4, deals_pairs(problem, 128, limits)),
        ..=64 if fills(128) && problem.seqlen_q > 512 => (128, 128, 2, false),
        ..=128 if fills(128) && !long => (128, 64, 4, true),
        ..=128 if many(128) && causal && problem.seqlen_q <= 4096 => (128, 80, 3, true),
        ..=128 if fills(128) => (128, 128, 2, true),
        ..=128 => (64, 128, 2, false),
        _ if fills(128) => (128, 64, 2, causal && problem.seqlen_q > 512 && folds(problem, 128) && many(128)),
        _ => (64, 64, 2, false),
    };
    let genes = [
        (Gene::TileQ, tile_q),
        (Gene::TileKv, tile_kv),
        (Gene::Stages, stages),
        (Gene::Overlap, 1),
        (Gene::LazyRescale, 2),
        (Gene::Persistent, u16::from(persistent)),
        // Only where a launch is short.
        (Gene::EarlyLaunch, u16::from(!many(tile_q.into()) && limits.sm.launches_early())),
    ];
    variant(Family::Wgmma, &genes)
}

/// The widest key tiles that shared memory has room for with the turned V and the sums; where query tiles are many
/// and no rows of them see less than others, three consumers, which are faster than that.
fn e4m3(problem: &Problem, limits: &DeviceLimits) -> Option<Variant> {
    let multiprocessors = u64::from(limits.multiprocessors);
    if tiles(problem, 128) * 4 < multiprocessors * 3 {
        return None;
    }
    let many = tiles(problem, 192) >= multiprocessors * 4;
    let (tile_q, tile_kv) = if many && problem.mask == Mask::Full { (192, 96) } else { (128, 160) };
    let genes = [
        (Gene::TileQ, tile_q),
        (Gene::TileKv, tile_kv),
        (Gene::Stages, 2),
        (Gene::Overlap, 1),
        (Gene::LazyRescale, 1),
        (Gene::Persistent, 1),
    ];
    variant(Family::Wgmma, &genes)
}

/// For query tiles that would leave multiprocessors idle.
fn e4m3_few(early: u16) -> Option<Variant> {
    let genes =
        [(Gene::TileQ, 64), (Gene::TileKv, 160), (Gene::Stages, 2), (Gene::Overlap, 1), (Gene::EarlyLaunch, early)];
    variant(Family::Wgmma, &genes)
}

/// A query tile for each multiprocessor or fewer, and warpgroups that share its keys: as many as take a key tile or two. Wider heads
/// leave no shared memory for that, and gain nothing.
fn wgmma_split(problem: &Problem, limits: &DeviceLimits) -> Option<Variant> {
    let alone = tiles(problem, WGMMA_ROWS) <= u64::from(limits.multiprocessors);
    if !alone || problem.mask != Mask::Full || problem.head_dim_qk.max(problem.head_dim_v) > 64 {
        return None;
    }
    let genes = [
        (Gene::TileQ, 64),
        (Gene::TileKv, 128),
        (Gene::KvSplit, if problem.seqlen_kv > 512 { 4 } else { 2 }),
        (Gene::EarlyLaunch, u16::from(limits.sm.launches_early())),
    ];
    variant(Family::Wgmma, &genes)
}

/// Four groups of warps that share the keys of a few query rows, `tile_kv` at a time, through rings of so many stages.
fn mma_split(problem: &Problem, tile_q: u16, (tile_kv, stages): (u16, u16), early: u16) -> Option<Variant> {
    // Permuted rows leave more shared memory than padded ones, where there are enough chunks to permute.
    let permuted = problem.head_dim_qk.is_multiple_of(64) && problem.head_dim_v.is_multiple_of(64);
    let genes = [
        (Gene::TileQ, tile_q),
        (Gene::TileKv, tile_kv),
        (Gene::Warps, tile_q / 16 * 4),
        (Gene::KvSplit, 4),
        (Gene::Stages, stages),
        (Gene::SharedPad, u16::from(!permuted)),
        (Gene::EarlyLaunch, early),
    ];
    variant(Family::Mma, &genes)
}

/// Like [`mma_split`] for as few keys as a block holds most of at once, with Q, K and V brought by the copy engine: query tiles as
/// small as leave a multiprocessor to each, and key tiles that a group need not take two of.
fn mma_copied(problem: &Problem, limits: &DeviceLimits) -> [Option<Variant>; 3] {
    const FEW_KEYS: u32 = 1024;
    if !limits.sm.has_copy_engine() || problem.seqlen_kv > FEW_KEYS {
        return [None; 3];
    }
    let few = problem.seqlen_q <= 16 || tiles(problem, 16) <= u64::from(limits.multiprocessors);
    let tile_q = if few { 16 } else { 32 };
    let keys = problem.seqlen_kv.div_ceil(4);
    let whole = [32, 64, 128].into_iter().find(|tile_kv| keys <= (*tile_kv).into()).map(|tile_kv| (tile_kv, 1));
    [whole, Some((64, 2)), Some((64, 1))].map(|tile| {
        let split = mma_split(problem, tile_q, tile?, 1)?;
        split.with(Gene::QInRegisters, 1)?.with(Gene::CopyEngine, 1)
    })
}

fn mma(tile_kv: u16) -> Option<Variant> {
    let genes = [
        (Gene::TileQ, 64),
        (Gene::TileKv, tile_kv),
        (Gene::Warps, 4),
        (Gene::Stages, 2),
        // Rows of every head_dim can be padded; they cannot all be permuted.
        (Gene::SharedPad, 1),
    ];
    variant(Family::Mma, &genes)
}

/// For elements that no tensor core multiplies as they are.
fn exact() -> Option<Variant> {
    let genes = [
        (Gene::TileQ, 64),
        (Gene::TileKv, 32),
        (Gene::Warps, 8),
        (Gene::RowLanes, 8),
        (Gene::LoadBytes, 16),
        (Gene::SharedPad, 1),
    ];
    variant(Family::Tiled, &genes)
}

/// Whether query tiles can be taken two by two.
fn folds(problem: &Problem, tile_q: u32) -> bool {
    problem.seqlen_q.div_ceil(tile_q).is_multiple_of(2)
}

/// How many of so many pieces of work the busiest multiprocessor gets.
fn rounds_of(work: u64, limits: &DeviceLimits) -> u64 {
    work.div_ceil(limits.multiprocessors.into())
}

/// Whether they can, and every multiprocessor then gets about as many pairs as any other, or so many that it hardly matters.
fn deals_pairs(problem: &Problem, tile_q: u32, limits: &DeviceLimits) -> bool {
    let pairs = tiles(problem, tile_q) / 2;
    let rounds = rounds_of(pairs, limits);
    folds(problem, tile_q) && (rounds > 2 || pairs * 10 >= rounds * u64::from(limits.multiprocessors) * 9)
}

/// Under a causal mask the longest work first. Persistent blocks are dealt theirs beforehand: there, two tiles that are
/// always as much work together, if that deals it evenly. So it is with widest heads and few tiles of each, whose blocks are
/// not persistent.
fn order(problem: &Problem, variant: &Variant, limits: &DeviceLimits) -> BlockOrder {
    let tile_q = variant.value(Gene::TileQ);
    let persistent = variant.value(Gene::Persistent) == 1;
    let wide = variant.family() == Family::Wgmma && problem.head_dim_v > 128 && problem.seqlen_q <= 512;
    match problem.mask {
        Mask::Full => BlockOrder::TilesFirst,
        Mask::Causal(_) if (persistent || wide) && deals_pairs(problem, tile_q, limits) => BlockOrder::Folded,
        Mask::Causal(_) => BlockOrder::GroupsLongestFirst,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::{Align, Sm};

    fn first(problem: &Problem, sm: Sm) -> Option<Variant> {
        defaults(problem, &DeviceLimits::of(sm)).next()
    }

    #[test]
    fn every_head_dim_has_tensor_cores_on_every_gpu() {
        for sm in Sm::ALL {
            for head_dim in (8..=256).step_by(8) {
                for seqlen in [1, 128, 8192] {
                    let problem = Problem::new(1, 8, seqlen, head_dim, Dtype::F16);
                    let family = first(&problem, sm).map(|variant| variant.family());
                    assert!(
                        matches!(family, Some(Family::Mma | Family::Wgmma | Family::Decode)),
                        "{problem} on {sm}: {family:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn hopper_has_its_own_family_for_what_fills_it() {
        for (qk, v) in [(64, 64), (96, 96), (128, 128), (192, 128), (192, 192)] {
            let long =
                Problem { head_dim_qk: qk, head_dim_v: v, ..Problem::new(1, 16, 8192, qk, Dtype::Bf16) }.in_bshd();
            assert_eq!(first(&long, Sm::Sm90a).map(|variant| variant.family()), Some(Family::Wgmma), "{long}");
            assert_eq!(first(&long, Sm::Sm80).map(|variant| variant.family()), Some(Family::Mma), "{long}");
        }
    }

    #[test]
    fn few_tiles_are_as_tall_as_leaves_the_fewest_rounds() {
        for (batch, heads, seqlen, rows) in [(4, 8, 1024, 256), (1, 12, 2048, 192), (4, 8, 512, 128)] {
            let problem = Problem::new(batch, heads, seqlen, 64, Dtype::F16);
            let default = first(&problem, Sm::Sm90a).and_then(|variant| variant.get(Gene::TileQ));
            assert_eq!(default, Some(rows), "{problem}");
        }
    }

    #[test]
    fn few_causal_tiles_are_dealt_in_pairs_where_that_is_even() {
        let order = |batch, heads| {
            let problem = Problem::new(batch, heads, 1024, 64, Dtype::F16).with_mask(Mask::Causal(Align::BottomRight));
            let variant = first(&problem, Sm::Sm90a).unwrap();
            (variant.get(Gene::Persistent), variant.get(Gene::BlockOrder))
        };
        assert_eq!(order(4, 8), (Some(1), Some(BlockOrder::Folded as u16)), "128 pairs for 132 multiprocessors");
        assert_eq!(order(3, 8), (Some(0), Some(BlockOrder::GroupsLongestFirst as u16)), "96 pairs");
    }

    #[test]
    fn keys_are_shared_out_where_queries_are_few() {
        for problem in [Problem::SEED, Problem::new(64, 32, 1024, 128, Dtype::F16).with_seqlens(48, 1024)] {
            for sm in [Sm::Sm80, Sm::Sm90a] {
                let variant = first(&problem, sm).unwrap();
                assert_eq!((variant.family(), variant.get(Gene::KvSplit)), (Family::Mma, Some(4)), "{problem}");
            }
        }
    }

    #[test]
    fn few_keys_are_copied_whole_by_as_many_blocks_as_stay_alone() {
        for (batch, seqlen, head_dim, expected) in [
            (1, 512, 64, (32, 128, 1)),
            (1, 256, 64, (16, 64, 1)),
            (1, 128, 128, (16, 32, 1)),
            (4, 128, 64, (32, 32, 1)),
            (1, 512, 128, (32, 64, 1)),
        ] {
            let problem = Problem::new(batch, 8, seqlen, head_dim, Dtype::F16);
            let variant = first(&problem, Sm::Sm90a).unwrap();
            let [tile_q, tile_kv, stages, copied] =
                [Gene::TileQ, Gene::TileKv, Gene::Stages, Gene::CopyEngine].map(|gene| variant.value(gene));
            assert_eq!((tile_q, tile_kv, stages, copied), (expected.0, expected.1, expected.2, 1), "{problem}");
            assert!(
                legal(&problem, &variant, &DeviceLimits::H100).unwrap().blocks <= DeviceLimits::H100.multiprocessors
            );
            assert_eq!(first(&problem, Sm::Sm80).map(|variant| variant.value(Gene::CopyEngine)), Some(0));
            let mut expanded = problem;
            expanded.strides.k.head = 0;
            assert_eq!(
                first(&expanded, Sm::Sm90a).map(|variant| variant.value(Gene::CopyEngine)),
                Some(0),
                "no box of that"
            );
        }
    }

    #[test]
    fn warpgroups_share_keys_where_tiles_are_as_few_as_multiprocessors() {
        let kv_split = |batch, seqlen, head_dim| {
            let problem = Problem::new(batch, 8, seqlen, head_dim, Dtype::F16);
            let variant = first(&problem, Sm::Sm90a).unwrap();
            (variant.family(), variant.value(Gene::KvSplit))
        };
        assert_eq!(kv_split(1, 1024, 64), (Family::Wgmma, 4));
        assert_eq!(kv_split(4, 256, 64), (Family::Wgmma, 2));
        assert_eq!([kv_split(1, 1024, 128), kv_split(4, 512, 64)], [(Family::Wgmma, 1); 2]);
    }

    #[test]
    fn tall_tiles_up_to_4096_rows_and_narrow_keys_under_long_causal_masks() {
        let genes = |problem: &Problem| {
            let variant = first(problem, Sm::Sm90a).unwrap();
            [Gene::TileQ, Gene::TileKv, Gene::Stages, Gene::Persistent].map(|gene| variant.value(gene))
        };
        let full = |seqlen, head_dim| Problem::new(16, 16, seqlen, head_dim, Dtype::Bf16);
        let causal = |seqlen, head_dim| full(seqlen, head_dim).with_mask(Mask::Causal(Align::BottomRight));
        assert_eq!([4096, 8192].map(|seqlen| genes(&full(seqlen, 64))), [[256, 64, 4, 1], [192, 112, 2, 1]]);
        assert_eq!(
            [2048, 4096, 8192].map(|seqlen| genes(&causal(seqlen, 128))),
            [[128, 64, 4, 1], [128, 80, 3, 1], [128, 128, 2, 1]]
        );
        assert_eq!([512, 1024].map(|seqlen| genes(&causal(seqlen, 256))), [[128, 64, 2, 0], [128, 64, 2, 1]]);
    }

    #[test]
    fn odd_strides_leave_narrow_loads() {
        let mut problem = Problem::SEED;
        problem.strides.k.seq += 1;
        let families: std::vec::Vec<_> = defaults(&problem, &DeviceLimits::H100).map(|v| v.family()).collect();
        assert_eq!(families, [Family::Tiled]);
    }

    #[test]
    fn what_tensor_cores_would_round_goes_without_them() {
        for sm in Sm::ALL {
            let problem = Problem::new(2, 16, 4096, 128, Dtype::F32);
            let variants: std::vec::Vec<_> = defaults(&problem, &DeviceLimits::of(sm)).collect();
            assert!(variants.iter().all(|variant| variant.family() == Family::Tiled), "{variants:?}");
            assert_eq!(variants[0].get(Gene::LoadBytes), Some(16));
            assert_eq!(variants.len(), 2, "and one that fits any strides");
        }
    }

    #[test]
    fn bytes_have_defaults_of_the_only_family_that_takes_them() {
        let variants = |problem: &Problem, sm| {
            let variants: std::vec::Vec<_> = defaults(problem, &DeviceLimits::of(sm)).collect();
            variants
        };
        for (batch, seqlen, rows) in [(1, 1, 64), (1, 512, 64), (2, 2048, 128), (4, 4096, 192)] {
            let problem = Problem::new(batch, 16, seqlen, 128, Dtype::E4m3);
            let first = variants(&problem, Sm::Sm90a)[0];
            assert_eq!((first.family(), first.value(Gene::TileQ)), (Family::Wgmma, rows), "{problem}");
            assert!(variants(&problem, Sm::Sm80).is_empty());
            let causal = problem.with_mask(Mask::Causal(Align::BottomRight));
            assert_eq!(variants(&causal, Sm::Sm90a)[0].value(Gene::TileQ), rows.min(128), "{causal}");
        }
    }

    #[test]
    fn expanded_tensors_do_without_the_copy_engine() {
        let mut problem = Problem::new(1, 16, 8192, 128, Dtype::F16);
        problem.strides.v.head = 0;
        assert_eq!(first(&problem, Sm::Sm90a).map(|variant| variant.family()), Some(Family::Mma));
    }
}

//! Which blocks run, and which rows they write.

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use spec::{LaunchGeometry, Problem};

use crate::cases::{Extras, Sequence};
use crate::oracle::Row;

/// All blocks if there are no more than `count`, else a seeded sample of so many, but at least one. In order.
pub(super) fn sample(blocks: u32, count: u64, seed: u64) -> Vec<u32> {
    let count = count.max(1);
    if u64::from(blocks) <= count {
        return (0..blocks).collect();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sample: Vec<_> =
        index::sample(&mut rng, blocks as usize, count as usize).into_iter().map(|block| block as u32).collect();
    sample.sort_unstable();
    sample
}

/// The rows that blocks write, in order.
pub(super) fn rows(
    problem: &Problem,
    extras: &Extras,
    geometry: &LaunchGeometry,
    tile_q: u32,
    blocks: &[u32],
) -> Vec<Row> {
    let heads = geometry.heads(problem);
    let tiles = geometry.tiles_q * heads;
    // Fewer blocks than query tiles: each takes every so many-th.
    let stride = geometry.blocks.max(1) as usize;
    let run = if geometry.blocks < tiles { geometry.walk.run() } else { 1 };
    let mut rows: Vec<_> = blocks
        .iter()
        .flat_map(|block| (*block..tiles.div_ceil(run)).step_by(stride))
        .flat_map(|turn| turn * run..(turn * run + run).min(tiles))
        .flat_map(|block| {
            let group = geometry.walk.heads;
            let first_head = block / (group * geometry.tiles_q) * group;
            let in_group = block - first_head * geometry.tiles_q;
            let group = group.min(heads - first_head);
            let tile = geometry.walk.tile(in_group / group, geometry.tiles_q);
            let head_total = first_head + in_group % group;
            // Of each head that has tiles, so many query heads are rows one after the other.
            let packed = if geometry.packs_heads { problem.heads_per_kv() } else { 1 };
            let first_head = head_total * packed;
            let (batch, first_head) = (first_head / problem.heads_q, first_head % problem.heads_q);
            let Sequence { first_row, rows, .. } = extras.sequence(problem, batch);
            let first = tile * tile_q;
            let batch = if problem.features.packed_q.is_some() { 0 } else { batch };
            (first..(first + tile_q).min(rows * packed)).map(move |row| Row {
                batch,
                head: first_head + row % packed,
                row: first_row + row / packed,
            })
        })
        .collect();
    rows.sort_unstable();
    rows
}

#[cfg(test)]
mod tests {
    use spec::{BlockOrder, DeviceLimits, Dtype, legal};

    use super::*;

    #[test]
    fn all_blocks_write_all_rows_in_any_order() {
        let problem = Problem::new(2, 3, 37, 64, Dtype::F16);
        for order in BlockOrder::ALL {
            let geometry = LaunchGeometry {
                blocks: 18,
                threads: 32,
                shared_bytes: 0,
                asked_shared_bytes: 0,
                tiles_q: 3,
                packs_heads: false,
                // Groups of four heads and of two.
                walk: order.walk(6, 4),
                early_launch: false,
                l2_window: false,
                boxes: None,
            };
            assert_eq!(
                rows(&problem, &Extras::default(), &geometry, 16, &sample(18, 18, 0)),
                Row::all(&problem),
                "{order:?}"
            );
            let last_tile = rows(&problem, &Extras::default(), &geometry, 16, &[17]);
            let reversed =
                matches!(order, BlockOrder::LongestFirst | BlockOrder::GroupsLongestFirst | BlockOrder::Folded);
            assert_eq!(last_tile.len(), if reversed { 16 } else { 5 });
        }
    }

    #[test]
    fn packed_heads_are_rows_one_after_the_other() {
        let problem = Problem::new(2, 6, 7, 64, Dtype::F16).with_heads_kv(2);
        let variant = "decode:tile_q=16,tile_kv=16,warps=2,cluster=1,stages=1,blocks_per_sm=1".parse().unwrap();
        let geometry = legal(&problem, &variant, &DeviceLimits::H100).unwrap();
        let written = |blocks: &[u32]| rows(&problem, &Extras::default(), &geometry, 16, blocks);
        assert_eq!(written(&[0, 1, 2, 3, 4, 5, 6, 7]), Row::all(&problem));
        // 21 rows of three heads: 16 end with the first head of row 5.
        let second: Vec<_> = written(&[7]).iter().map(|row| (row.batch, row.head, row.row)).collect();
        assert_eq!(second, [(1, 3, 6), (1, 4, 5), (1, 4, 6), (1, 5, 5), (1, 5, 6)]);
    }

    #[test]
    fn samples_are_seeded() {
        let some = sample(1000, 10, 1);
        assert_eq!(some.len(), 10);
        assert!(some.is_sorted() && some == sample(1000, 10, 1) && some != sample(1000, 10, 2));
        assert_eq!(sample(1000, 0, 1).len(), 1);
    }
}

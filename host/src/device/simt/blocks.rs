//! Which blocks run, and which rows they write.

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use spec::{BlockOrder, LaunchGeometry, Problem};

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
pub(super) fn rows(problem: &Problem, geometry: &LaunchGeometry, tile_q: u32, blocks: &[u32]) -> Vec<Row> {
    let heads = problem.batch * problem.heads_q;
    let tiles = geometry.tiles_q * heads;
    // Fewer blocks than query tiles: each takes every so many-th.
    let stride = geometry.blocks.max(1) as usize;
    let mut rows: Vec<_> = blocks
        .iter()
        .flat_map(|block| (*block..tiles).step_by(stride))
        .flat_map(|block| {
            let (tile, head_total) = match geometry.block_order {
                order if order == BlockOrder::TilesFirst as u32 => (block % geometry.tiles_q, block / geometry.tiles_q),
                order if order == BlockOrder::HeadsFirst as u32 => (block / heads, block % heads),
                _ => (geometry.tiles_q - 1 - block / heads, block % heads),
            };
            let (batch, head) = (head_total / problem.heads_q, head_total % problem.heads_q);
            let first = tile * tile_q;
            (first..(first + tile_q).min(problem.seqlen_q)).map(move |row| Row { batch, head, row })
        })
        .collect();
    rows.sort_unstable();
    rows
}

#[cfg(test)]
mod tests {
    use spec::Dtype;

    use super::*;

    #[test]
    fn all_blocks_write_all_rows_in_any_order() {
        let problem = Problem::new(2, 3, 37, 64, Dtype::F16);
        for order in BlockOrder::ALL {
            let geometry = LaunchGeometry {
                blocks: 18,
                threads: 32,
                shared_bytes: 0,
                tiles_q: 3,
                block_order: order as u32,
                early_launch: false,
                l2_window: false,
                boxes: None,
            };
            assert_eq!(rows(&problem, &geometry, 16, &sample(18, 18, 0)), Row::all(&problem), "{order:?}");
            let last_tile = rows(&problem, &geometry, 16, &[17]);
            assert_eq!(last_tile.len(), if order == BlockOrder::LongestFirst { 16 } else { 5 });
        }
    }

    #[test]
    fn samples_are_seeded() {
        let some = sample(1000, 10, 1);
        assert_eq!(some.len(), 10);
        assert!(some.is_sorted() && some == sample(1000, 10, 1) && some != sample(1000, 10, 2));
        assert_eq!(sample(1000, 0, 1).len(), 1);
    }
}

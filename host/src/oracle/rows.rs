//! Which query rows are looked at.

use rand::seq::index;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spec::Problem;

/// A query row by its place in O. Rows order by batch entry, head and position; those of packed entries are one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// Batch entry.
    pub batch: u32,
    /// Query head.
    pub head: u32,
    /// Position in the sequence.
    pub row: u32,
}

impl Row {
    /// All rows of a problem, in order.
    pub fn all(problem: &Problem) -> Vec<Self> {
        (0..count(problem)).map(|index| Self::at(problem, index)).collect()
    }

    /// All rows if their references take at most `operations` multiplications, else a seeded sample that does: the first
    /// and the last row of the problem, and the others drawn, at least 16 in all.
    pub fn sample(problem: &Problem, operations: u64, seed: u64) -> Vec<Self> {
        let per_row = u64::from(problem.seqlen_kv) * u64::from(problem.head_dim_qk + problem.head_dim_v);
        let (all, room) = (count(problem), (operations / per_row.max(1)).max(16));
        if all <= room {
            return Self::all(problem);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let drawn = match (usize::try_from(all), usize::try_from(room)) {
            (Ok(all), Ok(room)) => index::sample(&mut rng, all, room - 2).into_iter().map(|i| i as u64).collect(),
            _ => (2..room).map(|_| rng.random_range(0..all)).collect::<Vec<_>>(),
        };
        let mut rows: Vec<_> = drawn.into_iter().chain([0, all - 1]).map(|i| Self::at(problem, i)).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// The row's place among all rows of the problem, which is also its place in the LSE.
    pub fn index(&self, problem: &Problem) -> u64 {
        let head = u64::from(self.batch) * u64::from(problem.heads_q) + u64::from(self.head);
        head * u64::from(seqlen(problem)) + u64::from(self.row)
    }

    fn at(problem: &Problem, index: u64) -> Self {
        let seqlen = u64::from(seqlen(problem));
        let (head_total, row) = (index / seqlen, index % seqlen);
        let (batch, head) = (head_total / u64::from(problem.heads_q), head_total % u64::from(problem.heads_q));
        Self { batch: batch as u32, head: head as u32, row: row as u32 }
    }
}

fn count(problem: &Problem) -> u64 {
    let [.., [batch, rows, heads, _]] = problem.shapes();
    u64::from(batch) * u64::from(heads) * u64::from(rows)
}

/// Rows of an entry of O.
fn seqlen(problem: &Problem) -> u32 {
    let [.., [_, rows, ..]] = problem.shapes();
    rows
}

#[cfg(test)]
mod tests {
    use spec::Dtype;

    use super::*;

    #[test]
    fn rows_are_in_order_and_know_their_place() {
        let problem = Problem::new(2, 3, 5, 8, Dtype::F16);
        let rows = Row::all(&problem);
        assert!(rows.is_sorted());
        assert!(rows.iter().enumerate().all(|(i, row)| row.index(&problem) == i as u64));
    }

    #[test]
    fn samples_are_seeded_and_hold_the_ends() {
        let problem = Problem::new(2, 3, 500, 64, Dtype::F16);
        let sample = Row::sample(&problem, 100 * 500 * 128, 1);
        assert_eq!(sample, Row::sample(&problem, 100 * 500 * 128, 1));
        assert_ne!(sample, Row::sample(&problem, 100 * 500 * 128, 2));
        assert!((98..=100).contains(&sample.len()));
        assert_eq!((sample[0].index(&problem), sample[sample.len() - 1].index(&problem)), (0, 2999));
        assert_eq!(Row::sample(&problem, u64::MAX, 1), Row::all(&problem));
    }
}

//! What rows should be, in fp64 and in the kernels' precision.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use spec::Problem;

use super::{Row, exact, logits::Logits, rounded};
use crate::cases::{Tensor, Tensors};

/// Rows that a thread takes at a time: K and V of their head are decoded once for them.
const CHUNK: usize = 64;

/// What one row should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Which row.
    pub row: Row,
    /// O in fp64, with zeros in the place of values that are not finite.
    pub exact: Vec<f64>,
    /// The sum of the values that the row sees and that are not finite: what they make of O, whatever their weights; 0 where
    /// there are none.
    pub beyond: Vec<f32>,
    /// Natural-log LSE in fp64.
    pub exact_lse: f64,
    /// O by the same-precision reference.
    pub rounded: Vec<f32>,
    /// Natural-log LSE by the same-precision reference.
    pub rounded_lse: f32,
    /// `max_d sum_j p[j] |v[j,d]|`.
    pub weight: f64,
    /// `max_d sum_j |v[j,d]|` over the keys that the row sees.
    pub values: f64,
    /// `max_d sqrt(sum_j (p[j] v[j,d])^2)`.
    pub spread: f64,
    /// `max_d sum_c max_n |sum_(j in c, j < n) p[j] v[j,d]|`, by spans `c` of [`SUMMED_KEYS`](spec::layout::SUMMED_KEYS) keys.
    pub partial: f64,
    /// `max_d max_c max_n |sum_(j in c, j < n) sign(v[j,d])|`.
    pub one_sided: f64,
    /// `|scale| |q| max_j |k[j]|`, which no score exceeds, and the largest of what features add to them.
    pub score: f64,
}

impl Expected {
    /// Takes into account that each output was averaged from values that had been rounded, by so much at most.
    pub fn averages_rounded(&mut self, by: f64) {
        for (rounded, exact) in self.rounded.iter_mut().zip(&self.exact) {
            *rounded += if f64::from(*rounded) < *exact { -by } else { by } as f32;
        }
    }
}

/// What the rows of a problem that are looked at should be, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// The rows.
    pub rows: Vec<Expected>,
}

impl Reference {
    /// The references of `rows`, which must be in order, on all processors.
    pub fn of(problem: &Problem, tensors: &Tensors, rows: &[Row]) -> Self {
        let chunks: Vec<&[Row]> = heads(problem, tensors, rows).flat_map(|head| head.chunks(CHUNK)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = vec![];
            while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let head = Head::of(problem, tensors, chunk[0]);
                done.extend(chunk.iter().map(|row| head.expected(problem, tensors, *row)));
            }
            done
        };
        let workers = thread::available_parallelism().map_or(1, usize::from).min(chunks.len());
        let mut rows: Vec<Expected> = thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let joined = |worker: thread::ScopedJoinHandle<'_, Vec<Expected>>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().flat_map(joined).collect()
        });
        rows.sort_unstable_by_key(|expected| expected.row);
        Self { rows }
    }
}

/// The rows by their batch entry and head.
pub(super) fn heads<'a>(problem: &Problem, tensors: &Tensors, rows: &'a [Row]) -> impl Iterator<Item = &'a [Row]> {
    let entry = |row: &Row| tensors.extras.position(problem, row.batch, row.row).0.entry;
    rows.chunk_by(move |a, b| a.head == b.head && entry(a) == entry(b))
}

/// K and V of one head as numbers.
pub(super) struct Head {
    pub(super) k: Vec<f32>,
    pub(super) v: Vec<f32>,
}

impl Head {
    /// The K/V head that a query row reads.
    pub(super) fn of(problem: &Problem, tensors: &Tensors, row: Row) -> Self {
        let head = row.head / problem.heads_per_kv();
        let (sequence, _) = tensors.extras.position(problem, row.batch, row.row);
        let rows = |tensor: &Tensor| {
            let places = (0..sequence.keys).map(|key| tensors.extras.key(problem, &sequence, key));
            places.flat_map(|(batch, key)| tensor.values(batch, key, head)).collect()
        };
        Self { k: rows(&tensors.k), v: rows(&tensors.v) }
    }

    /// The sums of the values that a row sees and that are not finite.
    pub(super) fn beyond(&self, problem: &Problem, logits: &Logits<'_>) -> Vec<f32> {
        let mut sums = vec![0f32; problem.head_dim_v as usize];
        if self.v.iter().all(|v| v.is_finite()) {
            return sums;
        }
        for key in logits.keys() {
            let values = &self.v[key as usize * sums.len()..][..sums.len()];
            sums.iter_mut().zip(values).filter(|(_, v)| !v.is_finite()).for_each(|(sum, v)| *sum += v);
        }
        sums
    }

    fn expected(&self, problem: &Problem, tensors: &Tensors, row: Row) -> Expected {
        let q: Vec<f32> = tensors.q.values(row.batch, row.row, row.head).collect();
        let logits = Logits::of(problem, &tensors.extras, row);
        let exact = exact::row(problem, self, &q, &logits);
        let rounded = rounded::row(problem, self, &q, &logits);
        Expected {
            row,
            exact: exact.o,
            beyond: self.beyond(problem, &logits),
            exact_lse: exact.lse,
            rounded: rounded.o,
            rounded_lse: rounded.lse,
            weight: exact.weight,
            values: exact.values,
            spread: exact.spread,
            partial: exact.partial,
            one_sided: exact.one_sided,
            score: exact.score,
        }
    }
}

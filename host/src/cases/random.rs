//! Problems drawn at random over all features, small ones.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spec::{Bias, Features, MatrixStrides, Pages, Problem, Window};

use super::{Case, Distribution, Layout, table::MASKS, table::plain};

/// The case of a seed, with features, in the dtype and head_dims of `like`. Its name holds the seed and the problem.
pub fn random(like: &Problem, seed: u64) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rng = &mut rng;
    let heads_kv = rng.random_range(1..=3);
    let heads = [rng.random_range(1..=3), heads_kv * one_of(rng, &[1, 1, 2, 3, 5]), heads_kv];
    let lengths = [length(rng), length(rng)];
    let mask = one_of(rng, &MASKS);
    let layout = one_of(rng, &[Layout::Bshd, Layout::Bhsd, Layout::Sbhd, Layout::Packed, Layout::Capacity]);
    let mut problem = plain(like, heads, lengths, mask);
    problem.scale = one_of(rng, &[None, None, None, Some(0.0), Some(-0.2), Some(1.0)]);
    problem.features = features(rng, &problem);
    while !problem.needs_features() {
        problem.features = features(rng, &problem);
    }
    // Shapes in memory depend on the features.
    let varied = problem.features.varies() || problem.features.pages.is_some();
    problem = match layout {
        Layout::Bhsd => problem.in_bhsd(),
        _ if varied => problem.in_bshd(),
        layout => layout.of(&problem),
    };
    let distribution = one_of(
        rng,
        &[
            Distribution::Normal,
            Distribution::Normal,
            Distribution::Outliers,
            Distribution::LargeLogits,
            Distribution::LowLogits,
            Distribution::EqualLogits,
            Distribution::NanQuery,
            Distribution::HiddenNan,
            Distribution::BrokenValues,
        ],
    );
    Case::new(format!("random/{seed}/{problem}/{distribution:?}"), problem, distribution, seed)
}

fn features(rng: &mut ChaCha8Rng, problem: &Problem) -> Features {
    let mut features = Features::NONE;
    if rng.random_ratio(1, 3) {
        let most = problem.seqlen_q.max(problem.seqlen_kv);
        let mut side = || rng.random_bool(0.7).then(|| rng.random_range(0..=most));
        features.window = Window { left: side(), right: side() };
    }
    if rng.random_ratio(1, 3) {
        features.softcap = Some(one_of(rng, &[0.5, 10.0, 50.0, 1000.0]));
    }
    features.alibi = rng.random_ratio(1, 3);
    features.sinks = rng.random_ratio(1, 3);
    if rng.random_ratio(1, 3) {
        features.bias = Some(Bias { wide: rng.random(), strides: matrix(rng, problem) });
    }
    if rng.random_ratio(1, 3) {
        features.mask = Some(matrix(rng, problem));
    }
    let total = |rng: &mut ChaCha8Rng, most: u32| one_of(rng, &[1, most, most / 2 + 1, most.div_ceil(3)]);
    if rng.random_ratio(1, 4) {
        features.packed_q = Some(total(rng, problem.batch * problem.seqlen_q));
    }
    match rng.random_range(0..8) {
        0 | 1 => features.packed_kv = Some(total(rng, problem.batch * problem.seqlen_kv)),
        2 | 3 => features.used_kv = true,
        _ => {}
    }
    if features.packed_kv.is_none() && rng.random_ratio(1, 3) {
        let size = one_of(rng, &[1, 5, 16, 64, 256]);
        let columns = problem.seqlen_kv.div_ceil(size) + rng.random_range(0..2);
        features.pages = Some(Pages { count: rng.random_range(1..=problem.batch * columns), size, columns });
    }
    features
}

/// Any layout of a matrix in which no two rows overlap; each dimension may be expanded.
fn matrix(rng: &mut ChaCha8Rng, problem: &Problem) -> MatrixStrides {
    let mut extents = [("row", problem.seqlen_q), ("head", problem.heads_q), ("batch", problem.batch)];
    if rng.random_bool(0.3) {
        extents.swap(0, 1);
    }
    let mut next = i64::from(problem.seqlen_kv) + rng.random_range(0..4);
    let mut strides = MatrixStrides { batch: 0, head: 0, row: 0 };
    for (name, extent) in extents {
        if rng.random_bool(0.3) {
            continue;
        }
        match name {
            "row" => strides.row = next,
            "head" => strides.head = next,
            _ => strides.batch = next,
        }
        next = next * i64::from(extent) + rng.random_range(0..4);
    }
    strides
}

/// Short lengths, those around the sizes of tiles more often.
fn length(rng: &mut ChaCha8Rng) -> u32 {
    if rng.random() {
        one_of(rng, &[1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 97, 127, 128, 129])
    } else {
        rng.random_range(1..=140)
    }
}

fn one_of<T: Copy>(rng: &mut impl Rng, choices: &[T]) -> T {
    *choices.choose(rng).expect("there are choices")
}

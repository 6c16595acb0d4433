//! The points of the search space that can run a problem.

use rand::SeedableRng;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha8Rng;
use spec::{Align, DeviceLimits, Dtype, Family, Features, Kernel, Mask, Problem, Variant, legal};

use crate::Part;

/// All variants of a family that a problem and a GPU allow, in the order of their gene values.
pub fn variants(problem: &Problem, family: Family, limits: &DeviceLimits) -> impl Iterator<Item = Variant> {
    all(family).filter(move |variant| legal(problem, variant, limits).is_ok())
}

/// The distinct kernels behind the variants of a part, in the same order: what has to be compiled for all of it.
pub fn kernels(problem: &Problem, family: Family, limits: &DeviceLimits, part: &Part) -> Vec<Kernel> {
    let variants = variants(problem, family, limits).filter(|variant| part.contains(variant));
    let mut kernels: Vec<_> = variants.map(|variant| variant.kernel(problem)).collect();
    kernels.sort_unstable();
    kernels.dedup();
    kernels
}

/// `count` of the items, or all if there are fewer, drawn evenly; the same seed draws the same ones. They come in
/// their natural order.
pub fn sample<T: Ord>(items: impl IntoIterator<Item = T>, count: usize, seed: u64) -> Vec<T> {
    let mut drawn = items.into_iter().sample(&mut ChaCha8Rng::seed_from_u64(seed), count);
    drawn.sort_unstable();
    drawn
}

/// The head_dims that models have: for these, problems with features and those in fp32 have defaults too.
pub const USUAL: [u32; 5] = [64, 80, 96, 128, 256];

/// The kernels that a problem which nobody measured falls back to, for every head_dim and dtype, in fp32 for the usual
/// head_dims: for long and for short sequences, for few queries and for K and V that several batch entries share the one that
/// should be fastest, and the one that fits any strides. Also the one that appends to a cache, of which there is no other.
pub fn defaults(limits: &DeviceLimits) -> Vec<Kernel> {
    let head_dims = (8..=256).step_by(8);
    let mut kernels = vec![Kernel::Append];
    for (head_dim, dtype) in head_dims.flat_map(|head_dim| Dtype::ALL.map(|dtype| (head_dim, dtype))) {
        if dtype == Dtype::F32 && !USUAL.contains(&head_dim) {
            continue;
        }
        let long = Problem::new(2, 32, 8192, head_dim, dtype);
        let mut shared = long;
        (shared.strides.k.batch, shared.strides.v.batch) = (0, 0);
        // Many query tiles in pairs and with one left over, few of them, and so many that one more would be many.
        let (few, between_few_and_many) =
            (Problem::new(1, 1, 16_384, head_dim, dtype), Problem::new(1, 64, 1025, head_dim, dtype));
        let causal = [long, long.with_seqlens(4096, 4096), long.with_seqlens(8448, 8448), few, between_few_and_many];
        let causal = causal.map(|problem| problem.with_mask(Mask::Causal(Align::BottomRight)));
        let short = Problem::new(1, 8, 512, head_dim, dtype);
        // As few blocks of 64 rows as multiprocessors and a few more, still fewer with many steps, few of 128 and of 192, many with
        // few steps (in tiles that they fill and that they do not), few with many.
        let between = [
            (1, 8, 1024),
            (1, 8, 1025),
            (1, 2, 2048),
            (4, 8, 512),
            (4, 8, 1024),
            (1, 12, 2048),
            (1, 160, 512),
            (8, 32, 384),
            (32, 16, 512),
            (32, 16, 576),
            (1, 1, 16_384),
            (1, 2, 16_384),
            (1, 12, 8192),
        ];
        // Few keys: each number of steps of each key tile, in query tiles of both heights.
        let few_keys = [(1, 8, 128), (1, 8, 256), (1, 4, 512), (4, 8, 128), (2, 8, 256), (1, 4, 1024), (4, 8, 256)];
        let chosen = between.into_iter().chain(few_keys).map(|(b, h, s)| Problem::new(b, h, s, head_dim, dtype));
        // Few and many keys for each size of a cluster, for a block alone and for more blocks than multiprocessors.
        let step = |batch, keys| Problem::new(batch, 32, keys, head_dim, dtype).with_heads_kv(8).with_seqlens(1, keys);
        let decoding = [1, 4, 8, 16, 64].into_iter().flat_map(|batch| [1024, 8192].map(|keys| step(batch, keys)));
        // A few rows, of too many heads to be one tile.
        let few_rows = [1024, 8192].map(|keys| long.with_heads_kv(2).with_seqlens(16, keys));
        for problem in [long, shared, short].into_iter().chain(decoding).chain(few_rows).chain(chosen).chain(causal) {
            let variants: Vec<_> = spec::defaults(&problem, limits).collect();
            kernels.extend(variants.first().into_iter().chain(variants.last()).map(|variant| variant.kernel(&problem)));
        }
        if USUAL.contains(&head_dim) {
            for problem in [long, short, long.with_seqlens(1, 8192)] {
                let problem = Problem { features: Features { sinks: true, ..Features::NONE }, ..problem };
                let variants: Vec<_> = spec::defaults(&problem, limits).collect();
                let both = variants.first().into_iter().chain(variants.last());
                kernels.extend(both.map(|variant| variant.kernel(&problem)));
            }
        }
    }
    kernels.sort_unstable();
    kernels.dedup();
    kernels
}

/// Every combination of a family's gene values, legal or not: counts like an odometer, the last gene fastest.
fn all(family: Family) -> impl Iterator<Item = Variant> {
    let domains = family.domains();
    let points: usize = domains.iter().map(|domain| domain.values.len()).product();
    (0..points).filter_map(move |mut point| {
        domains.iter().rev().try_fold(Variant::smallest(family), |variant, domain| {
            let value = domain.values[point % domain.values.len()];
            point /= domain.values.len();
            variant.with(domain.gene, value)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use spec::{AttentionKernel, Gene};

    use super::*;

    #[test]
    fn every_point_is_there_once() {
        let points: Vec<_> = all(Family::Tiled).collect();
        let expected: usize = Family::Tiled.domains().iter().map(|domain| domain.values.len()).product();
        assert_eq!(points.len(), expected);
        assert_eq!(points.iter().collect::<HashSet<_>>().len(), expected);
    }

    #[test]
    fn only_legal_variants_and_each_kernel_once() {
        let (problem, limits) = (Problem::SEED, DeviceLimits::H100);
        let variants: Vec<_> = variants(&problem, Family::Tiled, &limits).collect();
        assert!(variants.iter().all(|variant| legal(&problem, variant, &limits).is_ok()));
        let kernels = kernels(&problem, Family::Tiled, &limits, &Part::default());
        let orders = Family::Tiled.domains().iter().find(|d| d.gene == Gene::BlockOrder).unwrap().values.len();
        assert_eq!(kernels.len() * orders, variants.len(), "launch genes need no kernels of their own");
    }

    #[test]
    fn what_must_become_large_is_left_to_the_special_function_unit() {
        let lazy = |variant: &Variant| variant.get(Gene::LazyRescale) == Some(2);
        let all: Vec<_> = variants(&Problem::SEED, Family::Wgmma, &DeviceLimits::H100).filter(lazy).collect();
        assert!(!all.is_empty() && all.iter().all(|variant| variant.get(Gene::ExpPoly) == Some(0)));
    }

    #[test]
    fn what_a_problem_falls_back_to_first_is_among_the_defaults() {
        let limits = DeviceLimits::H100;
        let kernels = defaults(&limits);
        let lengths =
            [1, 16, 17, 64, 65, 128, 129, 192, 193, 300, 384, 512, 513, 1024, 1025, 2048, 2049, 4096, 8192, 16_384];
        let masks = [Mask::Full, Mask::Causal(Align::BottomRight)];
        for batch_heads in [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 256, 512, 1024, 4096] {
            for head_dim in [64, 96, 128, 192, 256] {
                for (seqlen, mask) in lengths.into_iter().flat_map(|seqlen| masks.map(|mask| (seqlen, mask))) {
                    let problem = Problem::new(1, batch_heads, seqlen, head_dim, Dtype::F16).with_mask(mask);
                    let first = spec::defaults(&problem, &limits).next().unwrap();
                    assert!(kernels.contains(&first.kernel(&problem)), "{problem}: {first}");
                }
            }
        }
    }

    #[test]
    fn featured_problems_of_models_have_defaults() {
        let limits = DeviceLimits::H100;
        let kernels = defaults(&limits);
        let features = Features { softcap: Some(30.0), ..Features::NONE };
        let problem = Problem { features, ..Problem::new(4, 32, 4096, 128, Dtype::Bf16) };
        let first = spec::defaults(&problem, &limits).next().unwrap();
        assert!(kernels.contains(&first.kernel(&problem)), "{first}");
    }

    #[test]
    fn every_head_dim_and_dtype_has_a_default() {
        let kernels = defaults(&DeviceLimits::H100);
        for head_dim in (8..=256).step_by(8) {
            for dtype in Dtype::HALVES {
                let families: HashSet<_> = kernels
                    .iter()
                    .filter_map(Kernel::attention)
                    .filter(|kernel| kernel.head_dim_qk == head_dim && kernel.dtype == dtype)
                    .map(AttentionKernel::family)
                    .collect();
                assert!(
                    families.contains(&Family::Tiled) && families.contains(&Family::Mma),
                    "{head_dim}: {families:?}"
                );
            }
        }
        assert!(kernels.contains(&Kernel::Append), "any cache can be filled");
        for head_dim in USUAL {
            let problem = Problem::new(2, 32, 4096, head_dim, Dtype::F32);
            let all: Vec<_> = spec::defaults(&problem, &DeviceLimits::H100).map(|v| v.kernel(&problem)).collect();
            assert!(all.iter().all(|kernel| kernels.contains(kernel)), "{head_dim}: {all:?}");
        }
    }

    #[test]
    fn few_queries_and_shared_keys_have_their_own() {
        let limits = DeviceLimits::H100;
        let kernels = defaults(&limits);
        let decode = Problem::new(64, 32, 1, 128, Dtype::Bf16).with_seqlens(1, 4096).with_heads_kv(8);
        let mut shared = Problem::new(4, 16, 4096, 64, Dtype::F16);
        (shared.strides.k.batch, shared.strides.v.batch) = (0, 0);
        for problem in [decode, shared] {
            let first = spec::defaults(&problem, &limits).next().unwrap();
            assert!(kernels.contains(&first.kernel(&problem)), "{problem}: {first}");
        }
    }

    #[test]
    fn a_sample_depends_on_the_seed_alone() {
        let kernels = kernels(&Problem::SEED, Family::Tiled, &DeviceLimits::H100, &Part::default());
        let ten = sample(kernels.clone(), 10, 1);
        assert_eq!(ten.len(), 10);
        assert_eq!(ten, sample(kernels.clone(), 10, 1));
        assert_ne!(ten, sample(kernels.clone(), 10, 2));
        assert_eq!(sample(kernels.clone(), kernels.len() + 1, 1), kernels);
    }
}

//! The table of cases: which problems and inputs a kernel is checked on.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spec::{Align, Mask, Problem};

use super::{Case, Distribution, Inputs, Layout, features, field};

/// How much of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Every kind of case, in sizes that the CPU machine runs in a minute or two.
    Small,
    /// All seeds and sizes: for a GPU.
    Large,
}

/// All masks.
pub(super) const MASKS: [Mask; 3] = [Mask::Full, Mask::Causal(Align::BottomRight), Mask::Causal(Align::TopLeft)];

/// Lengths around the sizes of tiles, those that kernels elsewhere failed on, and some between.
const LENGTHS: [u32; 32] = [
    1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 88, 100, 127, 128, 129, 130, 191, 192, 193, 255, 256, 257,
    300, 447, 1023, 1024, 1025,
];

/// The short gate before a kernel is timed: three distributions on the problem itself and on tails.
pub fn gate(problem: &Problem) -> Vec<Case> {
    let tail = |sq: u32, sk: u32| resized(problem, problem.seqlen_q.min(sq), problem.seqlen_kv.min(sk));
    vec![
        Case::new("gate/itself", *problem, Distribution::Normal, 1),
        Case::new("gate/outliers", tail(129, 447), Distribution::Outliers, 2),
        Case::new("gate/large-logits", tail(193, 65), Distribution::LargeLogits, 3),
    ]
}

/// All cases that a kernel for `problem` must pass, whatever its genes: with the problem's dtype, head_dims and scale,
/// and more lengths, masks, heads and layouts than it has.
///
/// For a problem with features they are of problems with features.
pub fn suite(problem: &Problem, extent: Extent) -> Vec<Case> {
    let mut cases = gate(problem);
    if problem.needs_features() {
        cases.extend(features::cases(problem, extent));
        return cases;
    }
    let large = extent == Extent::Large;
    for seed in 10..if large { 15 } else { 11 } {
        let name = format!("itself/{seed}");
        cases.push(Case::new(name, *problem, Distribution::Normal, seed));
    }
    cases.extend(distributions(problem, large));
    cases.extend(tails(problem, large));
    cases.extend(heads(problem));
    cases.extend(decoding(problem));
    cases.extend(layouts(problem));
    cases.extend(field::cases(problem, large));
    cases
}

/// Rows that start at any element, those of O at even ones: for kernels that load single elements.
pub fn odd_strides(problem: &Problem) -> Vec<Case> {
    let mut odd = plain(problem, [1, 2, 2], [21, 43], Mask::Full);
    let strides = &mut odd.strides;
    for (s, odd) in [(&mut strides.q, 1), (&mut strides.k, 1), (&mut strides.v, 1), (&mut strides.o, 2)] {
        // onnxscript #1833, xformers #813: row strides such as 43 or 361. Outputs are stored in pairs.
        s.head += odd;
        s.seq = 2 * s.head + odd;
    }
    vec![Case::new("odd-strides", odd, Distribution::Normal, 80)]
}

/// Q, K and V that begin in the middle of other tensors, where loads of so many bytes allow it: for kernels that load less
/// than 16 bytes at a time.
pub fn odd_addresses(problem: &Problem, load_bytes: u32) -> Vec<Case> {
    let problem = plain(problem, [2, 4, 2], [21, 43], Mask::Causal(Align::BottomRight));
    // onnxscript #1833, xformers #813, pytorch #188246: 2, 4 and 8 bytes past where memory begins.
    let leads = [1, 2, 4].into_iter().filter(|lead| (lead * problem.dtype.bytes()).is_multiple_of(load_bytes));
    let case = |lead| {
        let case = Case::new(format!("odd-address/{lead}"), problem, Distribution::Normal, 81);
        Case { inputs: Inputs { lead, ..case.inputs }, ..case }
    };
    leads.map(case).collect()
}

/// A contiguous problem with the dtype, head_dims and scale of another, as batch, query heads and K/V heads, lengths.
pub(super) fn plain(like: &Problem, [batch, heads_q, heads_kv]: [u32; 3], [sq, sk]: [u32; 2], mask: Mask) -> Problem {
    Problem { batch, heads_q, mask, ..*like }.with_heads_kv(heads_kv).with_seqlens(sq, sk)
}

/// The problem with other lengths in the same layout: strides that no layout explains stay, and still hold fewer rows.
fn resized(problem: &Problem, seqlen_q: u32, seqlen_kv: u32) -> Problem {
    let contiguous = problem.with_seqlens(seqlen_q, seqlen_kv);
    if problem.strides == problem.in_bshd().strides {
        contiguous
    } else if problem.strides == problem.in_bhsd().strides {
        contiguous.in_bhsd()
    } else {
        Problem { strides: problem.strides, ..contiguous }
    }
}

fn distributions(problem: &Problem, large: bool) -> Vec<Case> {
    let mut cases = vec![];
    for (i, distribution) in Distribution::ALL.into_iter().enumerate() {
        if distribution == Distribution::BrokenValues {
            // Tiles of kernels without features carry them to rows that do not see them.
            continue;
        }
        for (j, mask) in MASKS.into_iter().enumerate() {
            // Only this mask hides keys from every row.
            let only = distribution == Distribution::HiddenNan && mask != Mask::Causal(Align::TopLeft);
            if only || (!large && distribution != Distribution::HiddenNan && j != i % MASKS.len()) {
                continue;
            }
            let lengths = if large { [385, 520] } else { [70, 150] };
            for seed in 20..if large { 23 } else { 21 } {
                let name = format!("distribution/{distribution:?}/{}/{seed}", mask.name());
                cases.push(Case::new(name, plain(problem, [1, 2, 1], lengths, mask), distribution, seed));
            }
        }
    }
    cases
}

/// A few rows of the heads that share K and V, as many as one tile of them holds: every distribution, one row of more keys than a cluster
/// holds at once, rows whose heads are in two tiles, and as many rows as there may be.
fn decoding(problem: &Problem) -> Vec<Case> {
    let causal = Mask::Causal(Align::BottomRight);
    let case = |name: &str, heads, lengths, mask, distribution| {
        Case::new(format!("decoding/{name}"), plain(problem, heads, lengths, mask), distribution, 60)
    };
    let mut cases = vec![
        case("one-row", [1, 16, 2], [1, 1500], Mask::Full, Distribution::Normal),
        case("parted-rows", [2, 6, 2], [7, 300], causal, Distribution::Normal),
        case("two-tiles", [1, 12, 1], [3, 400], causal, Distribution::Normal),
        case("most-rows", [1, 8, 1], [8, 200], causal, Distribution::Normal),
    ];
    for distribution in Distribution::ALL.into_iter().filter(|distribution| *distribution != Distribution::BrokenValues)
    {
        // Only this mask hides keys from every row.
        let mask = if distribution == Distribution::HiddenNan { Mask::Causal(Align::TopLeft) } else { causal };
        cases.push(case(&format!("{distribution:?}"), [1, 4, 2], [5, 150], mask, distribution));
    }
    cases
}

/// Each length is a number of rows once and a number of keys once per pass; the pairing is drawn with a fixed seed.
fn tails(problem: &Problem, large: bool) -> Vec<Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(40);
    let mut cases = vec![];
    for pass in 0..if large { 6 } else { 1 } {
        let (mut rows, mut keys) = (LENGTHS, LENGTHS);
        rows.shuffle(&mut rng);
        keys.shuffle(&mut rng);
        for (i, (sq, sk)) in rows.into_iter().zip(keys).enumerate() {
            let mask = MASKS[(i + pass) % MASKS.len()];
            let name = format!("tail/{pass}/{sq}x{sk}/{}", mask.name());
            cases.push(Case::new(name, plain(problem, [1, 1, 1], [sq, sk], mask), Distribution::Normal, rng.random()));
        }
    }
    cases
}

fn heads(problem: &Problem) -> Vec<Case> {
    let ratios = [1, 3, 5, 6, 7, 8, 12, 14].into_iter().enumerate().map(|(i, ratio)| {
        let mask = MASKS[i % MASKS.len()];
        Case::new(format!("gqa/{ratio}"), plain(problem, [2, 2 * ratio, 2], [33, 65], mask), Distribution::Normal, 50)
    });
    ratios
        .chain([Case::new("batch", plain(problem, [5, 3, 3], [17, 20], Mask::Full), Distribution::Normal, 51)])
        .collect()
}

fn layouts(problem: &Problem) -> Vec<Case> {
    let base = plain(problem, [3, 4, 2], [19, 37], Mask::Causal(Align::BottomRight));
    let case =
        |layout: Layout| Case::new(format!("layout/{}", layout.name()), layout.of(&base), Distribution::Normal, 60);
    Layout::ALL.map(case).into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use spec::{DeviceLimits, Dtype, Family, Features, Gene, Variant, Window, legal};

    use super::*;

    #[test]
    fn names_are_unique_and_problems_the_kernels() {
        let features = Features { window: Window { left: Some(9), right: None }, ..Features::NONE };
        let featured = Problem { features, ..Problem::SEED };
        for problem in [Problem::SEED, featured, Problem::new(2, 4, 1000, 40, Dtype::Bf16).with_heads_kv(2).in_bhsd()] {
            for extent in [Extent::Small, Extent::Large] {
                let cases = suite(&problem, extent);
                let names: HashSet<_> = cases.iter().map(|case| &case.name).collect();
                assert_eq!(names.len(), cases.len());
                let variant = Variant::smallest(Family::Tiled);
                for case in &cases {
                    assert_eq!(variant.kernel(&case.problem), variant.kernel(&problem), "{}", case.name);
                }
            }
        }
    }

    #[test]
    fn every_case_is_legal_for_the_widest_loads() {
        let variant = Variant::smallest(Family::Tiled);
        let variant = [(Gene::LoadBytes, 16), (Gene::RowLanes, 8)]
            .into_iter()
            .fold(variant, |variant, (gene, value)| variant.with(gene, value).unwrap());
        for case in suite(&Problem::SEED, Extent::Large) {
            assert!(legal(&case.problem, &variant, &DeviceLimits::H100).is_ok(), "{}", case.name);
        }
        let [odd] = &odd_strides(&Problem::SEED)[..] else { panic!() };
        assert!(legal(&odd.problem, &variant, &DeviceLimits::H100).is_err());
        let narrow = variant.with(Gene::LoadBytes, 2).unwrap();
        assert!(legal(&odd.problem, &narrow, &DeviceLimits::H100).is_ok());
        let leads = |load_bytes| -> Vec<_> {
            odd_addresses(&Problem::SEED, load_bytes).iter().map(|case| case.inputs.lead).collect()
        };
        assert_eq!([2, 4, 8, 16].map(leads), [vec![1, 2, 4], vec![2, 4], vec![4], vec![]]);
    }

    #[test]
    fn a_problem_smaller_than_the_gate_stays_as_it_is() {
        let tiny = Problem::new(1, 1, 5, 64, Dtype::F16);
        assert!(gate(&tiny).iter().all(|case| case.problem == tiny));
    }

    #[test]
    fn some_rows_see_nothing() {
        let blind = |case: &Case| case.problem.visible_keys(0).is_empty();
        assert!(suite(&Problem::SEED, Extent::Small).iter().filter(|case| blind(case)).count() > 5);
    }
}

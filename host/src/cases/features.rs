//! Cases of problems with features, among them small inputs on which attention kernels elsewhere failed, as publicly
//! reported.

use spec::{Align, Bias, Features, Mask, MatrixStrides, Pages, Problem, Window};

use super::{Case, Distribution, Extent, Inputs, table::plain};

const FULL: Mask = Mask::Full;
const CAUSAL: Mask = Mask::Causal(Align::BottomRight);
const TOP_LEFT: Mask = Mask::Causal(Align::TopLeft);

/// Seed by which packed batch entries get these numbers of rows and keys.
const ROWS_0101_KEYS_0305: u64 = 9;

/// Seed by which the first batch entry uses no key.
const NO_KEYS: u64 = 12;

/// Seeds by which arrays begin 0, 1, 2 and 3 elements after where memory does.
const LEADS: [u64; 4] = [0, 2, 3, 1];

/// The cases, in the dtype, head_dims and scale of `like`.
pub(super) fn cases(like: &Problem, extent: Extent) -> Vec<Case> {
    let mut cases = windows(like);
    cases.extend(softcaps(like));
    cases.extend(slopes(like));
    cases.extend(sinks(like));
    cases.extend(biases(like));
    cases.extend(masks(like));
    cases.extend(lengths(like));
    cases.extend(pages(like));
    cases.extend(broken_values(like));
    if extent == Extent::Large {
        cases.push(windowed(like, "long", [1025, 4099], CAUSAL, [Some(511), None]));
        // pytorch #142228: more batch entries and heads than a grid is high.
        let used = Features { used_kv: true, ..Features::NONE };
        let many = with(like, [65_537, 2, 1], [1, 3], CAUSAL, used);
        cases.push(Case::new("lengths/batch-65537", many, Distribution::Normal, 114));
    }
    cases
}

/// A contiguous problem with features, by batch, query heads and K/V heads, and lengths.
fn with(like: &Problem, heads: [u32; 3], lengths: [u32; 2], mask: Mask, features: Features) -> Problem {
    Problem { features, ..plain(like, heads, lengths, mask) }
}

fn windowed(like: &Problem, name: &str, lengths: [u32; 2], mask: Mask, [left, right]: [Option<u32>; 2]) -> Case {
    let features = Features { window: Window { left, right }, ..Features::NONE };
    // Keys that no row sees must not leak.
    let problem = with(like, [1, 2, 1], lengths, mask, features);
    Case::new(format!("window/{name}"), problem, Distribution::HiddenNan, 100)
}

fn windows(like: &Problem) -> Vec<Case> {
    let case = |name, lengths, mask, window| windowed(like, name, lengths, mask, window);
    // flash-attention #2082, for kernels that walk forward: the first tile that a block visits is hidden from its last
    // rows, and all that these see lies far below zero.
    let hidden_first = windowed(like, "low-logits-after-hidden-tile", [150, 300], TOP_LEFT, [Some(9), None]);
    let inputs = Inputs { distribution: Distribution::LowLogits, ..hidden_first.inputs };
    vec![
        Case { inputs, ..hidden_first },
        // flash-attention #2199: rows outside the band of a short sequence see nothing.
        case("beyond-the-keys", [129, 20], FULL, [Some(32), Some(64)]),
        case("beyond-the-keys-top-left", [129, 20], TOP_LEFT, [Some(32), None]),
        // transformers #39408, zml #763, xformers #923: so many keys and the row's own.
        case("seven-keys", [70, 150], CAUSAL, [Some(6), Some(0)]),
        case("own-key-only", [70, 70], FULL, [Some(0), Some(0)]),
        case("one-side-left", [40, 130], FULL, [Some(17), None]),
        case("one-side-right", [40, 130], FULL, [None, Some(17)]),
        // libflash_attn #11, flash-attention #1133: as wide as the sequence.
        case("as-wide-as-causal", [65, 65], CAUSAL, [Some(64), None]),
        case("wider-than-all", [33, 65], FULL, [Some(u32::MAX), Some(1 << 30)]),
        case("top-left", [40, 130], TOP_LEFT, [Some(20), None]),
        case("one-row", [1, 257], CAUSAL, [Some(100), None]),
        case("causal-hides-what-the-window-shows", [20, 30], CAUSAL, [Some(4), Some(9)]),
    ]
}

fn softcaps(like: &Problem) -> Vec<Case> {
    use Distribution::{LargeLogits, LowLogits, Normal};
    let case = |name: &str, softcap, mask, distribution| {
        let features = Features { softcap: Some(softcap), ..Features::NONE };
        let problem = with(like, [1, 4, 2], [33, 70], mask, features);
        Case::new(format!("softcap/{name}"), problem, distribution, 101)
    };
    vec![
        case("usual", 30.0, CAUSAL, Normal),
        case("narrow", 0.01, FULL, Normal),
        case("wide", 1e4, FULL, Normal),
        case("reached", 50.0, CAUSAL, LargeLogits),
        case("reached-from-below", 20.0, TOP_LEFT, LowLogits),
    ]
}

fn slopes(like: &Problem) -> Vec<Case> {
    let features = Features { alibi: true, ..Features::NONE };
    let case = |name: &str, lengths, mask| {
        Case::new(format!("alibi/{name}"), with(like, [2, 6, 2], lengths, mask, features), Distribution::Normal, 102)
    };
    vec![
        case("both-sides", [40, 40], FULL),
        case("more-keys", [17, 90], FULL),
        case("more-rows", [90, 17], FULL),
        case("causal", [33, 65], CAUSAL),
        case("causal-top-left", [33, 65], TOP_LEFT),
    ]
}

/// rocm-libraries #12227, flash-attention #2752, modular #6591: each head's sink counts once, where there are no keys too.
fn sinks(like: &Problem) -> Vec<Case> {
    use Distribution::{LargeLogits, LowLogits, Normal};
    let features = Features { sinks: true, ..Features::NONE };
    let case = |name: &str, lengths, mask, distribution| {
        Case::new(format!("sinks/{name}"), with(like, [2, 12, 4], lengths, mask, features), distribution, 103)
    };
    vec![
        case("full", [20, 70], FULL, Normal),
        case("rows-that-see-nothing", [65, 9], CAUSAL, Normal),
        case("one-key", [5, 1], FULL, Normal),
        case("far-above", [9, 40], CAUSAL, LowLogits),
        case("far-below", [9, 40], FULL, LargeLogits),
        {
            // Batch entries without keys: LSE is the sink.
            let features = Features { used_kv: true, ..features };
            Case::new("sinks/empty-entries", with(like, [6, 4, 2], [5, 33], CAUSAL, features), Normal, NO_KEYS)
        },
    ]
}

/// Strides of a matrix whose rows are so many elements apart, with one row for all where `shared` says so: over batch
/// entries, heads, rows.
fn matrix(problem: &Problem, row: u32, shared: [bool; 3]) -> MatrixStrides {
    let [row, rows, heads] = [row, problem.seqlen_q, problem.heads_q].map(i64::from);
    let [shared_batch, shared_head, shared_row] = shared;
    let rows = if shared_row { 1 } else { rows };
    let along = |shared, stride| if shared { 0 } else { stride };
    MatrixStrides {
        batch: along(shared_batch, row * rows * if shared_head { 1 } else { heads }),
        head: along(shared_head, row * rows),
        row: along(shared_row, row),
    }
}

fn biases(like: &Problem) -> Vec<Case> {
    let case = |name: &str, lengths: [u32; 2], mask, row, shared, wide| {
        let problem = plain(like, [2, 4, 2], lengths, mask);
        let bias = Some(Bias { wide, strides: matrix(&problem, row, shared) });
        let problem = Problem { features: Features { bias, ..Features::NONE }, ..problem };
        Case::new(format!("bias/{name}"), problem, Distribution::Normal, 104)
    };
    let mut cases = vec![
        case("contiguous", [17, 40], FULL, 40, [false; 3], false),
        case("contiguous-f32", [17, 40], FULL, 40, [false; 3], true),
        // onnxscript #1833, xformers #813, pytorch #188246: rows start anywhere.
        case("rows-of-43", [20, 43], CAUSAL, 43, [false; 3], false),
        case("rows-of-361", [19, 70], FULL, 361, [true, false, false], false),
        case("rows-of-361-f32", [19, 70], TOP_LEFT, 361, [false, true, false], true),
        case("one-row-for-all", [33, 70], FULL, 70, [true, true, true], false),
        case("one-row-per-entry", [33, 70], CAUSAL, 71, [false, true, true], true),
        // pytorch #103963, #110213, #109517: 441 keys, many of them hidden.
        case("441", [20, 441], FULL, 441, [true, true, false], true),
    ];
    // pytorch #188246, onnxscript #1833: arrays that begin 2, 4, 8 and more bytes after where memory does.
    for (wide, name) in [(false, "offset"), (true, "offset-f32")] {
        let leads = LEADS.into_iter().enumerate().map(|(lead, seed)| {
            let case = case(&format!("{name}-{lead}"), [9, 43], CAUSAL, 43, [false; 3], wide);
            Case { inputs: Inputs { seed, ..case.inputs }, ..case }
        });
        cases.extend(leads);
    }
    cases
}

fn masks(like: &Problem) -> Vec<Case> {
    let case = |name: &str, lengths: [u32; 2], mask, row, shared| {
        let problem = plain(like, [2, 4, 2], lengths, mask);
        let features = Features { mask: Some(matrix(&problem, row, shared)), ..Features::NONE };
        Case::new(format!("mask/{name}"), Problem { features, ..problem }, Distribution::Normal, 105)
    };
    vec![
        // cubecl #1070, burn #4697, mlx #2608: rows that the mask hides everything from.
        case("eight-by-eight", [8, 8], FULL, 8, [false; 3]),
        case("contiguous", [33, 70], CAUSAL, 70, [false; 3]),
        case("padding", [33, 70], FULL, 70, [false, true, true]),
        case("heads-differ", [20, 70], TOP_LEFT, 77, [true, false, false]),
    ]
}

/// pytorch #101967: what is hidden may hold anything, and stays where it is; what is seen is seen.
fn broken_values(like: &Problem) -> Vec<Case> {
    let shape = plain(like, [2, 4, 2], [41, 90], FULL);
    let mask = Features { mask: Some(matrix(&shape, 91, [false; 3])), ..Features::NONE };
    let padding = Features { mask: Some(matrix(&shape, 90, [false, true, true])), ..Features::NONE };
    let bias = Some(Bias { wide: true, strides: matrix(&shape, 90, [true, false, false]) });
    let window = Features { window: Window { left: Some(9), right: Some(3) }, ..Features::NONE };
    let of = [
        ("mask", mask, FULL),
        ("bias", Features { bias, ..Features::NONE }, FULL),
        ("mask-and-bias", Features { bias, ..mask }, CAUSAL),
        ("padding", padding, FULL),
        ("window", window, FULL),
        ("window-top-left", window, TOP_LEFT),
        ("sinks-and-slopes", Features { sinks: true, alibi: true, ..padding }, CAUSAL),
    ];
    let cases = of.into_iter().flat_map(|(name, features, mask)| {
        let problem = Problem { features, mask, ..shape };
        [Distribution::HiddenNan, Distribution::BrokenValues]
            .map(|values| Case::new(format!("broken-values/{name}/{values:?}"), problem, values, 140))
    });
    cases.collect()
}

fn lengths(like: &Problem) -> Vec<Case> {
    let case = |name: &str, heads, most, mask, features, seed| {
        let problem = with(like, heads, most, mask, features).in_bshd();
        Case::new(format!("lengths/{name}"), problem, Distribution::Normal, seed)
    };
    let packed = |q, kv| Features { packed_q: Some(q), packed_kv: Some(kv), ..Features::NONE };
    let used = Features { used_kv: true, ..Features::NONE };
    let mut cases = vec![
        case("packed-causal", [4, 4, 2], [70, 90], CAUSAL, packed(130, 210), 106),
        case("packed-full", [3, 2, 2], [33, 65], FULL, packed(64, 99), 107),
        case("packed-top-left", [5, 2, 1], [20, 20], TOP_LEFT, packed(40, 60), 108),
        // flash-attention #2862: many more tiles than the entries have.
        case("mostly-empty", [7, 2, 1], [129, 40], CAUSAL, packed(130, 100), 109),
        case("rows-alone", [3, 2, 2], [40, 50], CAUSAL, Features { packed_q: Some(60), ..Features::NONE }, 110),
        case("keys-alone", [3, 2, 2], [40, 50], CAUSAL, Features { packed_kv: Some(90), ..Features::NONE }, 111),
        // flash-attention #1745, #2374, #1395, flashinfer #1029, vllm #936: NaN in a cache beyond the keys in use.
        case("used", [4, 4, 2], [3, 128], CAUSAL, used, 112),
        case("used-in-prefill", [4, 2, 1], [60, 128], CAUSAL, used, 113),
    ];
    // flash-attention #1537, #1713, #2470, #2568, #1155: entries without rows or keys, in many draws.
    for seed in 120..128 {
        cases.push(case(&format!("empty-entries/{seed}"), [4, 9, 3], [1, 5], FULL, packed(2, 8), seed));
    }
    // flash-attention #1537, as it was: query rows 0, 1, 0, 1 and keys 0, 3, 0, 5.
    cases.push(case("rows-0101-keys-0305", [4, 9, 3], [1, 5], FULL, packed(2, 8), ROWS_0101_KEYS_0305));
    // flash-attention #2470, #2568, flashinfer #4484, cudnn-frontend #943: no keys at all.
    for (name, mask) in [("no-keys", FULL), ("no-keys-causal", CAUSAL)] {
        cases.push(case(name, [1, 4, 2], [70, 33], mask, used, NO_KEYS));
    }
    cases
}

fn pages(like: &Problem) -> Vec<Case> {
    let case = |name: &str, heads, lengths: [u32; 2], [count, size]: [u32; 2], features| {
        let pages = Some(Pages { count, size, columns: lengths[1].div_ceil(size) });
        let problem = with(like, heads, lengths, CAUSAL, Features { pages, ..features });
        Case::new(format!("pages/{name}"), problem.in_bshd(), Distribution::Normal, 130)
    };
    let used = Features { used_kv: true, ..Features::NONE };
    vec![
        case("decode", [4, 4, 2], [1, 150], [40, 16], used),
        case("prefill", [2, 4, 2], [40, 150], [9, 64], used),
        case("of-one-key", [2, 2, 2], [5, 20], [40, 1], used),
        case("odd-size", [3, 2, 1], [9, 100], [50, 7], used),
        case("all-used", [2, 2, 1], [17, 96], [12, 32], Features::NONE),
        case("packed-rows", [3, 4, 2], [20, 80], [30, 16], Features { packed_q: Some(33), ..used }),
    ]
}

#[cfg(test)]
mod tests {
    use spec::{Dtype, Extra};

    use super::*;
    use crate::cases::{Extras, Tensors};

    fn find(name: &str) -> (Case, Tensors) {
        let like = Problem::new(1, 1, 1, 64, Dtype::F16);
        let case = cases(&like, Extent::Small).into_iter().find(|case| case.name == name).expect(name);
        let tensors = case.inputs.generate(&case.problem).unwrap();
        (case, tensors)
    }

    /// Rows and keys of each batch entry.
    fn counts(name: &str) -> Vec<[u32; 2]> {
        let (case, tensors) = find(name);
        let sequence = |entry| tensors.extras.sequence(&case.problem, entry);
        (0..case.problem.batch).map(|entry| [sequence(entry).rows, sequence(entry).keys]).collect()
    }

    #[test]
    fn lengths_are_those_that_the_names_say() {
        assert_eq!(counts("lengths/rows-0101-keys-0305"), [[0, 0], [1, 3], [0, 0], [1, 5]]);
        for name in ["lengths/no-keys", "lengths/no-keys-causal"] {
            assert_eq!(counts(name), [[70, 0]]);
        }
        let draws: Vec<_> = (120..128).flat_map(|seed| counts(&format!("lengths/empty-entries/{seed}"))).collect();
        assert!(draws.iter().any(|[rows, keys]| *rows == 0 && *keys > 0), "{draws:?}");
        assert!(draws.iter().any(|[rows, keys]| *rows > 0 && *keys == 0), "{draws:?}");
        assert!(counts("sinks/empty-entries").iter().any(|[_, keys]| *keys == 0));
        assert!(counts("lengths/used").iter().any(|[_, keys]| (1..128).contains(keys)));
    }

    #[test]
    fn arrays_begin_where_the_names_say() {
        let lead = |name: &str, extra| find(name).1.extras.get(extra).unwrap().lead;
        for at in 0..4 {
            assert_eq!(lead(&format!("bias/offset-{at}"), Extra::Bias), at * 2);
            assert_eq!(lead(&format!("bias/offset-f32-{at}"), Extra::Bias), at * 4);
        }
    }

    /// Whether each row of the first head and entry, in its order, fulfils something.
    fn rows(case: &Case, extras: &Extras, fulfils: impl Fn(&Extras, u32) -> bool) -> Vec<bool> {
        (0..case.problem.seqlen_q).map(|row| fulfils(extras, row)).collect()
    }

    #[test]
    fn some_rows_see_nothing_by_mask_and_by_bias() {
        let (case, tensors) = find("mask/eight-by-eight");
        let blind = |extras: &Extras, row| (0..8).all(|key| !extras.lets_see(&case.problem, [0, 0, row, key]));
        assert!(rows(&case, &tensors.extras, blind).contains(&true));
        let (case, tensors) = find("bias/441");
        let all = |value: f32| {
            let problem = case.problem;
            move |extras: &Extras, row| (0..441).all(|key| extras.bias(&problem, [0, 0, row, key]) == Some(value))
        };
        assert!(rows(&case, &tensors.extras, all(f32::NEG_INFINITY)).contains(&true));
        assert!(rows(&case, &tensors.extras, all(f32::MIN)).contains(&true));
    }

    #[test]
    fn sinks_are_far_above_and_absent_too() {
        let (case, tensors) = find("sinks/full");
        let sinks: Vec<_> = (0..case.problem.heads_q).map(|head| tensors.extras.sink(head)).collect();
        assert!(sinks.contains(&Some(100.0)) && sinks.contains(&Some(f32::NEG_INFINITY)), "{sinks:?}");
    }

    #[test]
    fn a_window_of_so_many_keys_shows_so_many() {
        let (Case { problem, .. }, _) = find("window/seven-keys");
        assert!((0..problem.seqlen_q).all(|row| problem.visible_keys(row).len() == 7));
        let (Case { problem, .. }, _) = find("window/as-wide-as-causal");
        let causal = Problem { features: Features::NONE, ..problem };
        assert!((0..problem.seqlen_q).all(|row| problem.visible_keys(row) == causal.visible_keys(row)));
    }
}

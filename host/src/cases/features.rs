//! Cases of problems with features, among them small inputs on which attention kernels elsewhere failed, as publicly
//! reported.

use spec::{Align, Bias, Features, Mask, MatrixStrides, Problem, Window};

use super::{Case, Distribution, Extent, table::plain};

const FULL: Mask = Mask::Full;
const CAUSAL: Mask = Mask::Causal(Align::BottomRight);
const TOP_LEFT: Mask = Mask::Causal(Align::TopLeft);

/// The cases, in the dtype, head_dims and scale of `like`.
pub(super) fn cases(like: &Problem, extent: Extent) -> Vec<Case> {
    let mut cases = windows(like);
    cases.extend(softcaps(like));
    cases.extend(slopes(like));
    cases.extend(sinks(like));
    cases.extend(biases(like));
    cases.extend(masks(like));
    if extent == Extent::Large {
        cases.push(windowed(like, "long", [1025, 4099], CAUSAL, [Some(511), None]));
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
    vec![
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
    vec![
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
    ]
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

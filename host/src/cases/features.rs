//! Cases of problems with features, among them small inputs on which attention kernels elsewhere failed, as publicly
//! reported.

use spec::{Align, Features, Mask, Problem, Window};

use super::{Case, Distribution, Extent, table::plain};

const FULL: Mask = Mask::Full;
const CAUSAL: Mask = Mask::Causal(Align::BottomRight);
const TOP_LEFT: Mask = Mask::Causal(Align::TopLeft);

/// The cases, in the dtype, head_dims and scale of `like`.
pub(super) fn cases(like: &Problem, extent: Extent) -> Vec<Case> {
    let mut cases = windows(like);
    if extent == Extent::Large {
        cases.push(windowed(like, "long", [1025, 4099], CAUSAL, [Some(511), None]));
    }
    cases
}

fn windowed(like: &Problem, name: &str, lengths: [u32; 2], mask: Mask, [left, right]: [Option<u32>; 2]) -> Case {
    let features = Features { window: Window { left, right } };
    let problem = Problem { features, ..plain(like, [1, 2, 1], lengths, mask) };
    // Keys that no row sees must not leak.
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

//! Small inputs on which attention kernels elsewhere failed, as publicly reported.

use spec::{Align, Dtype, Mask, Problem};

use super::{Case, Distribution, Layout, table::plain};

const CAUSAL: Mask = Mask::Causal(Align::BottomRight);
const TOP_LEFT: Mask = Mask::Causal(Align::TopLeft);

/// The cases, in the dtype and head_dims of `like`.
pub(super) fn cases(like: &Problem, large: bool) -> Vec<Case> {
    use Distribution::{ConstantV, HugeScores, LargeV, LowLogits, Normal};
    let case = |name: &str, heads, lengths, mask, distribution| {
        Case::new(format!("field/{name}"), plain(like, heads, lengths, mask), distribution, 70)
    };
    let mut cases = vec![
        // flash-attention #2082: the first tile visited is hidden, all later logits are far below zero.
        case("low-logits-after-hidden-tile", [1, 14, 2], [88, 448], CAUSAL, LowLogits),
        // flash-attention #1778: rows at the top see nothing, whole tiles of them.
        case("blind-tiles", [1, 2, 1], [384, 256], CAUSAL, Normal),
        case("one-key-last-row-sees", [1, 2, 1], [239, 1], CAUSAL, Normal),
        case("three-keys-last-rows-see", [1, 1, 1], [799, 3], CAUSAL, Normal),
        case("more-rows-than-keys-top-left", [1, 2, 1], [384, 256], TOP_LEFT, Normal),
        // flash-attention #402, #951, #517: both alignments of a 2 x 5 mask.
        case("two-by-five-bottom-right", [1, 1, 1], [2, 5], CAUSAL, Normal),
        case("two-by-five-top-left", [1, 1, 1], [2, 5], TOP_LEFT, Normal),
        // pytorch #119131: dot products of 7.8e5.
        case("scores-beyond-fp16", [1, 2, 2], [100, 100], Mask::Full, HugeScores),
        // llama.cpp #17746, tinygrad #4985: sums of P V beyond fp16.
        case("values-beyond-fp16", [1, 2, 2], [40, 1000], Mask::Full, LargeV),
        // arXiv 2405.02803: rounded P against an unrounded sum.
        case("constant-values", [1, 2, 2], [64, 1000], CAUSAL, ConstantV),
        // flash-attention #1076, pytorch #131257: one row, 257 keys.
        case("one-row", [1, 3, 1], [1, 257], Mask::Full, Normal),
        case("one-row-causal", [1, 3, 1], [1, 257], CAUSAL, Normal),
        // pytorch #138529, #138531: one key.
        case("one-key", [2, 2, 2], [65, 1], Mask::Full, Normal),
        // pytorch #133717, #159247, #153799: lengths that are no multiple of a tile.
        case("ragged-decode", [2, 4, 2], [1, 139], Mask::Full, Normal),
        case("ragged-1025", [1, 1, 1], [33, 1025], CAUSAL, Normal),
        // pytorch #143117, flash-attention #2186, #2528: query heads by K/V head.
        case("gqa-of-three", [1, 6, 2], [20, 40], CAUSAL, Normal),
        case("gqa-of-twelve", [1, 24, 2], [20, 40], CAUSAL, Normal),
        // NPU #120: one row more than keys, and many.
        case("one-row-too-many", [1, 2, 1], [66, 65], CAUSAL, Normal),
    ];
    if like.dtype == Dtype::E4m3 {
        // arXiv 2411.10958, 2412.19437: sums of products of one byte keep 13 bits; several spans of them.
        cases.push(case("sums-of-spans", [1, 2, 1], [70, 3300], CAUSAL, Normal));
    }
    // flash-attention #1745, #2374, flashinfer #1029: NaN in a cache after the keys in use.
    for used in [32, 48, 64, 96] {
        let problem = Layout::Capacity.of(&plain(like, [2, 2, 1], [3, used], CAUSAL));
        cases.push(Case::new(format!("field/cache-of-{used}"), problem, Normal, 71));
    }
    // pytorch #112577, ROCm/pytorch #3230: K and V, or V alone, not contiguous.
    let bshd = plain(like, [1, 16, 16], [1, 62], Mask::Full);
    for (name, both) in [("keys-and-values-transposed", true), ("values-transposed", false)] {
        let (mut problem, other) = (bshd, bshd.in_bhsd().strides);
        problem.strides.v = other.v;
        if both {
            problem.strides.k = other.k;
        }
        cases.push(Case::new(format!("field/{name}"), problem, Normal, 72));
    }
    // pytorch #142228, #146704, xformers #845, flashinfer #3125: batch x heads beyond what two grid dimensions hold. Rows so
    // short are soon made, also for the CPU machine, which runs a sample of the blocks.
    if large || like.head_dim_qk.max(like.head_dim_v) <= 8 {
        cases.extend([
            case("batch-65537", [65_537, 1, 1], [2, 3], CAUSAL, Normal),
            case("heads-65537", [1, 65_537, 1], [2, 3], CAUSAL, Normal),
            case("batch-times-heads", [8_200, 8, 8], [4, 4], Mask::Full, Normal),
        ]);
    }
    if large {
        // pytorch #133717: one row and a ragged number of keys, at many of them.
        for keys in (129..=228).step_by(9) {
            cases.push(case(&format!("ragged-decode-{keys}"), [1, 4, 2], [1, keys], Mask::Full, Normal));
        }
        cases.extend([
            case("long-values-beyond-fp16", [1, 2, 2], [257, 4096], Mask::Full, LargeV),
            case("long-rows", [1, 2, 1], [1025, 16_385], CAUSAL, Normal),
        ]);
    }
    cases
}

//! The shapes that are measured.

use clap::ValueEnum;
use spec::{Align, Dtype, Mask, Problem};

/// A group of shapes that say one thing about an implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Suite {
    /// The shape the project began with: latency.
    Seed,
    /// Few and short sequences: filling the GPU.
    Short,
    /// 16 Ki tokens at a time: throughput.
    Prefill,
    /// Eight query heads to a K/V head.
    Gqa,
    /// One query row: memory bandwidth.
    Decode,
    /// All of them.
    All,
}

/// Which element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Dtypes {
    F16,
    Bf16,
    Both,
}

impl Dtypes {
    pub(super) fn dtypes(self) -> &'static [Dtype] {
        match self {
            Self::F16 => &[Dtype::F16],
            Self::Bf16 => &[Dtype::Bf16],
            Self::Both => &Dtype::HALVES,
        }
    }
}

/// 16 Ki tokens and 2048 columns over all heads, whatever the length and the head_dim.
const PREFILL_TOKENS: u32 = 16_384;
const PREFILL_COLUMNS: u32 = 2048;
/// Keys of all sequences of a decode step at most.
const DECODE_KEYS: u32 = 64 * 8192;

/// The problems of a suite.
pub(super) fn problems(suite: Suite, dtype: Dtype) -> Vec<Problem> {
    match suite {
        Suite::Seed => both_masks(Problem::new(1, 8, 512, 64, dtype)).into(),
        Suite::Short => each([1, 4], |batch| {
            each([128, 256, 512, 1024], |seqlen| each([64, 128], |d| vec![Problem::new(batch, 8, seqlen, d, dtype)]))
        }),
        Suite::Prefill => each([64, 128, 256], |d| {
            each([512, 1024, 2048, 4096, 8192, 16_384], |seqlen| {
                both_masks(Problem::new(PREFILL_TOKENS / seqlen, PREFILL_COLUMNS / d, seqlen, d, dtype)).into()
            })
        }),
        Suite::Gqa => each([2048, 4096, 8192], |seqlen| {
            both_masks(Problem::new(1, 64, seqlen, 128, dtype).with_heads_kv(8)).into()
        }),
        Suite::Decode => each([1, 16, 64], |batch| {
            let keys = [1024, 8192, 32_768].into_iter().filter(|keys| batch * keys <= DECODE_KEYS);
            keys.map(|keys| Problem::new(batch, 32, keys, 128, dtype).with_heads_kv(8).with_seqlens(1, keys)).collect()
        }),
        Suite::All => {
            each([Suite::Seed, Suite::Short, Suite::Prefill, Suite::Gqa, Suite::Decode], |suite| problems(suite, dtype))
        }
    }
}

fn each<T, const N: usize>(values: [T; N], problems: impl Fn(T) -> Vec<Problem>) -> Vec<Problem> {
    values.into_iter().flat_map(problems).collect()
}

fn both_masks(problem: Problem) -> [Problem; 2] {
    [problem, problem.with_mask(Mask::Causal(Align::BottomRight))]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use spec::{DeviceLimits, defaults};

    use super::*;

    #[test]
    fn every_shape_has_a_default_and_none_comes_twice() {
        let all = problems(Suite::All, Dtype::F16);
        assert_eq!(all.len(), 2 + 16 + 36 + 6 + 8);
        assert_eq!(
            all.iter().map(Problem::to_string).collect::<HashSet<_>>().len(),
            all.len() - 1,
            "short has the seed"
        );
        for problem in all {
            assert!(defaults(&problem, &DeviceLimits::H100).next().is_some(), "{problem}");
        }
    }
}

//! What is asked of an attention kernel.

use core::{fmt, ops::Range, str::FromStr};

use crate::features::{Band, diagonal};
use crate::{Dtype, Features, Pages, ParseError, Strides, parse};

/// Where the diagonal of a causal mask lies when `seqlen_q != seqlen_kv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Align {
    /// Row `i` sees keys `0..=i` (PyTorch's `is_causal`).
    TopLeft,
    /// Row `i` sees keys `0..=i + seqlen_kv - seqlen_q` (FlashAttention since 2.1).
    BottomRight,
}

/// Which keys a query row sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Mask {
    /// Every key.
    Full,
    /// Keys up to the diagonal.
    Causal(Align),
}

impl Mask {
    /// Name used in records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Causal(Align::TopLeft) => "causal-tl",
            Self::Causal(Align::BottomRight) => "causal",
        }
    }
}

/// Strides of the four tensors, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TensorStrides {
    /// Strides of Q.
    pub q: Strides,
    /// Strides of K.
    pub k: Strides,
    /// Strides of V.
    pub v: Strides,
    /// Strides of O.
    pub o: Strides,
}

/// One attention problem: `O = softmax(scale * Q K^T + mask) V` for every batch entry and head.
///
/// Its text form, which records and the command line use, is for example
/// `b1-hq8-hk8-sq512-sk512-dqk64-dv64-f16-full-bshd`; `b1-h8-s512-d64-f16` says the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Problem {
    /// Batch entries.
    pub batch: u32,
    /// Query heads.
    pub heads_q: u32,
    /// Key and value heads; divides `heads_q`.
    pub heads_kv: u32,
    /// Query rows.
    pub seqlen_q: u32,
    /// Keys.
    pub seqlen_kv: u32,
    /// Columns of Q and K.
    pub head_dim_qk: u32,
    /// Columns of V and O.
    pub head_dim_v: u32,
    /// Element type of Q, K and V, and [of O](Dtype::output).
    pub dtype: Dtype,
    /// Which keys a row sees.
    pub mask: Mask,
    /// Strides of all four tensors.
    pub strides: TensorStrides,
    /// Factor on the scores; `1 / sqrt(head_dim_qk)` unless set.
    pub scale: Option<f32>,
    /// What else is asked.
    pub features: Features,
}

impl Problem {
    /// A multi-head problem in contiguous BSHD layout, with one length and one head_dim.
    pub const fn new(batch: u32, heads: u32, seqlen: u32, head_dim: u32, dtype: Dtype) -> Self {
        Self {
            batch,
            heads_q: heads,
            heads_kv: heads,
            seqlen_q: seqlen,
            seqlen_kv: seqlen,
            head_dim_qk: head_dim,
            head_dim_v: head_dim,
            dtype,
            mask: Mask::Full,
            strides: TensorStrides {
                q: Strides::bshd(seqlen, heads, head_dim),
                k: Strides::bshd(seqlen, heads, head_dim),
                v: Strides::bshd(seqlen, heads, head_dim),
                o: Strides::bshd(seqlen, heads, head_dim),
            },
            scale: None,
            features: Features::NONE,
        }
    }

    /// The shape the project began with: B1 H8 S512 d64 fp16, full attention.
    pub const SEED: Self = Self::new(1, 8, 512, 64, Dtype::F16);

    /// A step of decoding: a query row of each of 32 heads, which share 8 heads of 8192 keys, d128 fp16.
    pub const DECODE: Self = Self::new(1, 32, 8192, 128, Dtype::F16).with_heads_kv(8).with_seqlens(1, 8192);

    /// The same problem with other lengths; strides become contiguous BSHD.
    pub const fn with_seqlens(mut self, seqlen_q: u32, seqlen_kv: u32) -> Self {
        self.seqlen_q = seqlen_q;
        self.seqlen_kv = seqlen_kv;
        self.in_bshd()
    }

    /// The same problem with `heads_kv` key/value heads; strides become contiguous BSHD.
    pub const fn with_heads_kv(mut self, heads_kv: u32) -> Self {
        self.heads_kv = heads_kv;
        self.in_bshd()
    }

    /// The same problem with another mask.
    pub const fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self
    }

    /// The same problem with another dtype.
    pub const fn with_dtype(mut self, dtype: Dtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// Shapes of Q, K, V and O as they are in memory: `[batch, seqlen, heads, head_dim]`, where packed entries are one, and
    /// pages stand for entries.
    pub const fn shapes(&self) -> [[u32; 4]; 4] {
        let Self { heads_q, heads_kv, head_dim_qk, head_dim_v, .. } = *self;
        let Features { packed_q, packed_kv, pages, .. } = self.features;
        let [batch_q, rows] = match packed_q {
            Some(rows) => [1, rows],
            None => [self.batch, self.seqlen_q],
        };
        let [batch_kv, keys] = match (packed_kv, pages) {
            (Some(keys), _) => [1, keys],
            (None, Some(Pages { count, size, .. })) => [count, size],
            (None, None) => [self.batch, self.seqlen_kv],
        };
        [
            [batch_q, rows, heads_q, head_dim_qk],
            [batch_kv, keys, heads_kv, head_dim_qk],
            [batch_kv, keys, heads_kv, head_dim_v],
            [batch_q, rows, heads_q, head_dim_v],
        ]
    }

    /// The same problem in contiguous `[batch, seqlen, heads, head_dim]`.
    pub const fn in_bshd(mut self) -> Self {
        let [[_, rows, heads_q, qk], [_, keys, heads_kv, _], [_, _, _, v], _] = self.shapes();
        self.strides = TensorStrides {
            q: Strides::bshd(rows, heads_q, qk),
            k: Strides::bshd(keys, heads_kv, qk),
            v: Strides::bshd(keys, heads_kv, v),
            o: Strides::bshd(rows, heads_q, v),
        };
        self
    }

    /// The same problem in contiguous `[batch, heads, seqlen, head_dim]`.
    pub const fn in_bhsd(mut self) -> Self {
        let [[_, rows, heads_q, qk], [_, keys, heads_kv, _], [_, _, _, v], _] = self.shapes();
        self.strides = TensorStrides {
            q: Strides::bhsd(rows, heads_q, qk),
            k: Strides::bhsd(keys, heads_kv, qk),
            v: Strides::bhsd(keys, heads_kv, v),
            o: Strides::bhsd(rows, heads_q, v),
        };
        self
    }

    /// Factor on the scores.
    pub fn softmax_scale(&self) -> f32 {
        self.scale.unwrap_or_else(|| inverse_sqrt(self.head_dim_qk))
    }

    /// Query heads that share one key/value head.
    pub const fn heads_per_kv(&self) -> u32 {
        self.heads_q / self.heads_kv
    }

    /// Whether only an entry point with [`Features`] can do it.
    pub fn needs_features(&self) -> bool {
        self.features != Features::NONE
    }

    /// Row `i` sees key `j` if `j <= i + diagonal` by the causal mask; `None` if there is none.
    pub const fn diagonal(&self) -> Option<i64> {
        match self.mask {
            Mask::Full => None,
            mask => Some(diagonal(mask, self.seqlen_q, self.seqlen_kv)),
        }
    }

    /// Keys that query row `row` sees by causal mask and window.
    pub const fn visible_keys(&self, row: u32) -> Range<u32> {
        Band::of(self, self.seqlen_q, self.seqlen_kv).keys(row)
    }

    /// Scores that causal mask and window let through, over all batch entries and heads. Where entries have lengths of their
    /// own, which are not part of the problem, there may be none.
    pub const fn visible_scores(&self) -> u64 {
        if self.features.varies() {
            return 0;
        }
        Band::of(self, self.seqlen_q, self.seqlen_kv).scores(self.seqlen_q) * self.batch as u64 * self.heads_q as u64
    }

    /// Floating-point operations of the two matrix products over the scores the mask lets through.
    pub const fn flops(&self) -> u64 {
        2 * self.visible_scores() * (self.head_dim_qk as u64 + self.head_dim_v as u64)
    }

    /// Fewest bytes moved: each input read once, the output written once. Of K and V that are in part unused, or in pages
    /// that entries may share, none may be read.
    pub const fn bytes(&self) -> u64 {
        let [[batch_q, rows, ..], [batch_kv, keys, ..], ..] = self.shapes();
        let columns = (self.head_dim_qk + self.head_dim_v) as u64;
        let element = self.dtype.bytes() as u64;
        let outer = rows as u64 * batch_q as u64 * self.heads_q as u64;
        let q_and_o = self.head_dim_qk as u64 * element + self.head_dim_v as u64 * self.dtype.output().bytes() as u64;
        let kv = match self.features {
            Features { used_kv: false, pages: None, .. } => {
                keys as u64 * batch_kv as u64 * self.heads_kv as u64 * columns
            }
            _ => 0,
        };
        outer * q_and_o + kv * element
    }
}

/// `1 / sqrt(x)`: `core` has no square root.
fn inverse_sqrt(x: u32) -> f32 {
    let x = f64::from(x.max(1));
    let mut y = f64::from_bits(0x5fe6_eb50_c7b5_37a9 - (x.to_bits() >> 1));
    for _ in 0..5 {
        y *= 1.5 - 0.5 * x * y * y;
    }
    y as f32
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, heads_q, heads_kv, seqlen_q, seqlen_kv, head_dim_qk, head_dim_v, .. } = self;
        write!(f, "b{batch}-hq{heads_q}-hk{heads_kv}-sq{seqlen_q}-sk{seqlen_kv}-dqk{head_dim_qk}-dv{head_dim_v}")?;
        write!(f, "-{}-{}", self.dtype.name(), self.mask.name())?;
        if self.strides == self.in_bshd().strides {
            f.write_str("-bshd")?;
        } else if self.strides == self.in_bhsd().strides {
            f.write_str("-bhsd")?;
        } else {
            let s = &self.strides;
            for (name, t) in [("q", s.q), ("k", s.k), ("v", s.v), ("o", s.o)] {
                write!(f, "-{name}str{}/{}/{}", t.batch, t.seq, t.head)?;
            }
        }
        if let Some(scale) = self.scale {
            // Scientific notation could hold a '-', which separates fields.
            write!(f, "-scale0x{:08x}", scale.to_bits())?;
        }
        self.features.fmt(f)
    }
}

impl FromStr for Problem {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse::problem(text)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Problem {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse::deserialize(deserializer, "a problem such as b1-h8-s512-d64-f16")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;
    use crate::{Bias, MatrixStrides, Window};

    #[test]
    fn text_form_round_trips() {
        let odd = Problem { scale: Some(-1e-9), ..Problem::SEED.with_heads_kv(2).with_seqlens(7, 300) };
        let mut strided = odd;
        strided.strides.k.head = 4096;
        let window = |left, right| Features { window: Window { left, right }, ..Features::NONE };
        let strides = MatrixStrides { batch: 0, head: 4096, row: 43 };
        let all =
            Features { softcap: Some(1e-9), alibi: true, sinks: true, mask: Some(strides), ..window(Some(0), None) };
        let bias = |wide| Problem { features: Features { bias: Some(Bias { wide, strides }), ..all }, ..odd };
        let near = Problem { features: window(Some(64), Some(0)), ..odd };
        let lengths = Features { packed_q: Some(9), packed_kv: Some(100), ..Features::NONE };
        let packed = Problem { features: lengths, batch: 3, ..odd }.in_bshd();
        let pages = Some(Pages { count: 99, size: 16, columns: 20 });
        let paged = Problem { features: Features { pages, used_kv: true, ..Features::NONE }, ..odd }.in_bshd();
        let right = Problem { features: window(None, Some(3)), ..Problem::SEED };
        for problem in [
            Problem::SEED,
            odd,
            odd.in_bhsd(),
            strided,
            near,
            right,
            bias(true),
            bias(false),
            packed,
            paged,
            paged.in_bhsd(),
        ] {
            assert_eq!(problem.to_string().parse::<Problem>(), Ok(problem), "{problem}");
        }
        assert_eq!("b1-h8-s512-d64-f16".parse(), Ok(Problem::SEED));
        let negative = "b1-h8-s512-d64-f16-window-3/0".parse::<Problem>().unwrap_err().to_string();
        let expected =
            "window, field number 6 of the problem, reads LEFT/RIGHT, each a number of keys from 0 on or inf";
        assert!(negative.starts_with(expected), "{negative}");
    }

    #[test]
    fn scale_is_the_inverse_root() {
        for d in 1..=512u32 {
            let problem = Problem::new(1, 1, 1, d, Dtype::F16);
            assert_eq!(problem.softmax_scale(), (1.0 / f64::from(d).sqrt()) as f32, "{d}");
        }
    }

    #[test]
    fn visible_scores_count_what_the_mask_lets_through() {
        for (sq, sk) in [(1, 1), (5, 5), (3, 9), (9, 3), (384, 256), (1, 7), (7, 1)] {
            for mask in [Mask::Full, Mask::Causal(Align::TopLeft), Mask::Causal(Align::BottomRight)] {
                let problem = Problem::new(2, 3, 1, 64, Dtype::F16).with_seqlens(sq, sk).with_mask(mask);
                for (left, right) in
                    [(None, None), (Some(0), None), (Some(2), Some(1)), (None, Some(3)), (Some(400), Some(0))]
                {
                    let problem =
                        Problem { features: Features { window: Window { left, right }, ..Features::NONE }, ..problem };
                    let counted: u64 = (0..sq).map(|row| problem.visible_keys(row).len() as u64).sum();
                    assert_eq!(problem.visible_scores(), counted * 6, "{problem}");
                }
            }
        }
    }
}

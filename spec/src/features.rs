//! What a problem may ask beyond mask, scale and strides.
//!
//! Kernels without any of it are left as they are; those of a problem that asks for some of it have an entry point of
//! their own, in which each feature is a branch at run time.

use core::fmt;
use core::ops::Range;

use crate::{Align, AttentionArgs, FULL_DIAGONAL, Illegal, MAX_SEQLEN, Mask, Problem};

/// Beyond any key of any row.
const BEYOND: i64 = 1 << 33;

/// Keys that a row sees to either side of its diagonal, the diagonal's own key included; without limit where `None`.
///
/// The diagonal of row `i` is key `i` for [`Align::TopLeft`], else key `i + seqlen_kv - seqlen_q`: the one of the causal
/// mask if there is one, and the bottom-right one for [`Mask::Full`]. Window and causal mask both hide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Window {
    /// Keys before the diagonal.
    pub left: Option<u32>,
    /// Keys after it.
    pub right: Option<u32>,
}

/// Strides of a matrix `[batch, heads_q, seqlen_q, seqlen_kv]`, in elements, 0 along what one value serves all of. The keys
/// of a row follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct MatrixStrides {
    /// From one batch entry to the next.
    pub batch: i64,
    /// From one query head to the next.
    pub head: i64,
    /// From one query row to the next.
    pub row: i64,
}

impl MatrixStrides {
    /// The strides of a contiguous `[batch, heads_q, seqlen_q, seqlen_kv]` in which each of the first three may be 1.
    ///
    /// # Errors
    ///
    /// [`Illegal::Broadcast`] if the shape is not the problem's so.
    pub fn contiguous(what: &'static str, shape: [u32; 4], problem: &Problem) -> Result<Self, Illegal> {
        let full = [problem.batch, problem.heads_q, problem.seqlen_q, problem.seqlen_kv];
        let fits = |i: usize| shape[i] == full[i] || (i < 3 && shape[i] == 1);
        if let Some(dimension) = (0..4).find(|i| !fits(*i)) {
            let (extent, full) = (shape[dimension], full[dimension]);
            return Err(Illegal::Broadcast {
                what,
                dimension: ["batch", "heads", "rows", "keys"][dimension],
                extent,
                full,
            });
        }
        let [_, heads, rows, keys] = shape.map(i64::from);
        let along = |i: usize, stride| if shape[i] == 1 { 0 } else { stride };
        Ok(Self { batch: along(0, heads * rows * keys), head: along(1, rows * keys), row: along(2, keys) })
    }
}

/// What is added to the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bias {
    /// Whether its elements are fp32; else they are of the problem's dtype.
    pub wide: bool,
    /// Where they are.
    pub strides: MatrixStrides,
}

/// A K/V cache in pages: K is `[count, size, heads_kv, head_dim_qk]`, V likewise, and a batch entry's key `j` is row
/// `j % size` of the page that its row of the table names at `j / size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pages {
    /// Pages of the cache.
    pub count: u32,
    /// Keys of a page.
    pub size: u32,
    /// Pages of one batch entry at most: columns of the table.
    pub columns: u32,
}

/// What is asked beyond the plain problem. The default is nothing.
///
/// The logit of row `i` and key `j` is `cap(scale q[i] k[j]) - slope |i + diagonal - j| + bias[i, j]`, where
/// `cap(x) = softcap tanh(x / softcap)`, each step only where it is asked for. Logits are held to ±[`LARGEST_LOGIT`], so
/// that rows of nothing but the lowest number are an average of all they see. Keys that causal mask, window or boolean mask
/// hide, or whose bias is -inf, have no weight, whatever K and V hold there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Features {
    /// Which keys near the diagonal are seen.
    pub window: Window,
    /// Bound that scores approach; above 0.
    pub softcap: Option<f32>,
    /// Whether each query head has a slope by which keys lose with their distance from the diagonal (see [`Window`]).
    pub alibi: bool,
    /// Whether each query head has a sink: one more logit in the sum of a row, and so in its LSE, without a value.
    pub sinks: bool,
    /// What is added to the logits.
    pub bias: Option<Bias>,
    /// A boolean matrix of bytes: keys where it is 0 are hidden.
    pub mask: Option<MatrixStrides>,
    /// Rows of all batch entries together, where Q and O are `[1, rows, heads_q, head_dim]` with the entries' rows one
    /// after the other; `seqlen_q` then is the most that one has. LSE is `[1, heads_q, rows]`.
    pub packed_q: Option<u32>,
    /// The same of the keys in K and V, with `seqlen_kv`.
    pub packed_kv: Option<u32>,
    /// Whether each batch entry has a number of keys of its own, of the `seqlen_kv` that there is room for.
    pub used_kv: bool,
    /// Where K and V are in pages.
    pub pages: Option<Pages>,
}

/// Logits are held to this and its negative: multiplied by log2(e) they still are finite in fp32.
pub const LARGEST_LOGIT: f32 = 8.507_059e37;

/// What a kernel with features reads beside Q, K and V.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extra {
    /// Slopes, `[heads_q]` in fp32.
    Slopes,
    /// Sinks, `[heads_q]` in fp32.
    Sinks,
    /// The bias.
    Bias,
    /// The boolean mask.
    Mask,
    /// First row of each batch entry and the end of the last, `[batch + 1]` in `u32`.
    StartsQ,
    /// First key of each batch entry and the end of the last, `[batch + 1]` in `u32`.
    StartsKv,
    /// Keys of each batch entry, `[batch]` in `u32`.
    UsedKv,
    /// The table of pages, `[batch, columns]` in `u32`.
    Pages,
}

impl Extra {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 8] =
        [Self::Slopes, Self::Sinks, Self::Bias, Self::Mask, Self::StartsQ, Self::StartsKv, Self::UsedKv, Self::Pages];

    /// Name in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slopes => "the slopes",
            Self::Sinks => "the sinks",
            Self::Bias => "the bias",
            Self::Mask => "the boolean mask",
            Self::StartsQ => "the first rows of batch entries",
            Self::StartsKv => "the first keys of batch entries",
            Self::UsedKv => "the numbers of keys",
            Self::Pages => "the table of pages",
        }
    }

    /// Whether a problem reads it.
    pub const fn is_of(self, problem: &Problem) -> bool {
        let features = &problem.features;
        match self {
            Self::Slopes => features.alibi,
            Self::Sinks => features.sinks,
            Self::Bias => features.bias.is_some(),
            Self::Mask => features.mask.is_some(),
            Self::StartsQ => features.packed_q.is_some(),
            Self::StartsKv => features.packed_kv.is_some(),
            Self::UsedKv => features.used_kv,
            Self::Pages => features.pages.is_some(),
        }
    }

    /// Bytes of one element, of which its address must be a multiple.
    pub const fn element_bytes(self, problem: &Problem) -> u32 {
        match self {
            Self::Slopes | Self::Sinks | Self::StartsQ | Self::StartsKv | Self::UsedKv | Self::Pages => 4,
            Self::Bias => match problem.features.bias {
                Some(Bias { wide: true, .. }) => 4,
                _ => problem.dtype.bytes(),
            },
            Self::Mask => 1,
        }
    }
}

/// Device addresses of what a kernel with features reads, by [`Extra`]; 0 of what its problem does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct ExtraAddresses(pub [u64; Extra::ALL.len()]);

impl ExtraAddresses {
    /// The address of one.
    pub const fn get(&self, extra: Extra) -> u64 {
        self.0[extra as usize]
    }
}

impl Features {
    /// Nothing.
    pub const NONE: Self = Self {
        window: Window { left: None, right: None },
        softcap: None,
        alibi: false,
        sinks: false,
        bias: None,
        mask: None,
        packed_q: None,
        packed_kv: None,
        used_kv: false,
        pages: None,
    };

    /// Whether batch entries have lengths of their own.
    pub const fn varies(&self) -> bool {
        self.packed_q.is_some() || self.packed_kv.is_some() || self.used_kv
    }

    /// Whether a problem's features are possible at all.
    pub(crate) fn check(problem: &Problem) -> Result<(), Illegal> {
        let Self { softcap, packed_q, packed_kv, used_kv, pages, .. } = problem.features;
        if let Some(softcap) = softcap.filter(|softcap| !(*softcap > 0.0 && softcap.is_finite())) {
            return Err(Illegal::Softcap { bits: softcap.to_bits() });
        }
        for (field, total, seqlen) in
            [("packed_q", packed_q, problem.seqlen_q), ("packed_kv", packed_kv, problem.seqlen_kv)]
        {
            let most = (u64::from(problem.batch) * u64::from(seqlen)).min(MAX_SEQLEN.into());
            if let Some(value) = total.filter(|total| !(1..=most).contains(&u64::from(*total))) {
                return Err(Illegal::Packed { field, value, most });
            }
        }
        for (other, set) in [("used_kv", used_kv), ("pages", pages.is_some())] {
            if packed_kv.is_some() && set {
                return Err(Illegal::Exclusive { field: "packed_kv", other });
            }
        }
        let Some(Pages { count, size, columns }) = pages else { return Ok(()) };
        for (field, value) in [("count of pages", count), ("size of pages", size), ("columns of pages", columns)] {
            if value == 0 || value > MAX_SEQLEN {
                return Err(Illegal::Pages { field, value: value.into(), least: 1 });
            }
        }
        let (value, least) = (u64::from(size) * u64::from(columns), problem.seqlen_kv.into());
        if value < least { Err(Illegal::Pages { field: "size x columns of pages", value, least }) } else { Ok(()) }
    }
}

/// Which keys the rows of one sequence see by causal mask and window: row `i` sees `i + begin .. i + end`, as far as
/// there are such keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    diagonal: i64,
    begin: i64,
    end: i64,
    keys: u32,
}

impl Band {
    /// The band of a sequence of so many rows and keys.
    pub const fn of(problem: &Problem, seqlen_q: u32, seqlen_kv: u32) -> Self {
        let diagonal = diagonal(problem.mask, seqlen_q, seqlen_kv);
        let Window { left, right } = problem.features.window;
        let begin = match left {
            Some(left) => diagonal - left as i64,
            None => -BEYOND,
        };
        let end = match (problem.mask, right) {
            (Mask::Causal(_), _) => diagonal + 1,
            (Mask::Full, Some(right)) => diagonal + right as i64 + 1,
            (Mask::Full, None) => BEYOND,
        };
        Self { diagonal, begin, end, keys: seqlen_kv }
    }

    /// Row `i`'s diagonal, from which window and slopes count, is key `i + diagonal`.
    pub const fn diagonal(&self) -> i64 {
        self.diagonal
    }

    /// The keys that a row sees; an empty range if none.
    pub const fn keys(&self, row: u32) -> Range<u32> {
        let [begin, end] = [self.begin, self.end];
        clamp(row as i64 + begin, self.keys)..clamp(row as i64 + end, self.keys)
    }

    /// Keys that the first `rows` rows see, in all.
    pub const fn scores(&self, rows: u32) -> u64 {
        let rows = rows as i64;
        let seen = self.ramp(rows + self.end) - self.ramp(self.end);
        let skipped = self.ramp(rows + self.begin) - self.ramp(self.begin);
        (seen - skipped) as u64
    }

    /// The sum over `x` below `end` of `x`, held between 0 and the number of keys.
    const fn ramp(&self, end: i64) -> u128 {
        let (end, keys) = (if end > 0 { end as u128 } else { 0 }, self.keys as u128);
        if end <= keys {
            end * end.saturating_sub(1) / 2
        } else {
            keys * keys.saturating_sub(1) / 2 + (end - keys) * keys
        }
    }
}

/// Row `i`'s diagonal is key `i + diagonal`.
pub(crate) const fn diagonal(mask: Mask, seqlen_q: u32, seqlen_kv: u32) -> i64 {
    match mask {
        Mask::Causal(Align::TopLeft) => 0,
        Mask::Full | Mask::Causal(Align::BottomRight) => seqlen_kv as i64 - seqlen_q as i64,
    }
}

const fn clamp(key: i64, keys: u32) -> u32 {
    if key <= 0 {
        0
    } else if key >= keys as i64 {
        keys
    } else {
        key as u32
    }
}

/// As the end of a problem's text form.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window, softcap, alibi, sinks, bias, mask, packed_q, packed_kv, used_kv, pages } = *self;
        if window != Window::default() {
            f.write_str("-window")?;
            for (before, side) in [("", window.left), ("/", window.right)] {
                f.write_str(before)?;
                match side {
                    Some(keys) => write!(f, "{keys}")?,
                    None => f.write_str("inf")?,
                }
            }
        }
        if let Some(softcap) = softcap {
            write!(f, "-softcap0x{:08x}", softcap.to_bits())?;
        }
        for (on, name) in [(alibi, "-alibi"), (sinks, "-sinks")] {
            f.write_str(if on { name } else { "" })?;
        }
        let bias = bias.map(|bias| (if bias.wide { "-fbias" } else { "-bias" }, bias.strides));
        for (name, MatrixStrides { batch, head, row }) in bias.into_iter().chain(mask.map(|mask| ("-mask", mask))) {
            write!(f, "{name}{batch}/{head}/{row}")?;
        }
        for (name, total) in [("q", packed_q), ("kv", packed_kv)] {
            total.map_or(Ok(()), |total| write!(f, "-packed{name}{total}"))?;
        }
        f.write_str(if used_kv { "-usedkv" } else { "" })?;
        pages.map_or(Ok(()), |Pages { count, size, columns }| write!(f, "-pages{count}/{size}/{columns}"))
    }
}

/// The second argument of kernels with [`Features`], passed by value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct FeatureArgs {
    /// What else it reads.
    pub extras: ExtraAddresses,
    /// Strides of the bias.
    pub bias: MatrixStrides,
    /// Strides of the boolean mask.
    pub mask: MatrixStrides,
    /// From one page of K to the next, in elements.
    pub page_k: i64,
    /// From one page of V to the next, in elements.
    pub page_v: i64,
    /// Row `i` sees keys from `i + diagonal - left` on.
    pub left: i32,
    /// Row `i` sees keys up to `i + diagonal + right`.
    pub right: i32,
    /// Whether the diagonal of row `i` is key `i + seqlen_kv - seqlen_q`, else key `i`: 1 or 0.
    pub bottom_right: u32,
    /// Whether the bias is fp32: 1 or 0.
    pub wide_bias: u32,
    /// Factor on the scores.
    pub scale: f32,
    /// Bound that scores approach; 0 for none.
    pub softcap: f32,
    /// Rows of all batch entries together, where they are packed.
    pub packed_q: u32,
    /// Keys of a page.
    pub page_size: u32,
    /// Columns of the table of pages.
    pub page_columns: u32,
    /// Nothing: it fills the place.
    pub rest: u32,
}

impl FeatureArgs {
    /// The argument for a problem; `None` if its kernel takes none.
    pub fn of(problem: &Problem, extras: &ExtraAddresses) -> Option<Self> {
        const NOWHERE: MatrixStrides = MatrixStrides { batch: 0, head: 0, row: 0 };
        let Features { window, softcap, bias, mask, packed_q, pages, .. } = problem.features;
        let side = |keys: Option<u32>| keys.map_or(FULL_DIAGONAL, |keys| keys.min(FULL_DIAGONAL as u32) as i32);
        problem.needs_features().then(|| Self {
            extras: *extras,
            bias: bias.map_or(NOWHERE, |bias| bias.strides),
            mask: mask.unwrap_or(NOWHERE),
            left: side(window.left),
            right: if problem.mask == Mask::Full { side(window.right) } else { 0 },
            bottom_right: u32::from(problem.mask != Mask::Causal(Align::TopLeft)),
            wide_bias: u32::from(bias.is_some_and(|bias| bias.wide)),
            scale: problem.softmax_scale(),
            softcap: softcap.unwrap_or(0.0),
            page_k: problem.strides.k.batch,
            page_v: problem.strides.v.batch,
            packed_q: packed_q.unwrap_or(0),
            page_size: pages.map_or(0, |pages| pages.size),
            page_columns: pages.map_or(0, |pages| pages.columns),
            rest: 0,
        })
    }
}

/// Both arguments of a kernel with features, as the CPU machine passes them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct FeaturedArgs {
    /// The first.
    pub args: AttentionArgs,
    /// The second.
    pub features: FeatureArgs,
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;
    use crate::Dtype;

    #[test]
    fn shapes_are_broadcast_or_refused() {
        let problem = Problem::new(2, 3, 5, 64, Dtype::F16).with_seqlens(5, 7);
        let strides = |shape| MatrixStrides::contiguous("the bias", shape, &problem);
        assert_eq!(strides([2, 3, 5, 7]), Ok(MatrixStrides { batch: 105, head: 35, row: 7 }));
        assert_eq!(strides([2, 1, 1, 7]), Ok(MatrixStrides { batch: 7, head: 0, row: 0 }));
        assert_eq!(strides([1, 1, 5, 7]), Ok(MatrixStrides { batch: 0, head: 0, row: 7 }));
        let refusal = strides([2, 2, 5, 7]).unwrap_err().to_string();
        assert_eq!(refusal, "the bias has 2 heads; 3 or 1 are allowed");
        let refusal = strides([2, 3, 5, 1]).unwrap_err().to_string();
        assert_eq!(refusal, "the bias has 1 keys; 7 are allowed");
    }
}

//! What a problem may ask beyond mask, scale and strides.
//!
//! Kernels without any of it are left as they are; those of a problem that asks for some of it have an entry point of
//! their own, in which each feature is a branch at run time.

use core::fmt;
use core::ops::Range;

use crate::{Align, AttentionArgs, FULL_DIAGONAL, Mask, Problem};

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

/// What is asked beyond the plain problem. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Features {
    /// Which keys near the diagonal are seen.
    pub window: Window,
}

impl Features {
    /// Nothing.
    pub const NONE: Self = Self { window: Window { left: None, right: None } };
}

/// Which keys the rows of one sequence see by causal mask and window: row `i` sees `i + begin .. i + end`, as far as
/// there are such keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
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
        Self { begin, end, keys: seqlen_kv }
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
        let Self { window } = *self;
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
        Ok(())
    }
}

/// The second argument of kernels with [`Features`], passed by value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct FeatureArgs {
    /// Row `i` sees keys from `i + diagonal - left` on.
    pub left: i32,
    /// Row `i` sees keys up to `i + diagonal + right`.
    pub right: i32,
    /// Whether the diagonal of row `i` is key `i + seqlen_kv - seqlen_q`, else key `i`: 1 or 0.
    pub bottom_right: u32,
    /// Factor on the scores.
    pub scale: f32,
}

impl FeatureArgs {
    /// The argument for a problem; `None` if its kernel takes none.
    pub fn of(problem: &Problem) -> Option<Self> {
        let Features { window } = problem.features;
        let side = |keys: Option<u32>| keys.map_or(FULL_DIAGONAL, |keys| keys.min(FULL_DIAGONAL as u32) as i32);
        problem.needs_features().then(|| Self {
            left: side(window.left),
            right: if problem.mask == Mask::Full { side(window.right) } else { 0 },
            bottom_right: u32::from(problem.mask != Mask::Causal(Align::TopLeft)),
            scale: problem.softmax_scale(),
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

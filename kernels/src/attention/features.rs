//! What a problem may ask beyond the plain kernels.

use spec::{AttentionArgs, FULL_DIAGONAL, FeatureArgs};

use super::{Mask, Work};

/// Factor from the logits that [`Features::finish`] makes to exponents of two.
pub const LOGITS_LOG2: f32 = core::f32::consts::LOG2_E;

/// The features of an entry point, as they hold for the work of a block.
///
/// Families branch on [`Features::ON`] instead of calling what would do nothing: the code of plain kernels, and so the
/// identity of what was measured with them, does not depend on what others can do.
pub trait Features: Copy {
    /// Whether there are any.
    const ON: bool;

    /// The kernel's second argument.
    type Args: Copy;

    /// The features for a block's work. From here on its first key is the first that some row of it sees.
    fn of(args: &AttentionArgs, more: &Self::Args, work: &mut Work) -> Self;

    /// Turns raw scores into logits.
    fn finish(&self, scores: &mut impl Scores, work: &Work);
}

/// A part of a block's matrix of scores, spread over the threads that work on it.
pub trait Scores {
    /// Its first row and the one after its last.
    fn rows(&self) -> [u32; 2];

    /// Its first key and the one after its last.
    fn keys(&self) -> [u32; 2];

    /// Maps each of this thread's scores; `f` gets it with its row and key.
    fn map(&mut self, f: impl Fn(f32, u32, u32) -> f32);
}

/// None.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Features for Plain {
    const ON: bool = false;

    type Args = ();

    #[inline(always)]
    fn of(_: &AttentionArgs, (): &(), _: &mut Work) -> Self {
        Self
    }

    #[inline(always)]
    fn finish(&self, _: &mut impl Scores, _: &Work) {}
}

/// Those of [`FeatureArgs`].
#[derive(Clone, Copy, Debug)]
pub struct Featured {
    args: FeatureArgs,
    /// Row `i` sees keys from `i + begin` on.
    begin: i32,
}

impl Featured {
    /// First key that a row sees.
    #[inline(always)]
    fn first(&self, row: u32) -> u32 {
        (row as i32 + self.begin).max(0) as u32
    }
}

impl Features for Featured {
    const ON: bool = true;

    type Args = FeatureArgs;

    #[inline(always)]
    fn of(args: &AttentionArgs, more: &FeatureArgs, work: &mut Work) -> Self {
        let keys = args.seqlen_kv;
        let diagonal = if more.bottom_right == 1 { keys as i32 - args.seqlen_q as i32 } else { 0 };
        // Held to the full diagonal, sums with a row's number stay in range.
        let end = (diagonal + more.right).min(FULL_DIAGONAL);
        let begin = (diagonal - more.left).max(-FULL_DIAGONAL);
        // Keys that the first row is past are past for all.
        let base = ((work.first_row as i32 + begin).max(0) as u32).min(keys);
        work.k = work.k.from(base);
        work.v = work.v.from(base);
        work.mask = Mask { keys: keys - base, diagonal: end - base as i32 };
        Self { args: *more, begin: begin - base as i32 }
    }

    #[inline(always)]
    fn finish(&self, scores: &mut impl Scores, work: &Work) {
        scores.map(|x, _, _| x * self.args.scale);
        let ([first_row, end_row], [first_key, end_key]) = (scores.rows(), scores.keys());
        if work.mask.hides_any(first_row, end_key) || self.first(end_row - 1) > first_key {
            scores.map(
                |x, row, key| {
                    if key < self.first(row) || key >= work.mask.visible(row) { f32::NEG_INFINITY } else { x }
                },
            );
        }
    }
}

//! What a problem may ask beyond the plain kernels.

use spec::{AttentionArgs, Extra, FULL_DIAGONAL, FeatureArgs, LARGEST_LOGIT, MatrixStrides};

use super::{Destination, Mask, RowState, Rows, Source, Work};
use crate::gpu::{Element, Global, divide, fma, tanh};

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

    /// The features for the block of this number, on elements of so many bytes.
    fn of(block: u32, args: &AttentionArgs, more: &Self::Args, tile_q: u32, element_bytes: u32) -> Self;

    /// What the block works on. Its first key is the first that some row of it sees, and it may have no rows at all.
    fn work(&self, args: &AttentionArgs, tile_q: u32, element_bytes: u32) -> Work;

    /// Where the output of the work goes.
    fn destination(&self, work: &Work, args: &AttentionArgs, element_bytes: u32) -> Destination;

    /// Where the rows of K, or of V, are, whose elements have so many bytes.
    fn source(&self, work: &Work, which: Operand, element_bytes: u32) -> impl Source;

    /// What is known of a row before its first key. Of all the threads that hold a row, one `leads` it.
    fn start(&self, leads: bool) -> RowState;

    /// Turns raw scores into logits.
    fn finish<E: Element>(&self, scores: &mut impl Scores, work: &Work);

    /// Whether a row does not see a key.
    fn hides<E: Element>(&self, work: &Work, row: u32, key: u32) -> bool;
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

/// One of the two tensors that pages can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// K.
    K,
    /// V.
    V,
}

/// None.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Features for Plain {
    const ON: bool = false;

    type Args = ();

    #[inline(always)]
    fn of(_: u32, _: &AttentionArgs, (): &(), _: u32, _: u32) -> Self {
        Self
    }

    #[inline(always)]
    fn work(&self, args: &AttentionArgs, tile_q: u32, element_bytes: u32) -> Work {
        Work::of_this_block(args, tile_q, element_bytes)
    }

    #[inline(always)]
    fn destination(&self, work: &Work, args: &AttentionArgs, element_bytes: u32) -> Destination {
        Destination::of(work.coordinates(), work.rows, args, element_bytes)
    }

    #[inline(always)]
    fn source(&self, work: &Work, which: Operand, _: u32) -> impl Source {
        if which == Operand::K { work.k } else { work.v }
    }

    #[inline(always)]
    fn start(&self, _: bool) -> RowState {
        RowState::EMPTY
    }

    #[inline(always)]
    fn finish<E: Element>(&self, _: &mut impl Scores, _: &Work) {}

    #[inline(always)]
    fn hides<E: Element>(&self, work: &Work, row: u32, key: u32) -> bool {
        key >= work.mask.visible(row)
    }
}

/// Those of [`FeatureArgs`]. Keys are counted from the block's first.
#[derive(Clone, Copy, Debug)]
pub struct Featured {
    args: FeatureArgs,
    work: Work,
    to: Destination,
    /// The diagonal of row `i` is key `i + diagonal`.
    diagonal: i32,
    /// Row `i` sees keys from `i + begin` on.
    begin: i32,
    /// By how much a key loses for each step from the diagonal.
    slope: f32,
    /// Logit of the head's sink.
    sink: f32,
    bias: Matrix,
    mask: Matrix,
    /// The batch entry's row of the table of pages; null if there are none.
    table: Global,
    /// The key that is the block's first.
    base: u32,
}

/// Rows of K or V, of which a page holds so many.
struct PagedRows {
    rows: Rows,
    table: Global,
    base: u32,
    size: u32,
    /// Bytes from one page to the next.
    page: i64,
}

impl Source for PagedRows {
    #[inline(always)]
    fn row(&self, row: u32) -> Global {
        if self.table.is_null() {
            return self.rows.row(row);
        }
        let (column, within) = divide(self.base + row, self.size);
        let page = self.table.at(i64::from(column) * 4).load_u32();
        self.rows.at(i64::from(page) * self.page).row(within)
    }
}

/// The rows of a matrix of a head; nowhere if there is no such matrix.
#[derive(Clone, Copy, Debug)]
struct Matrix {
    start: Global,
    row: i64,
    element: i64,
}

impl Matrix {
    #[inline(always)]
    fn of(address: u64, strides: &MatrixStrides, element: i64, work: &Work, first_key: u32) -> Self {
        let start = Global::new(address);
        let offset = i64::from(work.batch) * strides.batch + i64::from(work.head) * strides.head + i64::from(first_key);
        Self { start: if start.is_null() { start } else { start.at(offset * element) }, row: strides.row, element }
    }

    #[inline(always)]
    fn exists(&self) -> bool {
        !self.start.is_null()
    }

    #[inline(always)]
    fn at(&self, row: u32, key: u32) -> Global {
        self.start.at((i64::from(row) * self.row + i64::from(key)) * self.element)
    }
}

impl Featured {
    /// Whether causal mask and window let a row see a key.
    #[inline(always)]
    fn sees(&self, work: &Work, row: u32, key: u32) -> bool {
        key >= self.first(row) && key < work.mask.visible(row)
    }

    /// First key that a row sees.
    #[inline(always)]
    fn first(&self, row: u32) -> u32 {
        (row as i32 + self.begin).max(0) as u32
    }

    /// The row whose elements of a matrix stand for a row's: rows of the tile that do not exist must not be looked up.
    #[inline(always)]
    fn existing(work: &Work, row: u32) -> u32 {
        row.min(work.first_row + work.rows - 1)
    }

    /// Whether the boolean mask, which exists, hides a key that [`Self::sees`] lets the row see.
    #[inline(always)]
    fn masks(&self, work: &Work, row: u32, key: u32) -> bool {
        self.mask.at(Self::existing(work, row), key).load_u8() == 0
    }

    /// Adds what `load` finds in the matrix for the keys that the rows see.
    #[inline(always)]
    fn add_bias(&self, scores: &mut impl Scores, work: &Work, load: impl Fn(Global) -> f32) {
        scores.map(|x, row, key| {
            if !self.sees(work, row, key) {
                return x;
            }
            let bias = load(self.bias.at(Self::existing(work, row), key));
            if bias == f32::NEG_INFINITY { bias } else { (x + bias).clamp(-LARGEST_LOGIT, LARGEST_LOGIT) }
        });
    }
}

impl Features for Featured {
    const ON: bool = true;

    type Args = FeatureArgs;

    #[inline(always)]
    fn of(block: u32, args: &AttentionArgs, more: &FeatureArgs, tile_q: u32, element_bytes: u32) -> Self {
        let mut work = Work::of(block, args, tile_q, element_bytes);
        let entry = work.batch;
        let lookup = |extra, index: u32| Global::new(more.extras.get(extra)).at(i64::from(index) * 4).load_u32();
        let has = |extra| more.extras.get(extra) != 0;
        let span = |starts, count| {
            if has(starts) {
                let start = lookup(starts, entry);
                (start, lookup(starts, entry + 1) - start)
            } else {
                (0, count)
            }
        };
        let (first_row, rows) = span(Extra::StartsQ, args.seqlen_q);
        let (first_key, keys) = span(Extra::StartsKv, args.seqlen_kv);
        let keys = if has(Extra::UsedKv) { lookup(Extra::UsedKv, entry).min(args.seqlen_kv) } else { keys };

        let diagonal = if more.bottom_right == 1 { keys as i32 - rows as i32 } else { 0 };
        // Held to the full diagonal, sums with a row's number stay in range.
        let end = (diagonal + more.right).min(FULL_DIAGONAL);
        let begin = (diagonal - more.left).max(-FULL_DIAGONAL);
        // Keys that the first row is past are past for all.
        let base = ((work.first_row as i32 + begin).max(0) as u32).min(keys);
        work.mask = Mask { keys: keys - base, diagonal: end - base as i32 };

        work.rows = work.rows.min(rows.saturating_sub(work.first_row));
        let mut to = Destination::of(work.coordinates(), work.rows, args, element_bytes);
        if has(Extra::StartsQ) {
            (work.q, to.o) = (work.q.from(first_row), to.o.from(first_row));
            if !to.lse.is_null() {
                let row = i64::from(work.head) * i64::from(more.packed_q) + i64::from(first_row + work.first_row);
                to.lse = Global::new(args.lse).at(row * 4);
            }
        }
        let table = Global::new(more.extras.get(Extra::Pages));
        let table = if table.is_null() { table } else { table.at(i64::from(entry) * i64::from(more.page_columns) * 4) };
        if table.is_null() {
            (work.k, work.v) = (work.k.from(first_key + base), work.v.from(first_key + base));
        }

        let extra = |extra| Global::new(more.extras.get(extra));
        let of_head = |values: Global, otherwise| {
            if values.is_null() { otherwise } else { values.at(i64::from(work.head) * 4).load_f32() }
        };
        let matrix = |extra, strides, element| Matrix::of(more.extras.get(extra), strides, element, &work, base);
        Self {
            args: *more,
            work,
            to,
            diagonal: diagonal - base as i32,
            begin: begin - base as i32,
            slope: of_head(extra(Extra::Slopes), 0.0),
            sink: of_head(extra(Extra::Sinks), f32::NEG_INFINITY),
            bias: matrix(Extra::Bias, &more.bias, if more.wide_bias == 1 { 4 } else { i64::from(element_bytes) }),
            mask: matrix(Extra::Mask, &more.mask, 1),
            table,
            base,
        }
    }

    #[inline(always)]
    fn work(&self, _: &AttentionArgs, _: u32, _: u32) -> Work {
        self.work
    }

    #[inline(always)]
    fn destination(&self, _: &Work, _: &AttentionArgs, _: u32) -> Destination {
        self.to
    }

    #[inline(always)]
    fn source(&self, work: &Work, which: Operand, element_bytes: u32) -> impl Source {
        let (rows, page) = match which {
            Operand::K => (work.k, self.args.page_k),
            Operand::V => (work.v, self.args.page_v),
        };
        PagedRows {
            rows,
            table: self.table,
            base: self.base,
            size: self.args.page_size,
            page: page * i64::from(element_bytes),
        }
    }

    /// With the sink as the only logit so far.
    #[inline(always)]
    fn start(&self, leads: bool) -> RowState {
        RowState { max: self.sink, sum: if leads && self.sink != f32::NEG_INFINITY { 1.0 } else { 0.0 } }
    }

    #[inline(always)]
    fn finish<E: Element>(&self, scores: &mut impl Scores, work: &Work) {
        let Self { args, diagonal, slope, .. } = *self;
        scores.map(|x, _, _| x * args.scale);
        if args.softcap != 0.0 {
            let inverse = 1.0 / args.softcap;
            scores.map(|x, _, _| args.softcap * tanh(x * inverse));
        }
        if slope != 0.0 {
            scores.map(|x, row, key| fma(-slope, (row as i32 + diagonal - key as i32).abs() as f32, x));
        }
        if self.bias.exists() {
            if args.wide_bias == 1 {
                self.add_bias(scores, work, Global::load_f32);
            } else {
                self.add_bias(scores, work, load_element::<E>);
            }
        }
        if self.mask.exists() {
            scores.map(|x, row, key| {
                let hidden = self.sees(work, row, key) && self.masks(work, row, key);
                if hidden { f32::NEG_INFINITY } else { x }
            });
        }
        let ([first_row, end_row], [first_key, end_key]) = (scores.rows(), scores.keys());
        if work.mask.hides_any(first_row, end_key) || self.first(end_row - 1) > first_key {
            scores.map(|x, row, key| if self.sees(work, row, key) { x } else { f32::NEG_INFINITY });
        }
    }

    #[inline(always)]
    fn hides<E: Element>(&self, work: &Work, row: u32, key: u32) -> bool {
        if !self.sees(work, row, key) {
            return true;
        }
        if self.mask.exists() && self.masks(work, row, key) {
            return true;
        }
        if !self.bias.exists() {
            return false;
        }
        let at = self.bias.at(Self::existing(work, row), key);
        let bias = if self.args.wide_bias == 1 { at.load_f32() } else { load_element::<E>(at) };
        bias == f32::NEG_INFINITY
    }
}

/// Loads one element of the problem's type.
#[inline(always)]
fn load_element<E: Element>(at: Global) -> f32 {
    E::load(at, 0)
}

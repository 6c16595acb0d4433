//! What problems with features read beside Q, K and V.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use spec::{Band, Dtype, Extra, MatrixStrides, Pages, Problem};

use super::{CaseError, Guarded, number};

/// What memory holds where nothing of it lies: NaN as a floating-point number, beyond all as a count.
const STRAY: u8 = 0xff;

/// One array in guarded memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its bytes, and some before them: elements may begin anywhere.
    pub memory: Guarded<u8>,
    /// Bytes before its first element.
    pub lead: usize,
}

/// The arrays of a problem, by [`Extra`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras([Option<Array>; Extra::ALL.len()]);

impl Extras {
    /// One of them, if the problem has it.
    pub fn get(&self, extra: Extra) -> Option<&Array> {
        self.0[extra as usize].as_ref()
    }

    /// All that the problem has.
    pub fn all(&self) -> impl Iterator<Item = (Extra, &Array)> {
        Extra::ALL.into_iter().filter_map(|extra| Some((extra, self.get(extra)?)))
    }

    /// The same arrays and this one, of these bytes.
    pub fn with(mut self, extra: Extra, bytes: &[u8]) -> Result<Self, CaseError> {
        let mut array = Array::stray(0, bytes.len())?;
        array.memory.inner_mut().copy_from_slice(bytes);
        self.0[extra as usize] = Some(array);
        Ok(self)
    }

    /// The logit of a head's sink.
    pub fn sink(&self, head: u32) -> Option<f32> {
        Some(self.get(Extra::Sinks)?.f32(head.into()))
    }

    /// A head's slope.
    pub fn slope(&self, head: u32) -> Option<f32> {
        Some(self.get(Extra::Slopes)?.f32(head.into()))
    }

    /// The rows and keys of a batch entry.
    pub fn sequence(&self, problem: &Problem, entry: u32) -> Sequence {
        let span = |starts, count| match self.get(starts) {
            Some(starts) => (starts.u32(entry.into()), starts.u32(i64::from(entry) + 1) - starts.u32(entry.into())),
            None => (0, count),
        };
        let (first_row, rows) = span(Extra::StartsQ, problem.seqlen_q);
        let (first_key, keys) = span(Extra::StartsKv, problem.seqlen_kv);
        let keys = self.get(Extra::UsedKv).map_or(keys, |used| used.u32(entry.into()));
        Sequence { entry, first_row, rows, first_key, keys }
    }

    /// The batch entry of a row of Q and O, and the row's position in it.
    pub fn position(&self, problem: &Problem, batch: u32, row: u32) -> (Sequence, u32) {
        if problem.features.packed_q.is_none() {
            return (self.sequence(problem, batch), row);
        }
        let sequences = (0..problem.batch).map(|entry| self.sequence(problem, entry));
        let holds = |sequence: &Sequence| (sequence.first_row..sequence.first_row + sequence.rows).contains(&row);
        let sequence = sequences.into_iter().find(holds).expect("every packed row is of an entry");
        (sequence, row - sequence.first_row)
    }

    /// Where a key of a sequence is in K and V: batch entry or page, and position.
    pub fn key(&self, problem: &Problem, sequence: &Sequence, key: u32) -> (u32, u32) {
        match (problem.features.pages, self.get(Extra::Pages)) {
            (Some(Pages { size, columns, .. }), Some(table)) => {
                let index = i64::from(sequence.entry) * i64::from(columns) + i64::from(key / size);
                (table.u32(index), key % size)
            }
            _ if problem.features.packed_kv.is_some() => (0, sequence.first_key + key),
            _ => (sequence.entry, key),
        }
    }

    /// What is added to a logit.
    pub fn bias(&self, problem: &Problem, place: [u32; 4]) -> Option<f32> {
        let (array, bias) = (self.get(Extra::Bias)?, problem.features.bias?);
        let index = index(&bias.strides, place);
        Some(if bias.wide {
            array.f32(index)
        } else {
            number::decode(problem.dtype, array.element(problem.dtype, index))
        })
    }

    /// Whether the boolean mask lets a row see a key.
    pub fn lets_see(&self, problem: &Problem, place: [u32; 4]) -> bool {
        let byte = |(array, strides): (&Array, _)| array.bytes::<1>(index(&strides, place)) != [0];
        self.get(Extra::Mask).zip(problem.features.mask).is_none_or(byte)
    }

    /// The keys that a row of a sequence sees, by its position there.
    pub fn seen_by(&self, problem: &Problem, sequence: &Sequence, head: u32, row: u32) -> impl Iterator<Item = u32> {
        let entry = sequence.entry;
        Band::of(problem, sequence.rows, sequence.keys).keys(row).filter(move |key| {
            let place = [entry, head, row, *key];
            self.lets_see(problem, place) && self.bias(problem, place) != Some(f32::NEG_INFINITY)
        })
    }

    /// Where the keys are that some row sees: batch entry or page, position and K/V head, in order.
    pub(super) fn seen(&self, problem: &Problem) -> Vec<[u32; 3]> {
        let mut seen = BTreeSet::new();
        for sequence in (0..problem.batch).map(|entry| self.sequence(problem, entry)) {
            for (head, row) in (0..problem.heads_q).flat_map(|head| (0..sequence.rows).map(move |row| (head, row))) {
                for key in self.seen_by(problem, &sequence, head, row) {
                    let (batch, position) = self.key(problem, &sequence, key);
                    seen.insert([batch, position, head / problem.heads_per_kv()]);
                }
            }
        }
        seen.into_iter().collect()
    }

    /// Where the keys of batch entries are, like [`Extras::seen`], whether any row sees them or not.
    pub(super) fn used(&self, problem: &Problem) -> Vec<[u32; 3]> {
        let mut used = vec![];
        for sequence in (0..problem.batch).map(|entry| self.sequence(problem, entry)) {
            for key in 0..sequence.keys {
                let (batch, position) = self.key(problem, &sequence, key);
                used.extend((0..problem.heads_kv).map(|head| [batch, position, head]));
            }
        }
        used
    }

    /// Replaces the bytes of one.
    #[cfg(test)]
    pub(super) fn set_bytes(&mut self, extra: Extra, bytes: &[u8]) {
        let array = self.0[extra as usize].as_mut().unwrap();
        array.memory.inner_mut()[array.lead..].copy_from_slice(bytes);
    }

    /// The arrays of a problem, the same ones for each seed.
    ///
    /// Rows of bias and mask may hide some keys or all, and those of the bias may be the lowest number throughout. Sinks
    /// may be far above all logits, or -inf, slopes 0.
    pub(super) fn generate(problem: &Problem, seed: u64) -> Result<Self, CaseError> {
        let rng = |extra: Extra| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(3 << 62 | extra as u64);
            rng
        };
        let mut extras = Self::default();
        for extra in Extra::ALL.into_iter().filter(|extra| extra.is_of(problem)) {
            let rng = &mut rng(extra);
            extras.0[extra as usize] = Some(match extra {
                Extra::Slopes => Array::of_heads(problem, |_| if rng.random_ratio(1, 6) { 0.0 } else { rng.random() })?,
                Extra::Sinks => Array::of_heads(problem, |_| match rng.random_range(0..6) {
                    0 => f32::NEG_INFINITY,
                    1 => 100.0,
                    _ => 3.0 * rng.sample::<f32, _>(StandardNormal),
                })?,
                Extra::Bias => bias(problem, rng)?,
                Extra::StartsQ => starts(problem, problem.features.packed_q, problem.seqlen_q, rng)?,
                Extra::StartsKv => starts(problem, problem.features.packed_kv, problem.seqlen_kv, rng)?,
                Extra::UsedKv => Array::of_u32((0..problem.batch).map(|_| length(problem.seqlen_kv, rng)))?,
                Extra::Pages => table(problem, extras.get(Extra::UsedKv), rng)?,
                Extra::Mask => mask(problem, rng)?,
            });
        }
        Ok(extras)
    }
}

impl Array {
    /// The bytes of its elements, the gaps between them included.
    pub fn elements(&self) -> &[u8] {
        &self.memory.inner()[self.lead..]
    }

    fn stray(lead: usize, bytes: usize) -> Result<Self, CaseError> {
        let memory = Guarded::poisoned(lead + bytes, STRAY);
        let memory = memory.ok_or(CaseError::Memory { tensor: 'X', elements: bytes as u128 })?;
        Ok(Self { memory, lead })
    }

    fn of_heads(problem: &Problem, value: impl FnMut(u32) -> f32) -> Result<Self, CaseError> {
        let mut array = Self::stray(0, problem.heads_q as usize * 4)?;
        (0..problem.heads_q)
            .map(value)
            .enumerate()
            .for_each(|(head, value)| array.set(head as i64, value.to_ne_bytes()));
        Ok(array)
    }

    fn of_u32(values: impl ExactSizeIterator<Item = u32>) -> Result<Self, CaseError> {
        let mut array = Self::stray(0, values.len() * 4)?;
        values.enumerate().for_each(|(i, value)| array.set(i as i64, value.to_ne_bytes()));
        Ok(array)
    }

    fn at<const N: usize>(&self, index: i64) -> usize {
        self.lead + index as usize * N
    }

    fn bytes<const N: usize>(&self, index: i64) -> [u8; N] {
        let at = self.at::<N>(index);
        self.memory.inner()[at..at + N].try_into().expect("as many bytes")
    }

    fn set<const N: usize>(&mut self, index: i64, bytes: [u8; N]) {
        let at = self.at::<N>(index);
        self.memory.inner_mut()[at..at + N].copy_from_slice(&bytes);
    }

    fn f32(&self, index: i64) -> f32 {
        f32::from_ne_bytes(self.bytes(index))
    }

    fn u32(&self, index: i64) -> u32 {
        u32::from_ne_bytes(self.bytes(index))
    }

    /// The bits of an element of this type.
    fn element(&self, dtype: Dtype, index: i64) -> u32 {
        match dtype.bytes() {
            1 => u8::from_ne_bytes(self.bytes(index)).into(),
            2 => u16::from_ne_bytes(self.bytes(index)).into(),
            _ => self.u32(index),
        }
    }

    fn set_element(&mut self, dtype: Dtype, index: i64, value: f32) {
        let bits = number::encode(dtype, value);
        match dtype.bytes() {
            1 => self.set(index, (bits as u8).to_ne_bytes()),
            2 => self.set(index, (bits as u16).to_ne_bytes()),
            _ => self.set(index, bits.to_ne_bytes()),
        }
    }
}

/// The rows and keys of a batch entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The batch entry.
    pub entry: u32,
    /// Its first row among the packed rows; 0 where they are not packed.
    pub first_row: u32,
    /// How many it has.
    pub rows: u32,
    /// Its first key among the packed keys; 0 where they are not packed.
    pub first_key: u32,
    /// How many it has.
    pub keys: u32,
}

/// A length of at most `most`, often none or all.
fn length(most: u32, rng: &mut ChaCha8Rng) -> u32 {
    match rng.random_range(0..6) {
        0 => 0,
        1 => most,
        _ => rng.random_range(0..=most),
    }
}

/// Where batch entries of at most `most` rows each start, that have `total` together.
fn starts(problem: &Problem, total: Option<u32>, most: u32, rng: &mut ChaCha8Rng) -> Result<Array, CaseError> {
    let (mut left, entries) = (total.unwrap_or(0), problem.batch);
    let mut starts = vec![0];
    let mut end = 0;
    for entry in 0..entries {
        let later = u64::from(entries - entry - 1) * u64::from(most);
        let least = u64::from(left).saturating_sub(later) as u32;
        let length = length(most, rng).clamp(least, left.min(most).max(least));
        (left, end) = (left - length, end + length);
        starts.push(end);
    }
    Array::of_u32(starts.into_iter())
}

/// A table that names pages in any order, some of them for several entries. Where no key is used it names no page.
fn table(problem: &Problem, used: Option<&Array>, rng: &mut ChaCha8Rng) -> Result<Array, CaseError> {
    let Some(Pages { count, size, columns }) = problem.features.pages else { return Array::stray(0, 0) };
    let names = (0..problem.batch).flat_map(|entry| {
        let keys = used.map_or(problem.seqlen_kv, |used| used.u32(entry.into()));
        (0..columns).map(move |column| column * size < keys)
    });
    let names: Vec<_> = names.map(|used| if used { rng.random_range(0..count) } else { u32::MAX }).collect();
    Array::of_u32(names.into_iter())
}

/// Where an element of a matrix is, by batch entry, head, row and key.
fn index(strides: &MatrixStrides, [batch, head, row, key]: [u32; 4]) -> i64 {
    let MatrixStrides { batch: b, head: h, row: r } = strides;
    i64::from(batch) * b + i64::from(head) * h + i64::from(row) * r + i64::from(key)
}

/// The rows of a matrix, each once, as batch entry, head and row; then the elements from its first to its last.
fn rows(problem: &Problem, strides: &MatrixStrides) -> (Vec<[u32; 3]>, usize) {
    let all = [problem.batch, problem.heads_q, problem.seqlen_q];
    let steps = [strides.batch, strides.head, strides.row];
    let [batch, heads, rows] = [0, 1, 2].map(|i| if steps[i] == 0 { 1 } else { all[i] });
    let each = (0..batch).flat_map(|b| (0..heads).flat_map(move |h| (0..rows).map(move |r| [b, h, r])));
    let last = index(strides, [batch - 1, heads - 1, rows - 1, problem.seqlen_kv - 1]);
    (each.collect(), last as usize + 1)
}

fn bias(problem: &Problem, rng: &mut ChaCha8Rng) -> Result<Array, CaseError> {
    let Some(bias) = problem.features.bias else { return Array::stray(0, 0) };
    let (rows, elements) = rows(problem, &bias.strides);
    let dtype = if bias.wide { Dtype::F32 } else { problem.dtype };
    let size = dtype.bytes() as usize;
    let mut array = Array::stray(rng.random_range(0..4) * size, elements * size)?;
    let lowest = number::lowest(dtype);
    for &[b, h, r] in &rows {
        // A single row hides or flattens little, or nothing would be left.
        let kind = rng.random_range(if rows.len() == 1 { 2..8 } else { 0..8 });
        for key in 0..problem.seqlen_kv {
            let value = match kind {
                0 => f32::NEG_INFINITY,
                1 => lowest,
                2 | 3 if rng.random_ratio(1, 4) => f32::NEG_INFINITY,
                _ => 2.0 * rng.sample::<f32, _>(StandardNormal),
            };
            array.set_element(dtype, index(&bias.strides, [b, h, r, key]), value);
        }
    }
    Ok(array)
}

fn mask(problem: &Problem, rng: &mut ChaCha8Rng) -> Result<Array, CaseError> {
    let Some(strides) = problem.features.mask else { return Array::stray(0, 0) };
    let (rows, elements) = rows(problem, &strides);
    let mut array = Array::stray(rng.random_range(0..4), elements)?;
    for &[b, h, r] in &rows {
        let kind = rng.random_range(if rows.len() == 1 { 1..5 } else { 0..5 });
        // Padding: what comes after is hidden from all.
        let used = rng.random_range(0..=problem.seqlen_kv);
        for key in 0..problem.seqlen_kv {
            let seen: u8 = match kind {
                0 => 0,
                1 | 2 => u8::from(key < used),
                _ => rng.random_range(0..3),
            };
            array.set(index(&strides, [b, h, r, key]), [seen]);
        }
    }
    Ok(array)
}

//! What must hold between runs on related inputs, on any executor. Wrong in the same way on both sides of a relation is
//! still possible: these checks come on top of the oracle.
//!
//! The problem given to a check is full attention; each makes inputs of its own.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use spec::{Align, Dtype, Mask, Problem};

use super::{Outputs, Reference, Row, judge};
use crate::cases::{Case, Distribution, Tensor, Tensors, number};
use crate::device::Failure;

/// Something that computes attention.
pub trait Executor {
    /// O and LSE of a problem, all rows of them, in outputs that were poisoned and guarded.
    fn run(&mut self, problem: &Problem, tensors: &Tensors) -> Result<Outputs, Failure>;
}

/// What holds between runs of one executor on related inputs of a problem.
pub type Relation = fn(&mut dyn Executor, &Problem) -> Result<(), Failure>;

/// All relations.
pub const RELATIONS: [(&str, Relation); 9] = [
    ("permuted-keys", permuted_keys),
    ("constant-values", constant_values),
    ("shifted-logits", shifted_logits),
    ("repeated-heads", repeated_heads),
    ("other-batch-entries", other_batch_entries),
    ("split-and-merge", split_and_merge),
    ("after-nan", after_nan),
    ("nan-in-one-head", nan_in_one_head),
    ("nan-in-a-hidden-key", nan_in_a_hidden_key),
];

fn wrong(case: &str, reason: String) -> Failure {
    Failure::Wrong { case: format!("metamorphic/{case}"), reason }
}

fn case(name: &str, problem: &Problem, distribution: Distribution) -> Case {
    let problem = problem.with_mask(Mask::Full);
    Case::new(format!("metamorphic/{name}"), problem, distribution, 90)
}

fn reference(problem: &Problem, tensors: &Tensors) -> Reference {
    Reference::of(problem, tensors, &Row::all(problem))
}

/// The order of the keys does not matter: the results of keys in another order are within the budget of the first order.
fn permuted_keys(executor: &mut dyn Executor, problem: &Problem) -> Result<(), Failure> {
    let case = case("permuted-keys", problem, Distribution::Normal);
    let tensors = case.inputs.generate(&case.problem)?;
    let mut order: Vec<_> = (0..problem.seqlen_kv).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(case.inputs.seed));
    let mut permuted = tensors.clone();
    map_rows(&mut permuted.k, &tensors.k, |b, s, h| (b, order[s as usize], h));
    map_rows(&mut permuted.v, &tensors.v, |b, s, h| (b, order[s as usize], h));
    judge(&case, &reference(&case.problem, &tensors), &executor.run(&case.problem, &permuted)?)?;
    Ok(())
}

/// An average of ones is one, within one unit in the last place; in fp32, what the two sums of so many weights may differ by,
/// and in e4m3, what each weight may.
fn constant_values(executor: &mut dyn Executor, problem: &Problem) -> Result<(), Failure> {
    let case = case("constant-values", problem, Distribution::ConstantV);
    let outputs = executor.run(&case.problem, &case.inputs.generate(&case.problem)?)?;
    let ulp = number::ulp(problem.dtype, 1.0) as f32;
    let ulp_of_output = number::ulp(problem.dtype.output(), 1.0) as f32;
    let allowed = match problem.dtype {
        Dtype::F16 | Dtype::Bf16 => ulp,
        Dtype::F32 => ulp.max(problem.seqlen_kv as f32 * f32::EPSILON / 2.0),
        Dtype::E4m3 => ulp / 2.0 + ulp_of_output,
    };
    for (b, s, h) in outputs.o.rows() {
        if let Some(value) = outputs.o.values(b, s, h).find(|value| value.is_nan() || (value - 1.0).abs() > allowed) {
            let reason = format!("batch {b}, head {h}, row {s} is {value}, an average of ones");
            return Err(wrong("constant-values", reason));
        }
    }
    Ok(())
}

/// The same added to all logits of a row changes its LSE by as much and its output not at all.
fn shifted_logits(executor: &mut dyn Executor, problem: &Problem) -> Result<(), Failure> {
    /// What the last column of K is set to: times a query's last column and the scale, this is added to the logits.
    const SHIFT: f32 = 8.0;
    let case = case("shifted-logits", problem, Distribution::Normal);
    let problem = &case.problem;
    let mut tensors = case.inputs.generate(problem)?;
    let last_column = |tensors: &mut Tensors, value: f32| {
        for (b, s, h) in tensors.k.rows() {
            let mut row: Vec<_> = tensors.k.values(b, s, h).collect();
            row[problem.head_dim_qk as usize - 1] = value;
            tensors.k.set_row(b, s, h, &row);
        }
    };
    last_column(&mut tensors, 0.0);
    let mut expected = reference(problem, &tensors);
    last_column(&mut tensors, SHIFT);
    for expected in &mut expected.rows {
        let Row { batch, head, row } = expected.row;
        let last = tensors.q.values(batch, row, head).last().unwrap_or_default();
        let shift = SHIFT * last * problem.softmax_scale();
        expected.exact_lse += f64::from(SHIFT) * f64::from(last) * f64::from(problem.softmax_scale());
        expected.rounded_lse += shift;
        expected.score += f64::from(shift.abs());
    }
    judge(&case, &expected, &executor.run(problem, &tensors)?)?;
    Ok(())
}

/// Query heads that share a K/V head get, bit for bit, what they get from copies of it.
fn repeated_heads(executor: &mut dyn Executor, problem: &Problem) -> Result<(), Failure> {
    let case = case("repeated-heads", problem, Distribution::Normal);
    let grouped = &case.problem;
    let tensors = case.inputs.generate(grouped)?;
    let repeated = grouped.with_heads_kv(problem.heads_q);
    let mut copies = Tensors::unset(&repeated)?;
    let ratio = grouped.heads_per_kv();
    map_rows(&mut copies.q, &tensors.q, |b, s, h| (b, s, h));
    map_rows(&mut copies.k, &tensors.k, |b, s, h| (b, s, h / ratio));
    map_rows(&mut copies.v, &tensors.v, |b, s, h| (b, s, h / ratio));
    let (shared, copied) = (executor.run(grouped, &tensors)?, executor.run(&repeated, &copies)?);
    if let Some((b, s, h)) = shared.o.rows().find(|&(b, s, h)| shared.o.row(b, s, h) != copied.o.row(b, s, h)) {
        let reason = format!("O at batch {b}, head {h}, row {s} differs from that of a repeated K/V head");
        return Err(wrong("repeated-heads", reason));
    }
    if shared.lse != copied.lse {
        return Err(wrong("repeated-heads", "the LSE differs from that of repeated K/V heads".into()));
    }
    Ok(())
}

/// What other batch entries there are changes no bit.
fn other_batch_entries(executor: &mut dyn Executor, problem: &Problem) -> Result<(), Failure> {
    let case = case("other-batch-entries", problem, Distribution::Normal);
    let many = Problem { batch: 3, ..case.problem }.in_bshd();
    let tensors = case.inputs.generate(&many)?;
    let together = executor.run(&many, &tensors)?;
    let one = Problem { batch: 1, ..many }.in_bshd();
    let rows = (one.heads_q * one.seqlen_q) as usize;
    for b in 0..many.batch {
        let mut alone = Tensors::unset(&one)?;
        map_rows(&mut alone.q, &tensors.q, |_, s, h| (b, s, h));
        map_rows(&mut alone.k, &tensors.k, |_, s, h| (b, s, h));
        map_rows(&mut alone.v, &tensors.v, |_, s, h| (b, s, h));
        let alone = executor.run(&one, &alone)?;
        if let Some((_, s, h)) = alone.o.rows().find(|&(_, s, h)| alone.o.row(0, s, h) != together.o.row(b, s, h)) {
            let reason = format!("O at batch {b}, head {h}, row {s} differs from that of the batch entry alone");
            return Err(wrong("other-batch-entries", reason));
        }
        if *alone.lse.inner() != together.lse.inner()[b as usize * rows..][..rows] {
            return Err(wrong("other-batch-entries", format!("the LSE of batch {b} differs from that of it alone")));
        }
    }
    Ok(())
}

/// The results of two parts of the keys, merged by their LSE, are the result of all keys.
fn split_and_merge(executor: &mut dyn Executor, problem: &Problem) -> Result<(), Failure> {
    let case = case("split-and-merge", problem, Distribution::Normal);
    let whole = &case.problem;
    let tensors = case.inputs.generate(whole)?;
    let keys = whole.seqlen_kv;
    if keys < 2 {
        return Ok(());
    }
    let first = keys / 3 + 1;
    let mut part = |from: u32, len: u32| {
        let part = whole.with_seqlens(whole.seqlen_q, len);
        let mut some = Tensors::unset(&part)?;
        map_rows(&mut some.q, &tensors.q, |b, s, h| (b, s, h));
        map_rows(&mut some.k, &tensors.k, |b, s, h| (b, from + s, h));
        map_rows(&mut some.v, &tensors.v, |b, s, h| (b, from + s, h));
        executor.run(&part, &some)
    };
    let parts = [part(0, first)?, part(first, keys - first)?];
    let mut merged = Outputs::unwritten(whole)?;
    for row in Row::all(whole) {
        let at = row.index(whole) as usize;
        let lse = parts.each_ref().map(|part| f64::from(f32::from_bits(part.lse.inner()[at])));
        let max = lse[0].max(lse[1]);
        let total = max + lse.iter().map(|lse| (lse - max).exp()).sum::<f64>().ln();
        let [a, b] = parts.each_ref().map(|part| part.o.values(row.batch, row.row, row.head));
        let weights = lse.map(|lse| (lse - total).exp());
        let o: Vec<_> = a.zip(b).map(|(a, b)| (weights[0] * f64::from(a) + weights[1] * f64::from(b)) as f32).collect();
        merged.o.set_row(row.batch, row.row, row.head, &o);
        merged.lse.inner_mut()[at] = (total as f32).to_bits();
    }
    // Outputs of parts are larger than their average, and rounded on their own before it is rounded again.
    let mut expected = reference(whole, &tensors);
    let ulp = |values: &mut dyn Iterator<Item = f32>| {
        number::ulp(whole.dtype.output(), values.fold(0f32, |largest, x| largest.max(x.abs())).into())
    };
    for expected in &mut expected.rows {
        let Row { batch, head, row } = expected.row;
        let part = |i: usize| ulp(&mut parts[i].o.values(batch, row, head));
        expected.averages_rounded(part(0).max(part(1)) / 2.0);
    }
    judge(&case, &expected, &merged)?;
    Ok(())
}

/// What a launch over NaN left behind, in shared memory and caches, changes no bit of the next.
fn after_nan(executor: &mut dyn Executor, problem: &Problem) -> Result<(), Failure> {
    // The last tile of keys and of rows is ragged.
    let case = case("after-nan", problem, Distribution::Normal);
    let tensors = case.inputs.generate(&case.problem)?;
    let clean = executor.run(&case.problem, &tensors)?;
    let mut nan = tensors.clone();
    for tensor in [&mut nan.q, &mut nan.k, &mut nan.v] {
        tensor.rows().for_each(|row| spoil(tensor, row, f32::NAN));
    }
    executor.run(&case.problem, &nan)?;
    let again = executor.run(&case.problem, &tensors)?;
    same("after-nan", "a launch over NaN came before", &clean, &again, |_| true)
}

/// NaN or infinity in one head of K and V of one batch entry stays with the query heads that attend to it.
fn nan_in_one_head(executor: &mut dyn Executor, problem: &Problem) -> Result<(), Failure> {
    let case = case("nan-in-one-head", problem, Distribution::Normal);
    let problem = &Problem { batch: 2, ..case.problem }.in_bshd();
    let tensors = case.inputs.generate(problem)?;
    let clean = executor.run(problem, &tensors)?;
    for value in [f32::NAN, f32::INFINITY] {
        let mut spoilt = tensors.clone();
        for tensor in [&mut spoilt.k, &mut spoilt.v] {
            let of_one = |&(batch, _, head): &(u32, u32, u32)| batch == 0 && head == 0;
            tensor.rows().filter(of_one).for_each(|row| spoil(tensor, row, value));
        }
        let found = executor.run(problem, &spoilt)?;
        let others = |row: &Row| row.batch != 0 || row.head >= problem.heads_per_kv();
        same("nan-in-one-head", &format!("{value} in another head"), &clean, &found, others)?;
    }
    Ok(())
}

/// NaN or infinity in a key changes no bit of the rows that a causal mask hides it from.
fn nan_in_a_hidden_key(executor: &mut dyn Executor, problem: &Problem) -> Result<(), Failure> {
    let case = case("nan-in-a-hidden-key", problem, Distribution::Normal);
    let problem = &case.problem.with_mask(Mask::Causal(Align::BottomRight));
    let tensors = case.inputs.generate(problem)?;
    let clean = executor.run(problem, &tensors)?;
    for value in [f32::NAN, f32::INFINITY] {
        // In the middle of those that some rows see and others do not.
        let key = problem.seqlen_kv - problem.seqlen_q.min(problem.seqlen_kv) / 2 - 1;
        let mut spoilt = tensors.clone();
        spoilt.k.rows().filter(|(_, at, _)| *at == key).for_each(|row| spoil(&mut spoilt.k, row, value));
        let found = executor.run(problem, &spoilt)?;
        let hidden = |row: &Row| !problem.visible_keys(row.row).contains(&key);
        same("nan-in-a-hidden-key", &format!("{value} in a hidden key"), &clean, &found, hidden)?;
    }
    Ok(())
}

/// Fills a row with a value.
fn spoil(tensor: &mut Tensor, (batch, seq, head): (u32, u32, u32), value: f32) {
    let columns = tensor.shape()[3] as usize;
    tensor.set_row(batch, seq, head, &vec![value; columns]);
}

/// That some rows of two runs have the same bits.
fn same(name: &str, why: &str, clean: &Outputs, found: &Outputs, which: impl Fn(&Row) -> bool) -> Result<(), Failure> {
    let [_, rows, heads, _] = clean.o.shape();
    for (batch, row, head) in clean.o.rows() {
        let row = Row { batch, head, row };
        let at = ((batch * heads + head) * rows + row.row) as usize;
        let of = |outputs: &Outputs| (outputs.o.row(batch, row.row, head).to_vec(), outputs.lse.inner()[at]);
        if which(&row) && of(clean) != of(found) {
            let reason = format!("batch {batch}, head {head}, row {} has other bits where {why}", row.row);
            return Err(wrong(name, reason));
        }
    }
    Ok(())
}

/// Fills a tensor with rows of another: `from` gives the place of the row for a place.
fn map_rows(to: &mut Tensor, tensor: &Tensor, from: impl Fn(u32, u32, u32) -> (u32, u32, u32)) {
    for (b, s, h) in to.rows() {
        let (from_b, from_s, from_h) = from(b, s, h);
        let values: Vec<_> = tensor.values(from_b, from_s, from_h).collect();
        to.set_row(b, s, h, &values);
    }
}

#[cfg(test)]
mod tests {
    use spec::Dtype;

    use super::*;
    use crate::oracle::SamePrecision;

    fn problem(dtype: Dtype) -> Problem {
        Problem::new(2, 6, 20, 40, dtype).with_seqlens(20, 70).with_heads_kv(2)
    }

    /// Runs honestly, then changes what it is given or what it found.
    struct Lying<F: FnMut(&mut Tensors), G: FnMut(&mut Outputs)>(F, G);

    impl<F: FnMut(&mut Tensors), G: FnMut(&mut Outputs)> Executor for Lying<F, G> {
        fn run(&mut self, problem: &Problem, tensors: &Tensors) -> Result<Outputs, Failure> {
            let mut tensors = tensors.clone();
            (self.0)(&mut tensors);
            let mut outputs = SamePrecision.run(problem, &tensors)?;
            (self.1)(&mut outputs);
            Ok(outputs)
        }
    }

    fn broken(executor: &mut dyn Executor) -> Vec<&'static str> {
        let fails = |(_, relation): &&(&str, Relation)| relation(executor, &problem(Dtype::F16)).is_err();
        RELATIONS.iter().filter(fails).map(|(name, _)| *name).collect()
    }

    #[test]
    fn relations_hold_for_the_same_precision_reference() {
        for (name, relation) in RELATIONS {
            for dtype in Dtype::ALL {
                assert_eq!(relation(&mut SamePrecision, &problem(dtype)), Ok(()), "{name} {dtype:?}");
            }
        }
    }

    #[test]
    fn a_key_that_is_dropped_breaks_those_that_move_keys() {
        let drop_last_key = |tensors: &mut Tensors| {
            let [batch, keys, heads, _] = tensors.k.shape();
            for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
                tensors.k.set_row(b, keys - 1, h, &[0.0; 40]);
                tensors.v.set_row(b, keys - 1, h, &[0.0; 40]);
            }
        };
        let mut executor = Lying(drop_last_key, |_| {});
        assert_eq!(broken(&mut executor), ["permuted-keys", "constant-values", "shifted-logits", "split-and-merge"]);
    }

    #[test]
    fn lse_in_base_two_breaks_shift_and_merge() {
        let base_two = |outputs: &mut Outputs| {
            for bits in outputs.lse.inner_mut() {
                *bits = (f32::from_bits(*bits) * std::f32::consts::LOG2_E).to_bits();
            }
        };
        let broken = broken(&mut Lying(|_| {}, base_two));
        assert!(broken.contains(&"shifted-logits") && broken.contains(&"split-and-merge"), "{broken:?}");
    }

    #[test]
    fn nan_that_goes_everywhere_breaks_those_with_nan() {
        let is_nan = |tensor: &Tensor| tensor.rows().any(|(b, s, h)| tensor.values(b, s, h).any(|x| !x.is_finite()));
        let breaks = |(name, relation): (&'static str, Relation)| {
            // From the first launch over NaN on, all that comes out is.
            let spoilt = std::cell::Cell::new(false);
            let look = |tensors: &mut Tensors| spoilt.set(spoilt.get() || is_nan(&tensors.k));
            let leak = |outputs: &mut Outputs| {
                if spoilt.get() {
                    outputs.o.storage.inner_mut().fill(0x7e00);
                }
            };
            relation(&mut Lying(look, leak), &problem(Dtype::F16)).is_err().then_some(name)
        };
        let broken: Vec<_> = RELATIONS.into_iter().filter_map(breaks).collect();
        assert_eq!(broken, ["after-nan", "nan-in-one-head", "nan-in-a-hidden-key"]);
    }

    #[test]
    fn one_bit_breaks_repeated_heads() {
        let mut runs = 0;
        let flip = |outputs: &mut Outputs| {
            runs += 1;
            outputs.o.storage.inner_mut()[77] ^= runs & 1;
        };
        assert!(broken(&mut Lying(|_| {}, flip)).contains(&"repeated-heads"));
    }
}

//! Filling Q, K and V.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;
use spec::Problem;

use super::{CaseError, Distribution, Extras, Inputs, Tensor, Tensors};

impl Inputs {
    /// Q, K and V of a problem, the same ones each time, in memory that is NaN wherever no element lies.
    ///
    /// # Errors
    ///
    /// The problem's strides are negative, or there is not the memory.
    pub fn generate(&self, problem: &Problem) -> Result<Tensors, CaseError> {
        let mut tensors = Tensors::unset_after(problem, self.lead)?;
        tensors.extras = Extras::generate(problem, self.seed)?;
        let Tensors { q, k, v, .. } = &mut tensors;
        rayon::scope(|scope| {
            scope.spawn(|_| self.fill(q, 0, |rng, _, row, values| self.query(problem, rng, row, values)));
            scope.spawn(|_| self.fill(k, 1, |rng, first, row, values| self.key(problem, rng, first, row, values)));
            scope.spawn(|_| self.fill(v, 2, |rng, _, _, values| self.value(rng, values)));
        });
        if self.distribution == Distribution::HiddenNan {
            let seen = tensors.extras.seen(problem);
            forget_others(&mut tensors, &seen);
        } else if problem.features.varies() || problem.features.pages.is_some() {
            let used = tensors.extras.used(problem);
            forget_others(&mut tensors, &used);
        }
        Ok(tensors)
    }

    /// Writes every row of a tensor; each head has random numbers of its own, so that heads can be filled side by side.
    fn fill(
        &self,
        tensor: &mut Tensor,
        which: u64,
        write: impl Fn(&mut ChaCha8Rng, &mut Vec<f32>, u32, &mut [f32]) + Sync,
    ) {
        let [batch, seq, heads, columns] = tensor.shape().map(|extent| extent as usize);
        let mut values = vec![0.0; batch * heads * seq * columns];
        let of_head = |(head, values): (usize, &mut [f32])| {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(which << 62 | ((head / heads) as u64) << 31 | (head % heads) as u64);
            let mut first = Vec::new();
            values.chunks_mut(columns.max(1)).zip(0..).for_each(|(values, s)| write(&mut rng, &mut first, s, values));
        };
        values.par_chunks_mut((seq * columns).max(1)).enumerate().for_each(of_head);
        // Strides may be 0: what lies in one place is written in order.
        for (row, values) in values.chunks(columns.max(1)).enumerate() {
            let (head, s) = (row / seq, row % seq);
            tensor.set_row((head / heads) as u32, s as u32, (head % heads) as u32, values);
        }
    }

    fn query(&self, problem: &Problem, rng: &mut ChaCha8Rng, row: u32, values: &mut [f32]) {
        match self.distribution {
            Distribution::OneHot => {
                let visible = problem.visible_keys(row);
                let target = if visible.is_empty() { 0 } else { rng.random_range(visible) };
                // The next best key differs in one sign or more: a gap of twice this.
                let gap = (10.0 / f64::from(problem.softmax_scale())).clamp(-1024.0, 1024.0) as f32;
                values.iter_mut().enumerate().for_each(|(i, value)| *value = gap * sign(target, i));
            }
            Distribution::LowLogits => {
                let per_score = f64::from(problem.softmax_scale()) * values.len() as f64 * 2.0 / std::f64::consts::PI;
                let factor = (-400.0 / per_score).clamp(-4096.0, 4096.0) as f32;
                normal(rng, values, |x| factor * x.abs());
            }
            Distribution::NanQuery if row + 1 == problem.shapes()[0][1] => values.fill(f32::NAN),
            _ => self.score_operand(problem, rng, values),
        }
    }

    fn key(&self, problem: &Problem, rng: &mut ChaCha8Rng, first: &mut Vec<f32>, row: u32, values: &mut [f32]) {
        match self.distribution {
            Distribution::OneHot => values.iter_mut().enumerate().for_each(|(i, value)| *value = sign(row, i)),
            Distribution::LowLogits => normal(rng, values, f32::abs),
            Distribution::EqualLogits => {
                if first.is_empty() {
                    normal(rng, values, |x| x);
                    first.extend_from_slice(values);
                }
                values.copy_from_slice(first);
            }
            _ => self.score_operand(problem, rng, values),
        }
    }

    fn value(&self, rng: &mut ChaCha8Rng, values: &mut [f32]) {
        match self.distribution {
            Distribution::ConstantV => values.fill(1.0),
            Distribution::LargeV => {
                values.iter_mut().enumerate().for_each(|(i, v)| *v = if i % 2 == 0 { 6e4 } else { -6e4 });
            }
            Distribution::Outliers => outliers(rng, values),
            Distribution::BrokenValues => {
                normal(rng, values, |x| x);
                match rng.random_range(0..256) {
                    0 => values.fill(f32::NAN),
                    1..32 => {
                        let column = rng.random_range(0..values.len());
                        values[column] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][rng.random_range(0..3)];
                    }
                    _ => {}
                }
            }
            _ => normal(rng, values, |x| x),
        }
    }

    /// A row of Q or K, which are filled alike in most distributions.
    fn score_operand(&self, problem: &Problem, rng: &mut ChaCha8Rng, values: &mut [f32]) {
        // A dot product of normal rows has the root of their length as its deviation.
        let root = (values.len() as f64).sqrt();
        let factor = match self.distribution {
            Distribution::Outliers => return outliers(rng, values),
            Distribution::LargeLogits => 300.0 / (f64::from(problem.softmax_scale()).abs() * root),
            Distribution::HugeScores => 1e5 / root,
            _ => 1.0,
        };
        let factor = factor.sqrt().min(1024.0) as f32;
        normal(rng, values, |x| factor * x);
    }
}

fn normal(rng: &mut impl Rng, values: &mut [f32], map: impl Fn(f32) -> f32) {
    values.iter_mut().for_each(|value| *value = map(rng.sample(StandardNormal)));
}

fn outliers(rng: &mut impl Rng, values: &mut [f32]) {
    for value in values {
        let x: f32 = rng.sample(StandardNormal);
        *value = if rng.random_ratio(1, 1000) { 10.0 * x } else { x };
    }
}

/// The sign of a column in the pattern of a key: two keys differ somewhere in the first 32 columns.
fn sign(key: u32, column: usize) -> f32 {
    // An odd factor maps the keys one to one.
    if key.wrapping_mul(0x9e37_79b1) >> (31 - column % 32) & 1 == 0 { 1.0 } else { -1.0 }
}

/// Makes NaN of all keys and values but some, which are given by batch entry or page, position and K/V head.
fn forget_others(Tensors { k, v, .. }: &mut Tensors, kept: &[[u32; 3]]) {
    for tensor in [k, v] {
        // Heads and batch entries may share memory.
        let mut keep = vec![false; tensor.storage.inner().len()];
        kept.iter().for_each(|&[b, s, h]| keep[tensor.offset(b, s, h)] = true);
        let nan = vec![f32::NAN; tensor.shape()[3] as usize];
        for (b, s, h) in tensor.rows() {
            if !keep[tensor.offset(b, s, h)] {
                tensor.set_row(b, s, h, &nan);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use spec::{Align, Bias, Dtype, Extra, Features, Mask, MatrixStrides};

    use super::*;

    fn problem() -> Problem {
        Problem::new(2, 6, 1, 40, Dtype::Bf16).with_seqlens(9, 21).with_heads_kv(3)
    }

    #[test]
    fn every_distribution_is_a_function_of_the_seed() {
        for distribution in Distribution::ALL {
            let inputs = |seed| Inputs::new(distribution, seed).generate(&problem()).unwrap();
            assert_eq!(inputs(1), inputs(1), "{distribution:?}");
            assert_ne!(inputs(1), inputs(2), "{distribution:?}");
        }
    }

    #[test]
    fn values_do_not_depend_on_the_layout() {
        let inputs = Inputs::new(Distribution::Outliers, 3);
        let (a, b) = (inputs.generate(&problem()).unwrap(), inputs.generate(&problem().in_bhsd()).unwrap());
        for (x, y) in [(&a.q, &b.q), (&a.k, &b.k), (&a.v, &b.v)] {
            assert!(x.rows().all(|(b, s, h)| x.row(b, s, h) == y.row(b, s, h)));
            assert_ne!(x.storage, y.storage);
        }
    }

    #[test]
    fn only_what_is_meant_to_be_nan_is() {
        let causal = problem().with_mask(Mask::Causal(Align::TopLeft));
        for distribution in Distribution::ALL {
            let tensors = Inputs::new(distribution, 0).generate(&causal).unwrap();
            let nans = |tensor: &Tensor| {
                let nan = |(b, s, h)| tensor.values(b, s, h).any(|x| !x.is_finite());
                tensor.rows().filter(|row| nan(*row)).count()
            };
            let expected = match distribution {
                Distribution::NanQuery => [2 * 6, 0, 0],
                Distribution::HiddenNan => [0, 2 * 3 * (21 - 9), 2 * 3 * (21 - 9)],
                Distribution::BrokenValues => [0, 0, nans(&tensors.v).max(1)],
                _ => [0, 0, 0],
            };
            assert_eq!([&tensors.q, &tensors.k, &tensors.v].map(nans), expected, "{distribution:?}");
        }
    }

    #[test]
    fn what_masks_and_biases_hide_from_all_rows_is_nan() {
        // The mask shows key 0 to head 0 and key 1 to head 1, which share K and V; the bias hides key 1 from both.
        let strides = |head| MatrixStrides { batch: 0, head, row: 0 };
        let features =
            Features { mask: Some(strides(3)), bias: Some(Bias { wide: true, strides: strides(0) }), ..Features::NONE };
        let problem = Problem { features, ..Problem::new(1, 2, 4, 8, Dtype::F16).with_seqlens(4, 3).with_heads_kv(1) };
        let mut tensors = Inputs::new(Distribution::Normal, 0).generate(&problem).unwrap();
        tensors.extras.set_bytes(Extra::Mask, &[1, 0, 0, 0, 1, 0]);
        let bias = [0.0, f32::NEG_INFINITY, 0.0].map(f32::to_ne_bytes);
        tensors.extras.set_bytes(Extra::Bias, bias.as_flattened());
        assert_eq!(tensors.extras.seen(&problem), [[0, 0, 0]]);
        let bias = [0.0, f32::MIN, 0.0].map(f32::to_ne_bytes);
        tensors.extras.set_bytes(Extra::Bias, bias.as_flattened());
        assert_eq!(tensors.extras.seen(&problem), [[0, 0, 0], [0, 1, 0]]);
    }

    #[test]
    fn memory_between_rows_is_nan() {
        let mut strided = Problem { batch: 1, ..problem() };
        strided.strides.v.seq = 3 * 40 + 8;
        let v = Inputs::new(Distribution::Normal, 0).generate(&strided).unwrap().v;
        let stray = v.own().into_iter().zip(v.storage.inner());
        let stray: Vec<_> = stray.filter(|(own, _)| !own).map(|(_, word)| *word).collect();
        assert_eq!(stray.len(), 20 * 8);
        assert!(stray.iter().all(|word| half::f16::from_bits(*word).is_nan() && half::bf16::from_bits(*word).is_nan()));
    }

    #[test]
    fn one_key_takes_all() {
        let causal = problem().with_mask(Mask::Causal(Align::BottomRight));
        let tensors = Inputs::new(Distribution::OneHot, 5).generate(&causal).unwrap();
        for (b, s, h) in tensors.q.rows() {
            let scores = causal.visible_keys(s).map(|key| {
                let products = tensors.q.values(b, s, h).zip(tensors.k.values(b, key, h / 2)).map(|(q, k)| q * k);
                products.sum::<f32>() * causal.softmax_scale()
            });
            let mut scores: Vec<_> = scores.collect();
            scores.sort_by(f32::total_cmp);
            assert!(scores.len() < 2 || scores[scores.len() - 1] - scores[scores.len() - 2] > 15.0);
        }
    }
}

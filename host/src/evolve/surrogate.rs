//! A Gaussian process over variants: what the measured ones say of the others.

use std::sync::Arc;

use spec::{Domain, Family, Variant};

use super::{
    factor::Factor,
    likeness::{Likeness, Point},
};

/// Variance of log time that is assumed before much is measured: times differ by some 50 %.
const PRIOR_VARIANCE: f64 = 0.16;
/// How many observations that assumption is worth, and the one that what held elsewhere holds here.
const PRIOR_WEIGHT: f64 = 3.0;
/// Log time above the fastest beyond which differences count for less than half.
const EASE: f64 = 0.3;

/// Log times as a search should see them: by how much the slow differ tells little of what is fastest, and would outweigh it.
/// The order stays, and so does what lies close to the fastest.
pub fn eased(log_times: &[(Variant, f64)]) -> Vec<(Variant, f64)> {
    let fastest = log_times.iter().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
    log_times.iter().map(|(variant, y)| (*variant, fastest + EASE * ((y - fastest) / EASE).ln_1p())).collect()
}

/// A normal distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normal {
    /// Its mean.
    pub mean: f64,
    /// Its standard deviation.
    pub deviation: f64,
}

impl Normal {
    /// By how much it is expected to lie below a target, where what lies above counts as 0.
    pub fn expected_below(&self, target: f64) -> f64 {
        let (gap, deviation) = (target - self.mean, self.deviation.max(1e-9));
        let z = gap / deviation;
        let below = 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2);
        let density = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
        gap * below + deviation * density
    }
}

/// A fitted process over log time.
#[derive(Clone, Debug)]
pub struct Surrogate {
    points: Vec<Point>,
    mean: f64,
    variance: f64,
    noise: f64,
    likeness: Likeness,
    factor: Factor,
    weights: Vec<f64>,
    /// What is expected of log time in place of a constant.
    expected: Option<Elsewhere>,
}

/// What was learnt elsewhere, and how far it holds here: 1 if as it was there, 0 if not at all.
#[derive(Clone, Debug)]
struct Elsewhere {
    surrogate: Arc<Surrogate>,
    weight: f64,
}

impl Elsewhere {
    fn of(&self, variant: &Variant) -> f64 {
        self.weight * self.surrogate.mean(variant)
    }
}

impl Surrogate {
    /// Fits variants' log times, or [`eased`] ones, known up to a standard deviation of `noise`. With `elsewhere`, a model of such times but
    /// for a constant, it is what that model leaves over that is fitted, and how far the model holds: as if it did until
    /// observations speak against it.
    pub fn fit(observations: &[(Variant, f64)], noise: f64, elsewhere: Option<&Arc<Self>>) -> Self {
        let expected = elsewhere.map(|surrogate| {
            let surrogate = Arc::clone(surrogate);
            let weight = surrogate.slope(observations).clamp(0.0, 1.0);
            Elsewhere { surrogate, weight }
        });
        let left_over = |(variant, y): &(Variant, f64)| y - expected.as_ref().map_or(0.0, |of| of.of(variant));
        let left_over: Vec<f64> = observations.iter().map(left_over).collect();
        let count = observations.len() as f64;
        let mean = left_over.iter().sum::<f64>() / count.max(1.0);
        let residuals: Vec<f64> = left_over.iter().map(|y| y - mean).collect();
        let squares: f64 = residuals.iter().map(|y| y.powi(2)).sum();
        let variance = (squares + PRIOR_WEIGHT * PRIOR_VARIANCE) / (count + PRIOR_WEIGHT);
        let points: Vec<Point> = observations.iter().map(|(variant, _)| Point::of(variant)).collect();
        let likeness = Likeness::learn(&points, &residuals, PRIOR_WEIGHT, PRIOR_VARIANCE);
        let factor = Factor::default();
        let mut fitted = Self { points: vec![], mean, variance, noise, likeness, factor, weights: vec![], expected };
        for point in points {
            fitted.extend(point);
        }
        fitted.weights = fitted.factor.backward(&fitted.factor.forward(&residuals));
        fitted
    }

    /// The log time expected of a variant.
    pub fn predict(&self, variant: &Variant) -> Normal {
        let point = Point::of(variant);
        self.posterior(&self.cross(&point), self.variance * self.likeness.of(&point, &point), self.constant(variant))
    }

    /// How far what was learnt elsewhere holds here, from 0 to 1; `None` if there was nothing.
    pub fn weight_elsewhere(&self) -> Option<f64> {
        self.expected.as_ref().map(|of| of.weight)
    }

    /// The mean of [`Surrogate::predict`], for less.
    fn mean(&self, variant: &Variant) -> f64 {
        self.constant(variant) + shift(&self.cross(&Point::of(variant)), &self.weights)
    }

    /// Slope of observations over what this model expects, which is held to be 1 before there are any.
    fn slope(&self, observations: &[(Variant, f64)]) -> f64 {
        let count = (observations.len() as f64).max(1.0);
        let pairs: Vec<(f64, f64)> = observations.iter().map(|(variant, y)| (self.mean(variant), *y)).collect();
        let average = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / count;
        let (x, y) = (average(|pair| pair.0), average(|pair| pair.1));
        let sum = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() + PRIOR_WEIGHT * PRIOR_VARIANCE;
        sum(&|pair| (pair.0 - x) * (pair.1 - y)) / sum(&|pair| (pair.0 - x).powi(2))
    }

    /// What is expected of a variant before it or any like it was measured.
    fn constant(&self, variant: &Variant) -> f64 {
        self.mean + self.expected.as_ref().map_or(0.0, |of| of.of(variant))
    }

    fn cross(&self, point: &Point) -> Vec<f64> {
        self.points.iter().map(|known| self.variance * self.likeness.of(known, point)).collect()
    }

    /// Takes a variant as if it had been measured at its expected time, so that the next proposals look elsewhere.
    pub fn believe(&mut self, variant: Variant) {
        self.extend(Point::of(&variant));
        // The residual of a believed observation is zero given all others, so its weight is zero too.
        self.weights.push(0.0);
    }

    /// What a gene's value is worth in log time against the average of its domain, all other genes averaged over theirs.
    pub fn effect(&self, family: Family, domain: &Domain, value: usize) -> Normal {
        let gene = family.domains().iter().position(|other| other.gene == domain.gene).unwrap_or(0);
        let of = |point| self.variance * self.likeness.of_effect(family, gene, value, point);
        let cross: Vec<f64> =
            self.points.iter().map(|known| if known.family == family { of(Some(known)) } else { 0.0 }).collect();
        let own = of(None);
        let here = self.posterior(&cross, own, 0.0);
        let Some(Elsewhere { surrogate, weight }) = &self.expected else { return here };
        let there = surrogate.effect(family, domain, value);
        Normal { mean: here.mean + weight * there.mean, deviation: here.deviation.hypot(weight * there.deviation) }
    }

    fn posterior(&self, cross: &[f64], prior: f64, mean: f64) -> Normal {
        let explained: f64 = self.factor.forward(cross).iter().map(|z| z * z).sum();
        Normal { mean: mean + shift(cross, &self.weights), deviation: (prior - explained).max(0.0).sqrt() }
    }

    fn extend(&mut self, point: Point) {
        let own = self.variance * self.likeness.of(&point, &point) + self.noise.powi(2) + 1e-4 * self.variance;
        self.factor.extend(&self.cross(&point), own);
        self.points.push(point);
    }
}

/// How far observations with these covariances and weights move an expectation.
fn shift(cross: &[f64], weights: &[f64]) -> f64 {
    cross.iter().zip(weights).map(|(c, w)| c * w).sum()
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, seq::IndexedRandom};
    use rand_chacha::ChaCha8Rng;
    use spec::Gene;

    use super::*;
    use crate::record::fixture;

    /// Log time that depends on two genes and their combination.
    fn truth(variant: &Variant) -> f64 {
        let gene = |gene| f64::from(variant.get(gene).unwrap_or(0));
        let (stages, warps) = (gene(Gene::Stages), gene(Gene::Warps));
        3.0 - 0.2 * stages + 0.02 * warps + if stages > 2.0 && warps > 4.0 { 0.3 } else { 0.0 }
    }

    #[test]
    fn it_predicts_what_it_has_not_seen() {
        let wide = fixture::wide();
        let mma: Vec<Variant> = wide.members().iter().filter(|v| v.family() == Family::Mma).copied().collect();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let known: Vec<(Variant, f64)> = mma.sample(&mut rng, 45).map(|v| (*v, truth(v))).collect();
        let fitted = Surrogate::fit(&known, 0.005, None);
        for (variant, y) in &known {
            assert!((fitted.predict(variant).mean - y).abs() < 0.05);
        }
        let unseen: Vec<&Variant> = mma.sample(&mut rng, 300).collect();
        let mean = known.iter().map(|(_, y)| y).sum::<f64>() / 45.0;
        let error = |guess: &dyn Fn(&Variant) -> f64| -> f64 {
            unseen.iter().map(|v| (guess(v) - truth(v)).powi(2)).sum::<f64>().sqrt()
        };
        let (model, constant) = (error(&|v| fitted.predict(v).mean), error(&|_| mean));
        assert!(model < 0.7 * constant, "{model} against {constant}");
        let covered = unseen.iter().filter(|v| {
            let p = fitted.predict(v);
            (p.mean - truth(v)).abs() < 2.0 * p.deviation
        });
        assert!(covered.count() >= 255, "an interval of two deviations must cover most of 300");
        let stages = Family::Mma.domains().iter().find(|d| d.gene == Gene::Stages).unwrap();
        let (few, many) = (fitted.effect(Family::Mma, stages, 0), fitted.effect(Family::Mma, stages, 3));
        assert!(few.mean > 0.0 && few.mean > many.mean && few.deviation > 0.0);
    }

    #[test]
    fn what_is_believed_is_not_expected_to_teach() {
        let wide = fixture::wide();
        let known: Vec<(Variant, f64)> = wide.members().iter().step_by(301).map(|v| (*v, truth(v))).collect();
        let mut fitted = Surrogate::fit(&known, 0.005, None);
        let next = wide.members()[500];
        let before = fitted.predict(&next);
        fitted.believe(next);
        let after = fitted.predict(&next);
        assert!(after.deviation < 0.2 * before.deviation && (after.mean - before.mean).abs() < 1e-9);
    }

    #[test]
    fn what_is_expected_below_a_target_is_an_average_over_the_distribution() {
        let normal = Normal { mean: 2.0, deviation: 0.5 };
        for target in [1.0, 1.9, 2.0, 3.0] {
            let steps = 200_000;
            let at = |i: usize| (f64::from(i as u32) + 0.5) * 10.0 / f64::from(steps) - 5.0;
            let density = |z: f64| (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt() * 10.0 / f64::from(steps);
            let average: f64 =
                (0..steps as usize).map(|i| (target - 2.0 - 0.5 * at(i)).max(0.0) * density(at(i))).sum();
            assert!((normal.expected_below(target) - average).abs() < 1e-5, "{target}: {average}");
        }
        // A near copy of the fastest promises less than the unknown.
        let (copy, unknown) = (Normal { mean: 1.0, deviation: 0.001 }, Normal { mean: 1.3, deviation: 0.3 });
        assert!(copy.expected_below(0.98) < unknown.expected_below(0.98));
    }

    #[test]
    fn easing_keeps_the_order_and_what_is_close_to_the_fastest() {
        let variants = fixture::wide().members();
        let times = [2.0, 2.01, 2.3, 6.0, 1.99];
        let eased = eased(&times.iter().zip(variants).map(|(y, variant)| (*variant, *y)).collect::<Vec<_>>());
        assert_eq!(eased[4], (variants[4], 1.99));
        assert!(
            eased[4].1 < eased[0].1 && eased[0].1 < eased[1].1 && eased[1].1 < eased[2].1 && eased[2].1 < eased[3].1
        );
        assert!((eased[1].1 - 2.01).abs() < 0.001 && eased[3].1 < 3.0);
        assert_eq!(super::eased(&[]), []);
    }
}

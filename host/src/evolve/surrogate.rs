//! A Gaussian process over variants: what the measured ones say of the others.
//!
//! Its covariance has two parts of equal weight within a family: a sum over genes, which carries what a single gene is
//! worth, and a product over genes, which carries how they act together. Between families only a constant is shared.

use std::sync::{Arc, LazyLock};

use spec::{Domain, Family, Variant};

use super::genome::position;

/// Steps of a gene's domain over which its values are alike.
const REACH: f64 = 2.0;
/// Covariance of two families, relative to that of one.
const BETWEEN_FAMILIES: f64 = 0.25;
/// Variance of log time that is assumed before much is measured: times differ by some 50 %.
const PRIOR_VARIANCE: f64 = 0.16;
/// How many observations that assumption is worth, and the one that what held elsewhere holds here.
const PRIOR_WEIGHT: f64 = 3.0;

/// A normal distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normal {
    /// Its mean.
    pub mean: f64,
    /// Its standard deviation.
    pub deviation: f64,
}

/// A fitted process over log time.
#[derive(Clone, Debug)]
pub struct Surrogate {
    points: Vec<Point>,
    mean: f64,
    variance: f64,
    noise: f64,
    /// Lower triangle of the Cholesky factor, row by row.
    factor: Vec<Vec<f64>>,
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
    /// Fits variants' log times, known up to a standard deviation of `noise`. With `elsewhere`, a model of such times but
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
        let mut fitted = Self { points: vec![], mean, variance, noise, factor: vec![], weights: vec![], expected };
        for (variant, _) in observations {
            fitted.extend(Point::of(variant));
        }
        fitted.weights = fitted.backward(&fitted.forward(&residuals));
        fitted
    }

    /// The log time expected of a variant.
    pub fn predict(&self, variant: &Variant) -> Normal {
        let point = Point::of(variant);
        self.posterior(&self.cross(&point), self.variance * covariance(&point, &point), self.constant(variant))
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
        self.points.iter().map(|known| self.variance * covariance(known, point)).collect()
    }

    /// Takes a variant as if it had been measured at its expected time, so that the next proposals look elsewhere.
    pub fn believe(&mut self, variant: Variant) {
        self.extend(Point::of(&variant));
        // The residual of a believed observation is zero given all others, so its weight is zero too.
        self.weights.push(0.0);
    }

    /// What a gene's value is worth in log time against the average of its domain, alone.
    pub fn effect(&self, family: Family, domain: &Domain, value: usize) -> Normal {
        let values = domain.values.len();
        let gene = family.domains().iter().position(|other| other.gene == domain.gene).unwrap_or(0);
        let share = self.variance * additive_share(family);
        let centred = |other: usize| {
            let average: f64 = (0..values).map(|v| alike(v, other)).sum::<f64>() / values as f64;
            alike(value, other) - average
        };
        let cross: Vec<f64> = self
            .points
            .iter()
            .map(|known| if known.family == family { share * centred(known.positions[gene]) } else { 0.0 })
            .collect();
        let own = share * (centred(value) - (0..values).map(&centred).sum::<f64>() / values as f64);
        let here = self.posterior(&cross, own, 0.0);
        let Some(Elsewhere { surrogate, weight }) = &self.expected else { return here };
        let there = surrogate.effect(family, domain, value);
        Normal { mean: here.mean + weight * there.mean, deviation: here.deviation.hypot(weight * there.deviation) }
    }

    fn posterior(&self, cross: &[f64], prior: f64, mean: f64) -> Normal {
        let explained: f64 = self.forward(cross).iter().map(|z| z * z).sum();
        Normal { mean: mean + shift(cross, &self.weights), deviation: (prior - explained).max(0.0).sqrt() }
    }

    /// Adds a row to the factor.
    fn extend(&mut self, point: Point) {
        let mut row = self.forward(&self.cross(&point));
        let explained: f64 = row.iter().map(|z| z * z).sum();
        let own = self.variance * covariance(&point, &point) + self.noise.powi(2) + 1e-4 * self.variance;
        row.push((own - explained).max(1e-12).sqrt());
        self.factor.push(row);
        self.points.push(point);
    }

    /// Solves `factor * z = b`.
    fn forward(&self, b: &[f64]) -> Vec<f64> {
        let mut z: Vec<f64> = Vec::with_capacity(b.len());
        for (row, b) in self.factor.iter().zip(b) {
            let known: f64 = row.iter().zip(&z).map(|(l, z)| l * z).sum();
            z.push((b - known) / row[z.len()]);
        }
        z
    }

    /// Solves `factor^T * x = z`.
    fn backward(&self, z: &[f64]) -> Vec<f64> {
        let mut x = z.to_vec();
        for i in (0..x.len()).rev() {
            let known: f64 = (i + 1..x.len()).map(|j| self.factor[j][i] * x[j]).sum();
            x[i] = (x[i] - known) / self.factor[i][i];
        }
        x
    }
}

/// How far observations with these covariances and weights move an expectation.
fn shift(cross: &[f64], weights: &[f64]) -> f64 {
    cross.iter().zip(weights).map(|(c, w)| c * w).sum()
}

/// A variant by the positions of its values in their domains.
#[derive(Clone, Debug)]
struct Point {
    family: Family,
    positions: Vec<usize>,
}

impl Point {
    fn of(variant: &Variant) -> Self {
        let family = variant.family();
        Self { family, positions: family.domains().iter().map(|domain| position(domain, variant)).collect() }
    }
}

/// How alike values so many steps apart are.
fn alike(a: usize, b: usize) -> f64 {
    // Models of hundreds of variants ask millions of times; domains are shorter than this.
    static NEAR: LazyLock<[f64; 32]> = LazyLock::new(|| std::array::from_fn(likeness));
    let steps = a.abs_diff(b);
    NEAR.get(steps).copied().unwrap_or_else(|| likeness(steps))
}

fn likeness(steps: usize) -> f64 {
    (-(steps as f64) / REACH).exp()
}

fn additive_share(family: Family) -> f64 {
    (1.0 - BETWEEN_FAMILIES) / 2.0 / family.domains().len() as f64
}

/// Covariance of two points; 1 for the same.
fn covariance(a: &Point, b: &Point) -> f64 {
    if a.family != b.family {
        return BETWEEN_FAMILIES;
    }
    let (mut sum, mut product) = (0.0, 1.0);
    for (a, b) in a.positions.iter().zip(&b.positions) {
        let alike = alike(*a, *b);
        sum += alike;
        product *= alike;
    }
    BETWEEN_FAMILIES + additive_share(a.family) * sum + (1.0 - BETWEEN_FAMILIES) / 2.0 * product
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
}

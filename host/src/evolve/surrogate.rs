//! A Gaussian process over variants: what the measured ones say of the others.
//!
//! Its covariance has two parts of equal weight within a family: a sum over genes, which carries what a single gene is
//! worth, and a product over genes, which carries how they act together. Between families only a constant is shared.

use spec::{Domain, Family, Variant};

use super::genome::position;

/// Steps of a gene's domain over which its values are alike.
const REACH: f64 = 2.0;
/// Covariance of two families, relative to that of one.
const BETWEEN_FAMILIES: f64 = 0.25;
/// Variance of log time that is assumed before much is measured: times differ by some 50 %.
const PRIOR_VARIANCE: f64 = 0.16;
/// How many observations that assumption is worth.
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
    variants: Vec<Variant>,
    mean: f64,
    variance: f64,
    noise: f64,
    /// Lower triangle of the Cholesky factor, row by row.
    factor: Vec<Vec<f64>>,
    weights: Vec<f64>,
}

impl Surrogate {
    /// Fits variants' log times, known up to a standard deviation of `noise`.
    pub fn fit(observations: &[(Variant, f64)], noise: f64) -> Self {
        let count = observations.len() as f64;
        let mean = observations.iter().map(|(_, y)| y).sum::<f64>() / count.max(1.0);
        let squares: f64 = observations.iter().map(|(_, y)| (y - mean).powi(2)).sum();
        let variance = (squares + PRIOR_WEIGHT * PRIOR_VARIANCE) / (count + PRIOR_WEIGHT);
        let mut fitted = Self { variants: vec![], mean, variance, noise, factor: vec![], weights: vec![] };
        for (variant, _) in observations {
            fitted.extend(*variant);
        }
        let residuals: Vec<f64> = observations.iter().map(|(_, y)| y - mean).collect();
        fitted.weights = fitted.backward(&fitted.forward(&residuals));
        fitted
    }

    /// The log time expected of a variant.
    pub fn predict(&self, variant: &Variant) -> Normal {
        let cross: Vec<f64> = self.variants.iter().map(|known| self.variance * covariance(known, variant)).collect();
        self.posterior(&cross, self.variance * covariance(variant, variant), self.mean)
    }

    /// Takes a variant as if it had been measured at its expected time, so that the next proposals look elsewhere.
    pub fn believe(&mut self, variant: Variant) {
        self.extend(variant);
        // The residual of a believed observation is zero given all others, so its weight is zero too.
        self.weights.push(0.0);
    }

    /// What a gene's value is worth in log time against the average of its domain, alone.
    pub fn effect(&self, family: Family, domain: &Domain, value: usize) -> Normal {
        let values = domain.values.len();
        let share = self.variance * additive_share(family);
        let centred = |other: usize| {
            let average: f64 = (0..values).map(|v| alike(v, other)).sum::<f64>() / values as f64;
            alike(value, other) - average
        };
        let cross: Vec<f64> = self
            .variants
            .iter()
            .map(|known| if known.family() == family { share * centred(position(domain, known)) } else { 0.0 })
            .collect();
        let own = share * (centred(value) - (0..values).map(&centred).sum::<f64>() / values as f64);
        self.posterior(&cross, own, 0.0)
    }

    fn posterior(&self, cross: &[f64], prior: f64, mean: f64) -> Normal {
        let explained: f64 = self.forward(cross).iter().map(|z| z * z).sum();
        let shift: f64 = cross.iter().zip(&self.weights).map(|(c, w)| c * w).sum();
        Normal { mean: mean + shift, deviation: (prior - explained).max(0.0).sqrt() }
    }

    /// Adds a row to the factor.
    fn extend(&mut self, variant: Variant) {
        let cross: Vec<f64> = self.variants.iter().map(|known| self.variance * covariance(known, &variant)).collect();
        let mut row = self.forward(&cross);
        let explained: f64 = row.iter().map(|z| z * z).sum();
        let own = self.variance * covariance(&variant, &variant) + self.noise.powi(2) + 1e-4 * self.variance;
        row.push((own - explained).max(1e-12).sqrt());
        self.factor.push(row);
        self.variants.push(variant);
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

fn alike(a: usize, b: usize) -> f64 {
    (-(a.abs_diff(b) as f64) / REACH).exp()
}

fn additive_share(family: Family) -> f64 {
    (1.0 - BETWEEN_FAMILIES) / 2.0 / family.domains().len() as f64
}

/// Covariance of two variants; 1 for the same.
fn covariance(a: &Variant, b: &Variant) -> f64 {
    if a.family() != b.family() {
        return BETWEEN_FAMILIES;
    }
    let (mut sum, mut product) = (0.0, 1.0);
    for domain in a.family().domains() {
        let alike = alike(position(domain, a), position(domain, b));
        sum += alike;
        product *= alike;
    }
    BETWEEN_FAMILIES + additive_share(a.family()) * sum + (1.0 - BETWEEN_FAMILIES) / 2.0 * product
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
        let fitted = Surrogate::fit(&known, 0.005);
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
        let mut fitted = Surrogate::fit(&known, 0.005);
        let next = wide.members()[500];
        let before = fitted.predict(&next);
        fitted.believe(next);
        let after = fitted.predict(&next);
        assert!(after.deviation < 0.2 * before.deviation && (after.mean - before.mean).abs() < 1e-9);
    }
}

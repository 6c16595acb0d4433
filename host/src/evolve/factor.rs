//! The Cholesky factor of a covariance that grows by one observation after another.

/// A lower triangle, row by row.
#[derive(Clone, Debug, Default)]
pub(super) struct Factor(Vec<Vec<f64>>);

impl Factor {
    /// Adds an observation by its covariances with those before it and its own variance.
    pub(super) fn extend(&mut self, covariances: &[f64], own: f64) {
        let mut row = self.forward(covariances);
        let explained: f64 = row.iter().map(|z| z * z).sum();
        row.push((own - explained).max(1e-12).sqrt());
        self.0.push(row);
    }

    /// Solves `factor * z = b`.
    pub(super) fn forward(&self, b: &[f64]) -> Vec<f64> {
        let mut z: Vec<f64> = Vec::with_capacity(b.len());
        for (row, b) in self.0.iter().zip(b) {
            let known: f64 = row.iter().zip(&z).map(|(l, z)| l * z).sum();
            z.push((b - known) / row[z.len()]);
        }
        z
    }

    /// Solves `factor^T * x = z`.
    pub(super) fn backward(&self, z: &[f64]) -> Vec<f64> {
        let mut x = z.to_vec();
        for i in (0..x.len()).rev() {
            let known: f64 = (i + 1..x.len()).map(|j| self.0[j][i] * x[j]).sum();
            x[i] = (x[i] - known) / self.0[i][i];
        }
        x
    }

    /// Half the logarithm of the covariance's determinant.
    pub(super) fn log_diagonal(&self) -> f64 {
        self.0.iter().filter_map(|row| row.last()).map(|l| l.ln()).sum()
    }
}

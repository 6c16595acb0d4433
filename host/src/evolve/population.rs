//! The elites: the best of all trials, whatever the population's size is or was.

use super::trial::Trial;

/// Numbers of the `size` fastest trials, the fastest first.
pub fn elites(trials: &[Trial], size: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..trials.len()).collect();
    order.sort_by(|&a, &b| trials[a].us.total_cmp(&trials[b].us).then(a.cmp(&b)));
    order.truncate(size);
    order
}

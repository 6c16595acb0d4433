//! Live progress on a terminal; silence elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

use crate::evolve::{engine::Progress, trial::Refusal};

/// A bar of this many steps.
pub(super) fn bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}");
    // indicatif draws nothing where standard error is no terminal.
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Shows what a run tells.
pub(super) fn show(bar: &ProgressBar, progress: Progress<'_>) {
    match progress {
        Progress::Noise(noise) => {
            bar.inc(1);
            bar.println(format!("noise floor: only ratios below {:.3} can be claimed", noise.claimable()));
        }
        Progress::Generation(generation) => bar.set_message(format!("generation {generation}")),
        Progress::Trial { trial, best_us } => {
            bar.inc(1);
            bar.set_message(format!("best {best_us:.2} us, last {:.2} us", trial.us));
        }
        Progress::Refused(Refusal { variant: Some(candidate), why, .. }) => {
            bar.println(format!("refused {candidate}: {why}"));
        }
        Progress::Refused(Refusal { why, .. }) => bar.println(why),
        Progress::Confirming(trial) => bar.set_message(format!("confirming {:.2} us in a fresh process", trial.us)),
    }
}

//! How often a run claims what is not so: a thousand seeded runs each, with the noise of the committed H100 record.
//!
//! A rate that is nominally 5 % is held to 6.6 %, one of 2.5 % to 3.8 %: of a thousand runs, a method that errs exactly as
//! often as it says stays within in 99 % of all seeds (binomial).
//!
//! What a variant takes is planted. Rounds scatter as the record's A/A samples do around their median, and a subject of a
//! sitting is moved as a whole as [`Sweep::preparations`] of the record are.

use std::{path::Path, sync::OnceLock};

use rayon::prelude::*;
use spec::Variant;

use super::{
    claims::{FIRST, Finding},
    outcome::Outcome,
    settings::Settings,
    strategy::Kind,
    tests::{run_on, space},
};
use crate::{
    device::{Correctness, Samples, replay::Replay},
    measure::statistics,
    record::{
        fixture,
        sweep::{Measurement, Row, Sweep},
    },
};

const RUNS: u64 = 1000;
/// The most of a thousand at a nominal rate of 5 %.
const FIVE_PERCENT: usize = 66;
/// The most of a thousand at a nominal rate of 2.5 %.
const HALF_OF_THAT: usize = 38;

/// Relative noise of a real GPU, as logarithms: of rounds, and of sittings.
struct Noise {
    rounds: Vec<f64>,
    preparations: Vec<f64>,
}

fn measured() -> &'static Noise {
    static NOISE: OnceLock<Noise> = OnceLock::new();
    NOISE.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../records/sweeps/seed-h100.jsonl.zst");
        let record = Sweep::read(&path).unwrap();
        let around = |samples: &Samples| {
            let median = statistics::median(&samples.hot_us);
            samples.hot_us.iter().map(|us| (us / median).ln()).collect::<Vec<_>>()
        };
        let rounds: Vec<f64> = record.noise.iter().flat_map(|(a, b)| [around(a), around(b)].concat()).collect();
        assert!(rounds.len() >= 100, "the record holds {} A/A samples", rounds.len());
        Noise { rounds, preparations: record.preparations() }
    })
}

/// A record of `count` variants of different code that take 10 us each, the first one `planted` times as long, under
/// `times` the measured noise. A run does not begin with the first: it is of the plainest family.
fn record(count: usize, planted: f64, times: f64) -> Sweep {
    let noise = measured();
    let members = fixture::wide().members();
    let variants: Vec<Variant> = members.iter().step_by(members.len() / count).take(count).copied().collect();
    let mut sweep = fixture::from_variants(&variants, 0.0, 1);
    for (i, (_, row)) in sweep.rows.iter_mut().enumerate() {
        let us = if i == 0 { 10.0 * planted } else { 10.0 };
        let round = |off: &f64| us * (times * off).exp();
        let hot_us = noise.rounds.iter().map(round).collect();
        *row = Row {
            sha256: Some(format!("{i}")),
            facts: None,
            result: Ok(Measurement {
                correctness: Correctness { cases: 3, max_abs_error: 1e-4, budget_used: 0.5 },
                samples: Samples { hot_us, cold_us: vec![us], throttled: 0 },
                reference_us: 10.0,
            }),
            variant: row.variant.clone(),
            gpu: None,
        };
    }
    let one = |us: f64| Samples { hot_us: vec![us], ..Samples::default() };
    let label = |off: &f64| (one((times * off * 2f64.sqrt()).exp()), one(1.0));
    sweep.noise = noise.preparations.iter().map(label).collect();
    sweep
}

/// What became of a thousand runs.
#[derive(Debug, Default)]
struct Rates {
    /// The winner was claimed faster than the first incumbent.
    faster: usize,
    /// The choice was found slower than the first incumbent.
    slower: usize,
    /// The interval did not hold the true ratio.
    missed: usize,
    /// The planted variant was claimed faster.
    right: usize,
}

/// A thousand runs that measure every variant of the record.
fn rates(sweep: &Sweep, truth: f64) -> Rates {
    let (device, space) = (Replay::new(sweep), space(sweep));
    let planted = sweep.rows[0].0;
    let run = |seed| {
        let trials = sweep.rows.len() as u32;
        let settings = Settings { seed, trials, strategy: Kind::Random, ..Settings::default() };
        run_on(device.clone(), &mut device.clone(), &space, &settings, None).unwrap()
    };
    (0..RUNS).into_par_iter().map(|seed| Rates::of(&run(seed), &planted, truth)).reduce(Rates::default, Rates::plus)
}

impl Rates {
    fn of(outcome: &Outcome, planted: &Variant, truth: f64) -> Self {
        let variant = |number| outcome.trial(number).unwrap().variant;
        assert_ne!(variant(outcome.incumbent), *planted, "a run must have something to find");
        let claim = outcome.claims.iter().find(|claim| claim.against == FIRST);
        let winner_is_planted = variant(outcome.winner) == *planted;
        let truth = if winner_is_planted { truth } else { 1.0 };
        let faster = claim.is_some_and(|claim| claim.finding == Finding::Faster);
        Self {
            faster: usize::from(faster),
            slower: usize::from(outcome.overturned.is_some()),
            missed: usize::from(claim.is_some_and(|claim| !claim.ratio.contains(truth))),
            right: usize::from(faster && winner_is_planted),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            faster: self.faster + other.faster,
            slower: self.slower + other.slower,
            missed: self.missed + other.missed,
            right: self.right + other.right,
        }
    }

    fn no_claim(&self) -> usize {
        RUNS as usize - self.faster - self.slower
    }
}

/// Nominal: 5 % of the choices are told apart from the first incumbent though they are not different, half of them as
/// faster.
#[test]
fn what_does_not_differ_is_claimed_to_in_at_most_5_percent_of_runs() {
    let rates = rates(&record(6, 1.0, 1.0), 1.0);
    assert!(rates.faster + rates.slower <= FIVE_PERCENT && rates.faster <= HALF_OF_THAT, "{rates:?}");
}

/// Nominal: intervals miss the truth in 5 % of runs. That a winner is claimed is power, which has no nominal rate: 95 %
/// are asked for.
#[test]
fn a_planted_winner_of_3_percent_is_claimed_and_bounded_in_95_percent_of_runs() {
    let rates = rates(&record(8, 0.97, 1.0), 0.97);
    assert!(rates.right >= 950 && rates.missed <= FIVE_PERCENT, "{rates:?}");
}

/// Nominal: 5 % wrong claims, whatever the noise. Where the noise hides what is there, no claim is made.
#[test]
fn at_three_times_the_noise_no_claim_is_likelier_than_a_wrong_one() {
    let same = rates(&record(6, 1.0, 3.0), 1.0);
    assert!(same.faster + same.slower <= FIVE_PERCENT && same.no_claim() > same.faster + same.slower, "{same:?}");
    let hidden = rates(&record(8, 0.995, 3.0), 0.995);
    let wrong = hidden.faster - hidden.right + hidden.slower;
    assert!(wrong <= FIVE_PERCENT && hidden.no_claim() > wrong && hidden.missed <= FIVE_PERCENT, "{hidden:?}");
}

/// Fifty variants that take the same time, under labels that do not tell. The fastest of them is 2 % faster than the
/// slowest by chance; nominal is what it is for one, 2.5 %.
#[test]
fn fifty_aliases_under_blind_labels_give_no_claim() {
    let rates = rates(&record(50, 1.0, 1.0), 1.0);
    assert!(rates.faster <= HALF_OF_THAT && rates.faster + rates.slower <= FIVE_PERCENT, "{rates:?}");
}

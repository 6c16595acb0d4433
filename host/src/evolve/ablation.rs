//! Whether evolution is better than random here: strategies over many seeds, on records where the truth is known.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use spec::{Problem, Variant};

use super::{
    EvolveError,
    earlier::{Earlier, Lesson},
    engine::{Progress, Run, evolve},
    journal::Journal,
    settings::{Cases, Lab, Peers, Settings},
    space::Space,
    strategy::Kind,
};
use crate::{
    device::{Device, Failure, replay::Replay},
    measure::statistics::{self, Interval},
    record::sweep::Sweep,
};

/// Version of the format.
pub const SCHEMA: u32 = 1;
/// A run has arrived once it measured a variant that takes at most this many times the best one's time.
pub const CLOSE: f64 = 1.02;
/// A run that has not arrived goes on to so many times its trials, so that medians exist.
const PATIENCE: u32 = 8;
/// Resamples behind an interval.
const RESAMPLES: usize = 4000;

/// What is compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The strategies.
    pub strategies: Vec<Kind>,
    /// Seeds 0 to this.
    pub seeds: u64,
    /// Trials of a run.
    pub trials: u32,
    /// Elites, and candidates of one generation.
    pub population: u32,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ablation {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was compared.
    pub plan: Plan,
    /// One entry per record.
    pub records: Vec<OnRecord>,
}

/// The strategies on one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnRecord {
    /// The record's file.
    pub record: String,
    /// The problem.
    pub problem: Problem,
    /// GPU, driver and date.
    pub provenance: String,
    /// What strategies that learn knew from before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learnt_from: Vec<Lesson>,
    /// Variants that work.
    pub variants: usize,
    /// Those within 2 % of the best.
    pub close: usize,
    /// Microseconds of the best.
    pub best_us: f64,
    /// Whether the best was chosen by other samples than the ones that say what it takes.
    pub best_measured_again: bool,
    /// Trials until each seed's run arrived, per strategy; `None` if it never did.
    pub arrivals: Vec<(Kind, Vec<Option<u32>>)>,
    /// Median trials of `full` over those of `random`, where both were compared.
    pub full_to_random: Option<Ratio>,
}

/// A ratio of medians.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The ratio with its bootstrap interval over seeds, at level 0.95.
    pub ratio: Interval,
    /// Whether the median run of `random` never arrived: then the ratio is at most this.
    pub at_most: bool,
}

impl OnRecord {
    /// Share of seeds whose run arrived within so many trials.
    pub fn arrived(arrivals: &[Option<u32>], trials: u32) -> f64 {
        let within = arrivals.iter().filter(|arrival| arrival.is_some_and(|arrival| arrival <= trials)).count();
        within as f64 / arrivals.len() as f64
    }

    /// Median trials until arrival, and whether that many never sufficed.
    pub fn median(arrivals: &[Option<u32>], trials: u32) -> (f64, bool) {
        let never = trials * PATIENCE;
        let trials: Vec<f64> = arrivals.iter().map(|arrival| f64::from(arrival.unwrap_or(never))).collect();
        let arrived = arrivals.iter().flatten().count();
        (statistics::median(&trials), 2 * arrived <= arrivals.len())
    }
}

/// Runs the strategies on a record, on all cores; `file` is how reports name it. Those that learn start from `earlier`.
pub fn ablate(file: &str, sweep: &Sweep, plan: &Plan, earlier: &Earlier) -> Result<OnRecord, EvolveError> {
    let device = Replay::new(sweep);
    let truth = sweep.times();
    // Where the fastest were measured again, only they can be the best, by what they took then.
    let again = sweep.again.iter().filter_map(|(variant, _)| truth.get(variant));
    let fastest = |times: &mut dyn Iterator<Item = &f64>| times.fold(f64::INFINITY, |best, us| best.min(*us));
    let best_measured_again = again.clone().count() > 0;
    let best_us = if best_measured_again { fastest(&mut again.clone()) } else { fastest(&mut truth.values()) };
    let close = |us: &f64| *us <= CLOSE * best_us;
    let variants = sweep.rows.iter().map(|(variant, _)| *variant);
    let space = Space::listed(sweep.header.problem, sweep.header.device.limits, variants);
    let mut arrivals = Vec::new();
    for strategy in &plan.strategies {
        let of_seed = |seed| {
            let until = |trials| {
                let settings = Settings {
                    strategy: *strategy,
                    seed,
                    trials,
                    population: plan.population,
                    // Nothing is claimed here.
                    sittings: 6,
                    sitting_rounds: 1,
                    ..Settings::default()
                };
                arrival(&device, &space, &settings, earlier, |variant| truth.get(variant).is_some_and(close))
            };
            // A longer run of the same seed begins with the same trials.
            match until(plan.trials)? {
                Some(arrival) => Ok(Some(arrival)),
                None => until(plan.trials * PATIENCE),
            }
        };
        let found = (0..plan.seeds).into_par_iter().map(of_seed).collect::<Result<Vec<_>, EvolveError>>()?;
        arrivals.push((*strategy, found));
    }
    let of = |kind| arrivals.iter().find(|(strategy, _)| *strategy == kind).map(|(_, arrivals)| arrivals.as_slice());
    Ok(OnRecord {
        record: file.to_owned(),
        problem: sweep.header.problem,
        provenance: sweep.provenance(),
        learnt_from: earlier.lessons().to_vec(),
        variants: truth.len(),
        close: truth.values().filter(|us| close(us)).count(),
        best_us,
        best_measured_again,
        full_to_random: of(Kind::Full).zip(of(Kind::Random)).map(|(full, random)| ratio(full, random, plan.trials)),
        arrivals,
    })
}

/// The trial, from 1, at which a run has arrived.
fn arrival(
    device: &Replay,
    space: &Space,
    settings: &Settings,
    earlier: &Earlier,
    close: impl Fn(&Variant) -> bool,
) -> Result<Option<u32>, EvolveError> {
    let mut ignore = |_: Progress<'_>| {};
    let run = Run {
        settings,
        space,
        source: &mut device.clone(),
        lab: &mut Recorded(device.clone()),
        cases: &Cases { gate: vec![], suite: vec![] },
        earlier,
        deadline: None,
        progress: &mut ignore,
    };
    let outcome = evolve(run, |_| Ok(Journal::unkept()))?;
    Ok(outcome.trials.iter().position(|trial| close(&trial.variant)).map(|at| at as u32 + 1))
}

struct Recorded(Replay);

impl Lab for Recorded {
    fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
        Ok(Box::new(self.0.clone()))
    }

    fn peers(&mut self, _: &Problem) -> Peers {
        Peers::default()
    }
}

fn ratio(full: &[Option<u32>], random: &[Option<u32>], trials: u32) -> Ratio {
    let of = |full: &[Option<u32>], random: &[Option<u32>]| {
        OnRecord::median(full, trials).0 / OnRecord::median(random, trials).0
    };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut resample = |arrivals: &[Option<u32>]| -> Vec<Option<u32>> {
        arrivals.iter().map(|_| arrivals[rng.random_range(0..arrivals.len())]).collect()
    };
    let mut ratios: Vec<f64> = (0..RESAMPLES).map(|_| of(&resample(full), &resample(random))).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((RESAMPLES - 1) as f64 * share).round() as usize];
    Ratio {
        ratio: Interval { low: at(0.025), estimate: of(full, random), high: at(0.975) },
        at_most: OnRecord::median(random, trials).1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{record::fixture, report};

    #[test]
    fn medians_say_when_half_of_the_runs_never_arrived() {
        assert_eq!(OnRecord::median(&[Some(3), Some(9), None], 45), (9.0, false));
        assert_eq!(OnRecord::median(&[Some(3), None, None], 45), (360.0, true));
        assert_eq!(OnRecord::median(&[Some(3), Some(6)], 45), (4.5, false));
        assert_eq!(OnRecord::arrived(&[Some(3), Some(46), None, None], 45), 0.25);
        let ratio = ratio(&[Some(10); 9], &[None; 9], 5);
        assert_eq!((ratio.ratio.low, ratio.ratio.high, ratio.at_most), (0.25, 0.25, true));
    }

    #[test]
    fn the_best_is_judged_by_its_later_measurements() {
        let mut sweep = fixture::sweep(60, 0.01, 5);
        let plan = Plan { strategies: vec![Kind::Random, Kind::Full], seeds: 4, trials: 10, population: 5 };
        let first = ablate("R", &sweep, &plan, &Earlier::default()).unwrap();
        assert!(!first.best_measured_again && first.close >= 1);
        let times = sweep.times();
        let (variant, us) = times.iter().min_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        let (_, mut row) = sweep.rows.iter().find(|(other, _)| other == variant).unwrap().clone();
        row.result.as_mut().unwrap().samples.hot_us.fill(1.5 * us);
        sweep.again.push((*variant, row));
        let second = ablate("R", &sweep, &plan, &Earlier::default()).unwrap();
        assert!(second.best_measured_again && (second.best_us / first.best_us - 1.5).abs() < 1e-9);
        assert_eq!(second, ablate("R", &sweep, &plan, &Earlier::default()).unwrap());
        let ablation = Ablation { schema: SCHEMA, plan, records: vec![first, second] };
        let page = report::ablation::page(&ablation);
        assert!(page.matches("</svg>").count() == 2 && !page.contains("NaN") && !page.contains("http"), "{page}");
        let table = report::ablation::table(&ablation);
        assert!(table.contains("full : random") && table.contains("the fastest were measured again"), "{table}");
    }
}

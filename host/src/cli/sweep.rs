//! `host sweep`.

use std::{
    num::NonZero,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use builder::Part;
use rand::{
    SeedableRng,
    seq::{IndexedRandom, SliceRandom},
};
use rand_chacha::ChaCha8Rng;
use spec::{Family, Problem, Variant};

use super::{choice::Choice, place::Place, progress};
use crate::{
    evolve::{
        space::Space,
        sweep::{Plan, Summary, sweep},
    },
    record::trials::Trials,
};

/// Arguments of `host sweep`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to compute, for example b1-h8-s512-d64-f16.
    #[arg(long, default_value_t = Problem::SEED, value_parser = super::problem)]
    problem: Problem,
    /// Measure so many variants of each family, drawn by the seed.
    #[arg(long, value_name = "N", required_unless_present = "exhaustive")]
    sample: Option<usize>,
    /// Measure every variant there is code for.
    #[arg(long, conflicts_with = "sample")]
    exhaustive: bool,
    /// Only variants of this family.
    #[arg(long)]
    family: Option<String>,
    /// Only a part of the space, by genes that are held to some values, for example "block_order=0 mma.tile_kv=64,128".
    #[arg(long, value_name = "GENES", default_value_t, hide_default_value = true)]
    only: Part,
    /// Seed of the sample and of the order of subjects.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Samples per variant.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Where it runs: auto or cuda:N; replay and simt for a try.
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// Numbers of the GPUs that are measured on at the same time, for example 0,1; with a replay or simt, that many of them.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    devices: Vec<u32>,
    /// A store of compiled kernels that was filled elsewhere.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Begin no further batch after so many seconds; a later call with the same arguments goes on.
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// Measure nothing: share the variants out to so many files for `host work`, trials-0.json and so on in the folder that
    /// --out names.
    #[arg(long, value_name = "FILES", conflicts_with = "time_limit")]
    split: Option<NonZero<usize>>,
    /// The record, for example records/sweeps/seed-h100.jsonl.zst.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs it.
pub(super) fn run(args: Args) -> Result<()> {
    ensure!(args.rounds >= 6, "--rounds is {}; at least 6 are needed for an interval", args.rounds);
    let deadline = args.time_limit.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let family = args.family.as_deref().map(family).transpose()?;
    let mut place = Place::open(&args.device, &args.devices, &args.problem, args.store.as_deref())?;
    eprintln!("{}", place.introduction);
    let (variants, part) = part(&place.space, family, &args.only, args.sample, args.seed);
    ensure!(!variants.is_empty(), "no variant of {} that is asked for can run here", args.problem);

    if let Some(files) = args.split {
        let files = Trials::share_out(args.problem, &part, args.rounds, args.seed, &variants, files);
        let path = |number: usize| args.out.join(format!("trials-{number}.json"));
        let beyond = path(files.len());
        ensure!(!beyond.exists(), "{}: it is of another split; name another folder", beyond.display());
        for (number, trials) in files.iter().enumerate() {
            trials.write(&path(number))?;
        }
        println!("{}: {} variants in {} files", args.out.display(), variants.len(), files.len());
        return Ok(());
    }
    let bar = progress::bar(variants.len() as u64);
    let plan = Plan {
        space: &place.space,
        variants: &variants,
        part,
        cases: &place.cases,
        rounds: args.rounds,
        seed: args.seed,
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        again: true,
        deadline,
        out: &args.out,
    };
    let summary = sweep(&plan, place.source.as_mut(), place.lab.as_mut(), &mut |row| {
        bar.inc(1);
        if let Err(failure) = &row.result {
            bar.println(format!("{}: {failure}", row.variant));
        }
    })?;
    bar.finish_and_clear();
    let Summary { measured, failed, left, took } = summary;
    let seconds = took.as_secs_f64();
    println!("{}: {measured} variants measured, {failed} failed, {left} left; {seconds:.1} s", args.out.display());
    Ok(())
}

/// The variants to measure and what they are, in words.
fn part(
    space: &Space,
    family: Option<Family>,
    only: &Part,
    sample: Option<usize>,
    seed: u64,
) -> (Vec<Variant>, String) {
    let mut variants = Vec::new();
    let mut words = Vec::new();
    for of in family.map_or_else(|| space.families(), |family| vec![family]) {
        let all: Vec<Variant> =
            space.members().iter().filter(|v| v.family() == of && only.contains(v)).copied().collect();
        match sample {
            Some(count) => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                variants.extend(all.sample(&mut rng, count));
                words.push(format!("{} of {} {of} variants by seed {seed}", count.min(all.len()), all.len()));
            }
            None => {
                words.push(format!("all {} {of} variants with code at hand", all.len()));
                variants.extend(all);
            }
        }
    }
    // What is measured when the time is up should be a fair share of everything.
    variants.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let only = if only.is_everything() { String::new() } else { format!("; only {only}") };
    (variants, words.join(", ") + &only)
}

fn family(name: &str) -> Result<Family> {
    let names = Family::ALL.map(Family::name).join(", ");
    let found = Family::ALL.into_iter().find(|family| family.name() == name);
    found.with_context(|| format!("--family is {name}; families are {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture;

    #[test]
    fn a_part_is_drawn_by_family_and_named() {
        let whole = Part::default();
        let (variants, words) = part(fixture::wide(), None, &whole, Some(7), 3);
        assert_eq!(variants.len(), 7 * fixture::wide().families().len());
        assert!(words.starts_with("7 of ") && words.contains("mma variants by seed 3"), "{words}");
        let (all, words) = part(fixture::wide(), Some(Family::Mma), &whole, None, 3);
        assert!(all.iter().all(|variant| variant.family() == Family::Mma) && words.starts_with("all "));
        assert_eq!(part(fixture::wide(), None, &whole, Some(7), 3).0, variants);
        let held: Part = "block_order=0".parse().unwrap();
        let (fewer, words) = part(fixture::wide(), Some(Family::Mma), &held, None, 3);
        assert!(
            !fewer.is_empty() && fewer.len() < all.len() && words.ends_with("at hand; only block_order=0"),
            "{words}"
        );
    }

    #[test]
    fn an_unknown_family_is_refused_with_those_there_are() {
        let error = family("warp").unwrap_err().to_string();
        assert!(error.starts_with("--family is warp; families are tiled, mma"), "{error}");
    }
}

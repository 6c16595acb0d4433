//! A record made up for tests: times follow a formula, noise is heavy-tailed.

use std::{collections::HashMap, sync::OnceLock};

use rand::{SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StudentT};
use spec::{DeviceLimits, Family, Gene, Problem, Variant};

use super::sweep::{Header, Measurement, Row, SCHEMA, Sweep};
use crate::{
    device::{Correctness, Description, Failure, Kind, Samples},
    evolve::{
        settings::Peers,
        source::Facts,
        space::Space,
        trial::{Identity, Operator, Trial},
    },
    measure::statistics::Interval,
};

/// Some thousand variants of the seed shape on an H100; the whole space takes seconds to list in a debug build.
pub(crate) fn wide() -> &'static Space {
    static WIDE: OnceLock<Space> = OnceLock::new();
    WIDE.get_or_init(|| {
        let mut rng = ChaCha8Rng::seed_from_u64(17);
        let mut draw = |family: Family| {
            family.domains().iter().fold(Variant::smallest(family), |variant, domain| {
                let value = domain.values.choose(&mut rng).expect("a domain has values");
                variant.with(domain.gene, *value).expect("the domain has the value")
            })
        };
        let families = [Family::Tiled, Family::Mma, Family::Wgmma];
        let drawn: Vec<Variant> = (0..60_000).map(|i| draw(families[i % families.len()])).collect();
        Space::listed(Problem::SEED, DeviceLimits::H100, drawn)
    })
}

/// The true time of a variant in microseconds.
pub(crate) fn true_us(variant: &Variant) -> f64 {
    let gene = |gene| f64::from(variant.get(gene).unwrap_or(0));
    let family = if variant.family() == Family::Tiled { 60.0 } else { 12.0 };
    let tiles = (gene(Gene::TileQ) / 64.0).log2().abs() * 0.25 + (gene(Gene::TileKv) / 64.0).log2().abs() * 0.12;
    let stages = (gene(Gene::Stages) - 3.0).abs() * 0.05;
    let split = if gene(Gene::KvSplit) == 2.0 && gene(Gene::Warps) == 8.0 { -0.15 } else { 0.0 };
    let small = 0.01 * gene(Gene::BlockOrder) + 0.02 * gene(Gene::SharedPad) - 0.03 * gene(Gene::LazyRescale);
    family * (tiles + stages + split + small).exp()
}

/// A record of `count` variants of the seed shape, with relative noise of `noise` per sample.
pub(crate) fn sweep(count: usize, noise: f64, seed: u64) -> Sweep {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut variants: Vec<Variant> = wide().members().sample(&mut rng, count).copied().collect();
    for family in wide().families() {
        variants.extend(wide().central(family));
    }
    from_variants(&variants, noise, seed)
}

/// A variant that no problem allows: 64 query rows are not shared out among 16 warps.
pub(crate) fn illegal() -> Variant {
    let central = wide().central(Family::Mma).expect("the space holds both families");
    let with = |variant: Variant, gene, value| variant.with(gene, value).expect("the domain has the value");
    with(with(with(central, Gene::Warps, 16), Gene::KvSplit, 1), Gene::TileQ, 64)
}

/// A record of these variants.
pub(crate) fn from_variants(variants: &[Variant], noise: f64, seed: u64) -> Sweep {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let student = StudentT::new(4.0).expect("four degrees of freedom are allowed");
    let mut draw = |us: f64, n: usize| -> Vec<f64> {
        (0..n).map(|_| us * f64::exp(noise * student.sample(&mut rng) / 2f64.sqrt())).collect()
    };
    let mut row = |i: usize, variant: &Variant| {
        let us = true_us(variant);
        let result = match i % 29 {
            7 => Err(Failure::Wrong { case: "gate".into(), reason: "O[0] is 1, expected 2".into() }),
            11 => Err(Failure::Build("error: too many registers".into())),
            _ => Ok(Measurement {
                correctness: Correctness { cases: 3, max_abs_error: 2e-4, budget_used: 0.5 },
                samples: Samples { hot_us: draw(us, 40), cold_us: draw(us * 1.5, 40), throttled: 0 },
                reference_us: 12.0,
            }),
        };
        let spills = if i % 29 == 13 { 320 } else { 0 };
        let kernel = variant.kernel(&Problem::SEED).to_string();
        Row {
            variant: variant.to_string(),
            sha256: (!matches!(result, Err(Failure::Build(_)))).then(|| kernel.clone()),
            facts: Some(facts(spills)),
            result,
            gpu: None,
        }
    };
    let mut rows: HashMap<Variant, Row> = HashMap::new();
    for (i, variant) in variants.iter().enumerate() {
        rows.entry(*variant).or_insert_with(|| row(i, variant));
    }
    let mut rows: Vec<(Variant, Row)> = rows.into_iter().collect();
    rows.sort_by_key(|(variant, _)| *variant);
    Sweep {
        header: Header {
            schema: SCHEMA,
            problem: Problem::SEED,
            device: Description {
                kind: Kind::Cuda,
                name: "Test GPU".into(),
                uuid: "GPU-0".into(),
                driver: "1.0".into(),
                limits: DeviceLimits::H100,
            },
            toolchain: "test".into(),
            date: "2000-01-01".into(),
            part: format!("{} variants", rows.len()),
            planned: rows.len(),
            reference: rows[0].0,
        },
        rows,
        unknown: 0,
        again: vec![],
        noise: vec![],
        peers: Peers::default(),
    }
}

fn facts(spills: u32) -> Facts {
    Facts {
        ptxas: "13".into(),
        registers: 128,
        stack_bytes: spills,
        spill_store_bytes: spills,
        spill_load_bytes: spills,
        shared_bytes: 0,
        notes: vec![],
        machine: None,
    }
}

/// A trial of a variant that took this long.
pub(crate) fn trial(number: usize, variant: Variant, us: f64) -> Trial {
    let geometry = wide().admit(&variant).expect("members are legal");
    Trial {
        number,
        generation: 0,
        variant,
        operator: Operator::Draw,
        parents: vec![],
        identity: Identity { sha256: variant.to_string(), geometry },
        facts: Some(facts(0)),
        correctness: Correctness { cases: 3, max_abs_error: 2e-4, budget_used: 0.5 },
        suite: false,
        ratio: Interval { low: 1.0, estimate: 1.0, high: 1.0 },
        us,
        gpu: None,
    }
}

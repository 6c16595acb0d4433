//! A recorded sweep as a device: every time it gives was measured once.

use std::{collections::HashMap, sync::Arc};

use rand::{SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use spec::Variant;

use super::{Code, Correctness, Description, Device, Failure, Kind, Samples, Subject, TimingPlan};
use crate::{
    cases::Case,
    evolve::source::{Compiled, Source},
    record::sweep::{Measurement, Row, Sweep},
};

/// Draws times from a record.
///
/// A round's time is one of the variant's recorded samples, chosen by the plan's seed, the variant, its place among the
/// subjects of the same variant, and the round: never by what was asked before. Samples are brought to one scale by the
/// reference that each batch of the sweep was interleaved with. All rounds of a subject are moved together by as much as
/// being prepared anew moved the reference, see [`Sweep::preparations`].
#[derive(Clone, Debug)]
pub struct Replay {
    description: Description,
    rows: Arc<HashMap<Variant, Row>>,
    reference_us: f64,
    preparations: Arc<[f64]>,
    toolchain: String,
}

impl Replay {
    /// A device that knows what the record knows.
    pub fn new(sweep: &Sweep) -> Self {
        Self {
            description: Description { kind: Kind::Replay, ..sweep.header.device.clone() },
            rows: Arc::new(sweep.rows.iter().cloned().collect()),
            reference_us: sweep.reference_us(),
            preparations: sweep.preparations().into(),
            toolchain: sweep.header.toolchain.clone(),
        }
    }

    fn row(&self, subject: &Subject) -> Result<&Row, Failure> {
        self.rows.get(&subject.variant).ok_or(Failure::Unrecorded)
    }

    fn measurement(&self, subject: &Subject) -> Result<&Measurement, Failure> {
        self.row(subject)?.result.as_ref().map_err(Clone::clone)
    }
}

impl Device for Replay {
    fn description(&self) -> &Description {
        &self.description
    }

    /// What the record says of the variant's outputs, whatever the cases are: nothing runs here.
    fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
        let recorded = &self.measurement(subject)?.correctness;
        Ok(Correctness { cases: cases.len() as u32, ..recorded.clone() })
    }

    fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
        let mut seen: HashMap<Variant, u32> = HashMap::new();
        subjects
            .iter()
            .map(|subject| {
                let Measurement { samples, reference_us, .. } = self.measurement(subject)?;
                let place = seen.entry(subject.variant).or_default();
                *place += 1;
                let mut rng = noise(plan.seed, &subject.variant, *place);
                let moved = self.preparations.choose(&mut rng).map_or(1.0, |moved| moved.exp());
                let scale = self.reference_us / reference_us * moved;
                let mut draw = |from: &[f64]| -> Vec<f64> {
                    (0..plan.rounds).filter_map(|_| from.choose(&mut rng)).map(|time| time * scale).collect()
                };
                let hot_us = draw(&samples.hot_us);
                let cold_us = if plan.cold { draw(&samples.cold_us) } else { vec![] };
                Ok(Samples { hot_us, cold_us, throttled: 0 })
            })
            .collect()
    }
}

fn noise(seed: u64, variant: &Variant, place: u32) -> ChaCha8Rng {
    let digest = Sha256::new().chain_update(format!("{seed} {variant} {place}")).finalize();
    let mut start = [0; 32];
    start.copy_from_slice(&digest);
    ChaCha8Rng::from_seed(start)
}

impl Source for Replay {
    fn toolchain(&self) -> String {
        self.toolchain.clone()
    }

    /// What the record says of the variants' code; none is made.
    fn compile(&mut self, variants: &[Variant]) -> Vec<Result<Compiled, Failure>> {
        let recorded = |variant: &Variant| {
            let row = self.rows.get(variant).ok_or(Failure::Unrecorded)?;
            match (&row.sha256, &row.result) {
                (Some(sha256), _) => {
                    Ok(Compiled { code: Code::Recorded, sha256: sha256.clone(), facts: row.facts.clone() })
                }
                (None, Err(failure)) => Err(failure.clone()),
                (None, Ok(_)) => Err(Failure::Build("the record holds no hash of its code".into())),
            }
        };
        variants.iter().map(recorded).collect()
    }
}

//! What a run has learnt: what each gene is worth, and what to keep away from.

use std::{collections::BTreeMap, sync::OnceLock};

use serde::{Deserialize, Serialize};
use spec::{Family, Gene, Variant};

use super::{
    budget::Reason,
    candidate::Candidate,
    earlier::{Earlier, Models},
    surrogate::{Surrogate, eased},
    trial::{Refusal, Trial},
};
use crate::measure::statistics::{self, Interval};

/// Refusals that make a rule.
const REFUSALS_FOR_A_RULE: u32 = 3;
/// Two-sided 95 % of a normal distribution.
const Z95: f64 = 1.96;

/// What one value of a gene is worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The family.
    pub family: Family,
    /// The gene.
    pub gene: Gene,
    /// Its value.
    pub value: u16,
    /// Trials that had it.
    pub trials: u32,
    /// Time relative to the average over the gene's domain, all other genes averaged over theirs; at level 0.95 of the model.
    pub ratio: Interval,
}

/// A lesson that steers the next proposals, or explains the last ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// The family it is about.
    pub family: Family,
    /// Gene and value to avoid; none if the rule only explains.
    pub avoid: Option<(Gene, u16)>,
    /// What is believed and why, with numbers.
    pub text: String,
}

impl Rule {
    fn speaks_against(&self, variant: &Variant) -> bool {
        let has = |(gene, value)| variant.get(gene) == Some(value);
        self.family == variant.family() && self.avoid.is_some_and(has)
    }
}

/// Everything learnt so far.
#[derive(Clone, Debug)]
pub struct Insights {
    /// What to avoid, and why.
    pub rules: Vec<Rule>,
    /// Variants' log times, known up to this standard deviation.
    observations: Vec<(Variant, f64)>,
    noise: f64,
    /// What earlier measurements say.
    elsewhere: Option<Models>,
    surrogate: OnceLock<Surrogate>,
}

impl Insights {
    /// Learns from the trials and refusals so far, given the relative noise of an estimate, and from what is known from
    /// before.
    pub fn learn(trials: &[Trial], refusals: &[Refusal], noise: f64, earlier: &Earlier) -> Self {
        let observations: Vec<(Variant, f64)> = trials.iter().map(|trial| (trial.variant, trial.us.ln())).collect();
        let measured: Vec<Variant> = trials.iter().map(|trial| trial.variant).collect();
        // What a rewritten source does says nothing of the genes.
        let failures = refusals.iter().filter_map(|refusal| match refusal.variant {
            Some(Candidate { variant, edit: None }) => Some((variant, refusal.reason)),
            _ => None,
        });
        let mut rules = refused_values(&measured, &failures.collect::<Vec<_>>());
        let holds = |rule: &&Rule| {
            let has = |variant: &Variant| rule.speaks_against(variant);
            !measured.iter().any(has) && rules.iter().all(|own| (own.family, own.avoid) != (rule.family, rule.avoid))
        };
        let known: Vec<Rule> = earlier.rules().iter().filter(holds).cloned().collect();
        rules.extend(known);
        rules.extend(register_rules(trials));
        Self { rules, observations, noise, elsewhere: earlier.models().cloned(), surrogate: OnceLock::new() }
    }

    /// Whether there is something to go by before anything is measured.
    pub fn know_of_earlier(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// The model that proposals go by; fitted when it is first asked for.
    pub fn surrogate(&self) -> &Surrogate {
        self.surrogate.get_or_init(|| {
            let elsewhere = self.elsewhere.as_ref().map(|models| &models.eased);
            Surrogate::fit(&eased(&self.observations), self.noise, elsewhere)
        })
    }

    /// Log time of the fastest variant so far.
    pub fn fastest(&self) -> f64 {
        self.observations.iter().map(|(_, y)| *y).fold(f64::INFINITY, f64::min)
    }

    /// Whether a rule speaks against a variant.
    pub fn advises_against(&self, variant: &Variant) -> bool {
        self.rules.iter().any(|rule| rule.speaks_against(variant))
    }

    /// What every value that was tried is worth, the clearest effects first.
    pub fn effects(&self, trials: &[Trial]) -> Vec<Effect> {
        let elsewhere = self.elsewhere.as_ref().map(|models| &models.plain);
        let model = Surrogate::fit(&self.observations, self.noise, elsewhere);
        let mut effects = Vec::new();
        for family in Family::ALL {
            for domain in family.domains() {
                for (i, &value) in domain.values.iter().enumerate() {
                    let of_family = trials.iter().filter(|trial| trial.variant.family() == family);
                    let tried = of_family.filter(|trial| trial.variant.get(domain.gene) == Some(value)).count();
                    if tried > 0 {
                        let effect = model.effect(family, domain, i);
                        let at = |z: f64| (effect.mean + z * effect.deviation).exp();
                        let ratio = Interval { low: at(-Z95), estimate: at(0.0), high: at(Z95) };
                        effects.push(Effect { family, gene: domain.gene, value, trials: tried as u32, ratio });
                    }
                }
            }
        }
        effects.sort_by(|a, b| b.ratio.estimate.ln().abs().total_cmp(&a.ratio.estimate.ln().abs()));
        effects
    }
}

/// Values that failed for what they are, several times, and were never measured.
pub(super) fn refused_values(measured: &[Variant], failures: &[(Variant, Reason)]) -> Vec<Rule> {
    let mut counts: BTreeMap<(Family, Gene, u16), (u32, Reason)> = BTreeMap::new();
    let blamed = |reason| {
        matches!(reason, Reason::Build | Reason::Gate | Reason::Wrong | Reason::Launch | Reason::Fault | Reason::Hang)
    };
    for (variant, reason) in failures.iter().filter(|(_, reason)| blamed(*reason)) {
        for (gene, value) in variant.genes() {
            counts.entry((variant.family(), gene, value)).or_insert((0, *reason)).0 += 1;
        }
    }
    let measured = |family, gene, value| {
        measured.iter().any(|variant| variant.family() == family && variant.get(gene) == Some(value))
    };
    counts
        .into_iter()
        .filter(|((family, gene, value), (count, _))| {
            *count >= REFUSALS_FOR_A_RULE && !measured(*family, *gene, *value)
        })
        .map(|((family, gene, value), (count, reason))| Rule {
            family,
            avoid: Some((gene, value)),
            text: format!("{family}: avoid {}={value}: {count} of {count} {}", gene.name(), reason.name()),
        })
        .collect()
}

/// Whether kernels with more registers than the family's median are slower or faster.
fn register_rules(trials: &[Trial]) -> Vec<Rule> {
    let rule = |family: Family| {
        let of_family: Vec<(f64, f64)> = trials
            .iter()
            .filter(|trial| trial.variant.family() == family)
            .filter_map(|trial| Some((f64::from(trial.facts.as_ref()?.registers), trial.us)))
            .collect();
        let median = statistics::median(&of_family.iter().map(|(registers, _)| *registers).collect::<Vec<_>>());
        let side = |above: bool| -> Vec<f64> {
            of_family.iter().filter(|(registers, _)| (*registers > median) == above).map(|(_, us)| *us).collect()
        };
        let ratio = statistics::unpaired(&side(true), &side(false), 0.95).ok()?;
        (!ratio.contains(1.0)).then(|| Rule {
            family,
            avoid: None,
            text: format!(
                "{family}: more than {median} registers go with {:.2}x the time ({:.2} to {:.2})",
                ratio.estimate, ratio.low, ratio.high
            ),
        })
    };
    Family::ALL.into_iter().filter_map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evolve::trial::{Refusal, Trial},
        record::fixture,
    };

    fn trials() -> Vec<Trial> {
        let members = fixture::wide().members();
        let of = |(number, variant): (usize, &Variant)| fixture::trial(number, *variant, fixture::true_us(variant));
        members.iter().rev().step_by(37).take(60).enumerate().map(of).collect()
    }

    #[test]
    fn effects_name_the_genes_that_matter() {
        let trials = trials();
        let effects = Insights::learn(&trials, &[], 0.005, &Earlier::default()).effects(&trials);
        let matters = [Gene::TileQ, Gene::TileKv, Gene::Stages, Gene::KvSplit, Gene::Warps];
        let top: Vec<Gene> = effects.iter().take(4).map(|effect| effect.gene).collect();
        assert!(top.iter().filter(|gene| matters.contains(gene)).count() >= 3, "{top:?}");
        assert!(effects.iter().all(|effect| effect.ratio.low < effect.ratio.high && effect.trials > 0));
    }

    #[test]
    fn a_value_that_always_fails_is_avoided_until_it_works() {
        let (bad, good): (Vec<Trial>, Vec<Trial>) =
            trials().into_iter().partition(|trial| trial.variant.get(Gene::ExpPoly) == Some(4));
        let refusals: Vec<Refusal> = bad
            .iter()
            .map(|trial| Refusal {
                generation: 1,
                variant: Some(trial.candidate()),
                reason: Reason::Gate,
                why: "spills".into(),
            })
            .collect();
        let insights = Insights::learn(&good, &refusals, 0.005, &Earlier::default());
        assert!(insights.advises_against(&bad[0].variant) && !insights.advises_against(&good[0].variant));
        assert!(insights.rules[0].text.starts_with("mma: avoid exp_poly=4: "), "{}", insights.rules[0].text);
        let worked: Vec<Trial> = good.iter().chain(&bad[..1]).cloned().collect();
        assert!(!Insights::learn(&worked, &refusals, 0.005, &Earlier::default()).advises_against(&bad[0].variant));
    }
}

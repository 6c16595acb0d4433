//! Which kernels a verb is about.

use anyhow::{Result, anyhow, ensure};
use builder::space;
use clap::Args;
use spec::{DeviceLimits, Family, Kernel, Problem, Sm};

/// Flags that choose kernels.
#[derive(Args, Clone)]
pub(crate) struct Selection {
    /// Targets: sm_80, sm_89, sm_90a. All of them if none is given.
    #[arg(long, value_parser = sm)]
    sm: Vec<Sm>,
    /// Kernel families: tiled, mma. All of them if none is given.
    #[arg(long, value_parser = family)]
    family: Vec<Family>,
    /// The problem whose search space is meant, e.g. b1-h8-s512-d64-f16.
    #[arg(long, value_name = "PROBLEM", default_value_t = Problem::SEED)]
    space: Problem,
    /// Kernels of each family and target, drawn evenly from the space. The whole space if not given.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Seed of the draw.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Selection {
    /// So many kernels of each family and target from the space of the seed shape.
    pub(crate) fn sample(count: usize) -> Self {
        Self { sm: Vec::new(), family: Vec::new(), space: Problem::SEED, sample: Some(count), seed: 1 }
    }

    /// The same selection, with a sample of this size unless it says how many it wants.
    pub(crate) fn or_sample(&self, count: usize) -> Self {
        Self { sample: Some(self.sample.unwrap_or(count)), ..self.clone() }
    }

    pub(crate) fn problem(&self) -> &Problem {
        &self.space
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn targets(&self) -> Vec<Sm> {
        if self.sm.is_empty() { Sm::ALL.to_vec() } else { self.sm.clone() }
    }

    pub(crate) fn families(&self) -> Vec<Family> {
        if self.family.is_empty() { Family::ALL.to_vec() } else { self.family.clone() }
    }

    /// The kernels for one target, in order.
    pub(crate) fn kernels(&self, sm: Sm) -> Result<Vec<Kernel>> {
        let limits = DeviceLimits::of(sm);
        let mut kernels = Vec::new();
        for family in self.families().into_iter().filter(|family| family.runs_on(sm)) {
            let all = space::kernels(&self.space, family, &limits);
            kernels.extend(match self.sample {
                Some(count) => space::sample(all, count, self.seed),
                None => all,
            });
        }
        ensure!(!kernels.is_empty(), "no variant of {:?} can run {} on {sm}", self.families(), self.space);
        Ok(kernels)
    }
}

fn sm(text: &str) -> Result<Sm> {
    let known = Sm::ALL.map(Sm::name).join(", ");
    Sm::ALL.into_iter().find(|sm| sm.name() == text).ok_or_else(|| anyhow!("known targets are {known}"))
}

fn family(text: &str) -> Result<Family> {
    let known = Family::ALL.map(Family::name).join(", ");
    Family::ALL.into_iter().find(|family| family.name() == text).ok_or_else(|| anyhow!("known families are {known}"))
}

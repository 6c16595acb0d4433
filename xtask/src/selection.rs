//! Which kernels a verb is about.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use builder::{Part, space};
use clap::Args;
use spec::{DeviceLimits, Family, Kernel, Problem, Sm};

/// Flags that choose kernels.
#[derive(Args, Clone)]
pub(crate) struct Selection {
    /// Targets: sm_80, sm_89, sm_90a. All of them if none is given.
    #[arg(long, value_parser = sm)]
    sm: Vec<Sm>,
    /// Kernel families: tiled, mma, wgmma. All of them if none is given.
    #[arg(long, value_parser = family)]
    family: Vec<Family>,
    /// The problem whose search space is meant, e.g. b1-h8-s512-d64-f16; may be given several times.
    #[arg(long, value_name = "PROBLEM", default_values_t = [Problem::SEED])]
    space: Vec<Problem>,
    /// Only a part of the space, by genes that are held to some values, e.g. "block_order=0 mma.tile_kv=64,128".
    #[arg(long, value_name = "GENES", default_value_t, hide_default_value = true)]
    only: Part,
    /// Kernels of each family, problem and target, drawn evenly from the space. The whole space if not given.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Also the kernels named in this file, one per line in their text form, where a target can run them.
    #[arg(long, value_name = "FILE")]
    kernels: Option<PathBuf>,
    /// Also the kernels that problems which nobody measured fall back to, for every head_dim and dtype.
    #[arg(long)]
    defaults: bool,
    /// Seed of the draw.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Selection {
    /// So many kernels of each family and target from the spaces of the seed shape and of a step of decoding.
    pub(crate) fn sample(count: usize) -> Self {
        Self {
            sm: Vec::new(),
            family: Vec::new(),
            space: vec![Problem::SEED, Problem::DECODE],
            only: Part::default(),
            sample: Some(count),
            kernels: None,
            defaults: false,
            seed: 1,
        }
    }

    /// The same selection, with a sample of this size unless it says how many it wants.
    pub(crate) fn or_sample(&self, count: usize) -> Self {
        Self { sample: Some(self.sample.unwrap_or(count)), ..self.clone() }
    }

    /// The selection for a catalog: a sample of this size unless it says how many it wants, and the defaults.
    pub(crate) fn for_catalog(&self, count: usize) -> Self {
        Self { defaults: true, ..self.or_sample(count) }
    }

    pub(crate) fn problems(&self) -> &[Problem] {
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

    fn family_names(&self) -> String {
        self.families().iter().map(Family::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The kernels for one target, in order.
    pub(crate) fn kernels(&self, sm: Sm) -> Result<Vec<Kernel>> {
        let limits = DeviceLimits::of(sm);
        let families = || self.families().into_iter().filter(|family| family.runs_on(sm));
        // A kernel without a family is left out by no choice of families.
        let chosen = |kernel: &Kernel| kernel.family().is_none_or(|of| families().any(|family| family == of));
        let mut kernels = BTreeSet::new();
        for problem in &self.space {
            let spaces: Vec<_> =
                families().map(|family| space::kernels(problem, family, &limits, &self.only)).collect();
            let can_run = spaces.iter().any(|all| !all.is_empty());
            let part = if self.only.is_everything() { String::new() } else { format!(" with {}", self.only) };
            ensure!(can_run, "no variant of {}{part} can run {problem} on {sm}", self.family_names());
            kernels.extend(spaces.into_iter().flat_map(|all| match self.sample {
                Some(count) => space::sample(all, count, self.seed),
                None => all,
            }));
        }
        if self.defaults {
            kernels.extend(space::defaults(&limits).into_iter().filter(chosen));
        }
        if let Some(file) = &self.kernels {
            kernels.extend(named(file)?.into_iter().filter(|kernel| kernel.runs_on(sm) && chosen(kernel)));
        }
        Ok(kernels.into_iter().collect())
    }
}

/// The kernels a file names; empty lines are skipped.
fn named(file: &Path) -> Result<Vec<Kernel>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let kernel = |(i, line): (usize, &str)| {
        line.trim().parse::<Kernel>().with_context(|| format!("{}, line {}: `{line}`", file.display(), i + 1))
    };
    lines.map(kernel).collect()
}

fn sm(text: &str) -> Result<Sm> {
    let known = Sm::ALL.map(Sm::name).join(", ");
    Sm::ALL.into_iter().find(|sm| sm.name() == text).ok_or_else(|| anyhow!("known targets are {known}"))
}

fn family(text: &str) -> Result<Family> {
    let known = Family::ALL.map(Family::name).join(", ");
    Family::ALL.into_iter().find(|family| family.name() == text).ok_or_else(|| anyhow!("known families are {known}"))
}

#[cfg(test)]
mod tests {
    use spec::Variant;

    use super::*;

    #[test]
    fn named_kernels_come_on_top_of_the_sample() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kernels");
        let wide = Problem::new(1, 1, 1, 128, spec::Dtype::Bf16);
        let named = Variant::smallest(Family::Tiled).kernel(&wide);
        std::fs::write(&file, format!("{named}\n\n")).unwrap();
        let mut selection = Selection { family: vec![Family::Tiled], ..Selection::sample(5) };
        assert_eq!(selection.kernels(Sm::Sm80).unwrap().len(), 10, "of two problems");
        selection.kernels = Some(file.clone());
        assert!(selection.kernels(Sm::Sm80).unwrap().contains(&named));
        assert_eq!(selection.kernels(Sm::Sm80).unwrap().len(), 11);

        std::fs::write(&file, format!("{named}\ntiled:f16\n")).unwrap();
        let error = format!("{:#}", selection.kernels(Sm::Sm80).unwrap_err());
        let expected = "line 2: `tiled:f16`: a kernel reads family:dtype:DQKxDV:gene=value,... \
                        or family:dtype:DQKxDV+features:gene=value,...";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn a_problem_that_no_variant_can_run_is_named() {
        let selection = Selection { space: vec![Problem::new(1, 1, 1, 12, spec::Dtype::F16)], ..Selection::sample(1) };
        let error = selection.kernels(Sm::Sm80).unwrap_err().to_string();
        assert!(
            error.starts_with("no variant of tiled, mma, wgmma, decode can run b1-hq1-hk1-sq1-sk1-dqk12-dv12-f16"),
            "{error}"
        );
    }
}

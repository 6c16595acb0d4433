//! Checks on compiled kernels that need no GPU: the compiler gate, and genes that change nothing.

use std::collections::BTreeMap;

use spec::{DeviceLimits, Domain, Effect, Family, Gene, Kernel, Problem, Sm, Variant, legal};

use crate::{BuildError, Library, PtxArtifact, space};

/// Registers of one multiprocessor of every target here.
const REGISTERS_PER_SM: u32 = 65_536;

/// What stands against running a kernel, one line each; none is a kernel that passes.
pub fn objections(artifact: &PtxArtifact) -> Vec<String> {
    let Some(facts) = &artifact.facts else { return Vec::new() };
    let mut objections = Vec::new();
    if facts.spill_store_bytes > 0 || facts.spill_load_bytes > 0 {
        objections.push(format!("spills {} B, reads back {} B", facts.spill_store_bytes, facts.spill_load_bytes));
    } else if facts.stack_bytes > 0 {
        objections.push(format!("has a stack frame of {} B", facts.stack_bytes));
    }
    let bounds = artifact.kernel.launch_bounds();
    // Registers are handed out to warps in units of 8 per thread.
    let needed = facts.registers.next_multiple_of(8) * bounds.threads * bounds.blocks_per_sm;
    if needed > REGISTERS_PER_SM {
        objections.push(format!("{} registers per thread leave no room for its launch bounds", facts.registers));
    }
    objections.extend(facts.notes.iter().cloned());
    objections
}

/// Pairs of variants that differ in one gene, for each gene of a family: what shows whether the gene reaches anything.
#[derive(Clone, Debug)]
pub struct GenePairs {
    problem: Problem,
    limits: DeviceLimits,
    pairs: BTreeMap<Gene, Vec<[Variant; 2]>>,
}

impl GenePairs {
    /// Up to `per_gene` pairs of legal variants for each gene, drawn with `seed`.
    pub fn draw(problem: &Problem, family: Family, sm: Sm, per_gene: usize, seed: u64) -> Self {
        let limits = DeviceLimits::of(sm);
        let is_legal = &|variant: &Variant| legal(problem, variant, &limits).is_ok();
        let bases = space::sample(space::variants(problem, family, &limits), 50 * per_gene, seed);
        let mut pairs: BTreeMap<Gene, Vec<[Variant; 2]>> = BTreeMap::new();
        let works =
            |domain: &&Domain| domain.values.iter().filter(|value| domain.gene.works_on(**value, sm)).count() > 1;
        for domain in family.domains().iter().filter(works) {
            let of_gene = pairs.entry(domain.gene).or_default();
            let neighbours = bases.iter().flat_map(|base| {
                let others = domain.values.iter().filter_map(|value| base.with(domain.gene, *value));
                others.filter(move |other| other != base && is_legal(other)).map(|other| [*base, other])
            });
            of_gene.extend(neighbours.take(per_gene));
        }
        Self { problem: *problem, limits, pairs }
    }

    /// Genes none of whose pairs differ in code or launch, each with the number of pairs that could be compared.
    ///
    /// Most genes show themselves in their first pair, so later pairs are compiled only for those that did not.
    pub fn dead(&self, library: &Library) -> Result<Vec<(Gene, usize)>, BuildError> {
        let mut silent: BTreeMap<Gene, usize> = self.pairs.keys().map(|gene| (*gene, 0)).collect();
        for round in 0..self.pairs.values().map(Vec::len).max().unwrap_or(0) {
            let pairs = silent.keys().filter_map(|gene| Some((*gene, *self.pairs[gene].get(round)?)));
            for (gene, differs) in self.compare(pairs.collect(), library)? {
                match differs {
                    Some(true) => _ = silent.remove(&gene),
                    Some(false) => *silent.entry(gene).or_default() += 1,
                    None => {}
                }
            }
        }
        Ok(silent.into_iter().collect())
    }

    /// Whether each pair differs; `None` where one of the two is no kernel.
    fn compare(
        &self,
        pairs: Vec<(Gene, [Variant; 2])>,
        library: &Library,
    ) -> Result<Vec<(Gene, Option<bool>)>, BuildError> {
        let code = pairs.iter().filter(|(gene, _)| gene.effect() == Effect::Code);
        let kernels: Vec<Kernel> = code.flat_map(|(_, pair)| pair).map(|v| v.kernel(&self.problem)).collect();
        let mut modules = BTreeMap::new();
        for (kernel, result) in kernels.iter().zip(library.ptx(&kernels, self.limits.sm)) {
            match result {
                Ok(artifact) => _ = modules.insert(*kernel, artifact.sha256),
                Err(error) if error.is_of_one_kernel() => {}
                Err(error) => return Err(error),
            }
        }
        let module = |variant: &Variant| modules.get(&variant.kernel(&self.problem));
        let geometry = |variant: &Variant| legal(&self.problem, variant, &self.limits).ok();
        let differs = |gene: Gene, [a, b]: &[Variant; 2]| match gene.effect() {
            Effect::Code => Some(module(a)? != module(b)?),
            Effect::Launch => Some(geometry(a)? != geometry(b)?),
        };
        Ok(pairs.iter().map(|(gene, pair)| (*gene, differs(*gene, pair))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Facts;

    fn artifact(facts: Facts) -> PtxArtifact {
        let kernel = Variant::smallest(Family::Mma).with(Gene::Warps, 8).unwrap().kernel(&Problem::SEED);
        PtxArtifact { kernel, sm: Sm::Sm80, sha256: String::new(), path: "x".into(), facts: Some(facts) }
    }

    fn facts() -> Facts {
        Facts {
            ptxas: "13".to_owned(),
            registers: 128,
            stack_bytes: 0,
            spill_store_bytes: 0,
            spill_load_bytes: 0,
            shared_bytes: 0,
            notes: Vec::new(),
            machine: None,
        }
    }

    #[test]
    fn what_costs_speed_is_objected_to() {
        assert_eq!(objections(&artifact(facts())), [""; 0]);
        let spills = Facts { spill_store_bytes: 8, stack_bytes: 8, ..facts() };
        assert_eq!(objections(&artifact(spills)), ["spills 8 B, reads back 0 B"]);
        let stack = Facts { stack_bytes: 8, ..facts() };
        assert_eq!(objections(&artifact(stack)), ["has a stack frame of 8 B"]);
        let many = Facts { registers: 257, ..facts() };
        assert_eq!(objections(&artifact(many)), ["257 registers per thread leave no room for its launch bounds"]);
        let note = Facts { notes: vec!["(C7510) serialised".to_owned()], ..facts() };
        assert_eq!(objections(&artifact(note)), ["(C7510) serialised"]);
    }

    #[test]
    fn every_gene_of_a_family_gets_pairs_that_differ_in_it_alone() {
        for family in Family::ALL {
            let problem = if family == Family::Decode { Problem::DECODE } else { Problem::SEED };
            let drawn = GenePairs::draw(&problem, family, Sm::Sm90a, 3, 1);
            assert_eq!(drawn.pairs.len(), family.domains().len());
            for (gene, pairs) in &drawn.pairs {
                assert!(!pairs.is_empty(), "{family} {}", gene.name());
                for [a, b] in pairs {
                    assert_eq!(a.with(*gene, b.get(*gene).unwrap()), Some(*b));
                }
            }
        }
    }
}

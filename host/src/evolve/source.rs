//! Where compiled variants come from, and what must hold of them before they may run.

pub use builder::Facts;
use spec::{Family, Variant};

use crate::device::{Code, Failure};

/// A variant that compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// What runs.
    pub code: Code,
    /// Hash of the machine-independent code: with the launch geometry, the identity of what is measured.
    pub sha256: String,
    /// What the assembler said, where one was asked.
    pub facts: Option<Facts>,
}

/// A kernel that somebody rewrote.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'a> {
    /// Its family.
    pub family: Family,
    /// The text of the family's source file.
    pub text: &'a str,
}

/// Gives compiled variants: a builder, a store, a catalog, or a record of what they were.
pub trait Source {
    /// What made the code, e.g. the compiler's version: a journal is resumed with the same only.
    fn toolchain(&self) -> String;

    /// One answer per variant, in their order. A batch is asked for at once because it is compiled at once.
    fn compile(&mut self, variants: &[Variant]) -> Vec<Result<Compiled, Failure>>;

    /// The same for variants of a kernel that somebody rewrote.
    fn compile_rewritten(&mut self, _: Rewrite<'_>, variants: &[Variant]) -> Vec<Result<Compiled, Failure>> {
        vec![Err(no_compiler()); variants.len()]
    }

    /// Such a variant for the CPU machine.
    fn rehearsal(&mut self, _: Rewrite<'_>, _: &Variant) -> Result<Code, Failure> {
        Err(no_compiler())
    }
}

fn no_compiler() -> Failure {
    Failure::Build("nothing is compiled here, so no rewritten source can be".into())
}

/// How the assembler says that it ordered a product's registers itself. That serialises nothing: the fastest kernels of
/// records/sweeps/long-h100 and causal-h100 have it.
const ORDERED_REGISTERS: &str = "(C7519)";

/// Bytes that a thread may spill: what stays the same throughout a query tile, and is read again once in each. The fastest kernels
/// of these records spill some, and more of them than not when blocks are persistent; what spills more is slow in all of them.
const SPILLS: u32 = 256;

/// The compiler gate: code that keeps its tiles in local memory or was serialised is not worth a trial.
pub fn gate(facts: &Facts) -> Result<(), Failure> {
    if facts.spill_store_bytes.max(facts.spill_load_bytes) > SPILLS {
        return Err(Failure::Gate(format!(
            "spills {} B and reloads {} B at {} registers",
            facts.spill_store_bytes, facts.spill_load_bytes, facts.registers
        )));
    }
    // A frame beyond what is spilled holds arrays.
    if facts.stack_bytes > facts.spill_store_bytes.next_multiple_of(16) {
        return Err(Failure::Gate(format!("keeps {} B in local memory", facts.stack_bytes)));
    }
    match facts.notes.iter().find(|note| !note.starts_with(ORDERED_REGISTERS)) {
        Some(note) => Err(Failure::Gate(note.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_memory_and_serialised_products_are_refused() {
        let facts = |change: &dyn Fn(&mut Facts)| {
            let mut facts = Facts {
                ptxas: "13.0.88".to_owned(),
                registers: 168,
                stack_bytes: 0,
                spill_store_bytes: 0,
                spill_load_bytes: 0,
                shared_bytes: 0,
                notes: vec![],
                machine: None,
            };
            change(&mut facts);
            gate(&facts)
        };
        assert_eq!(facts(&|_| {}), Ok(()));
        let spills = facts(&|facts| facts.spill_load_bytes = 300);
        assert!(matches!(spills, Err(Failure::Gate(why)) if why == "spills 0 B and reloads 300 B at 168 registers"));
        assert!(matches!(facts(&|facts| facts.stack_bytes = 8), Err(Failure::Gate(_))));
        let some = |facts: &mut Facts| {
            (facts.stack_bytes, facts.spill_store_bytes, facts.spill_load_bytes) = (104, 180, 232);
        };
        assert_eq!(facts(&some), Ok(()));
        let arrive = "(C7519) warpgroup.arrive is injected in around line 1504";
        let serialised = "(C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized";
        assert_eq!(facts(&|facts| facts.notes = vec![arrive.to_owned()]), Ok(()));
        let both = facts(&|facts| facts.notes = vec![arrive.to_owned(), serialised.to_owned()]);
        assert_eq!(both, Err(Failure::Gate(serialised.to_owned())));
    }
}

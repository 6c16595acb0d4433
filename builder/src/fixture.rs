//! Hostile kernels: code that stands in for real kernels, for tests of those who run kernels.

use std::fmt;

use spec::{Family, Gene, Kernel, Problem, Variant};

/// A hostile kernel of `kernels/src/fixtures/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fixture {
    /// Loops for ever.
    Spin,
    /// Waits for ever at barriers.
    Deadlock,
    /// Reads where nothing is; its outputs are right.
    OutOfBounds,
    /// Overwrites Q; its outputs are right.
    EditsInputs,
    /// Writes the even query tiles only.
    EvenTiles,
    /// Writes the odd query tiles only.
    OddTiles,
    /// Writes zeros.
    Zeros,
    /// Leaves outputs alone that hold numbers already.
    Stale,
}

impl Fixture {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Spin,
        Self::Deadlock,
        Self::OutOfBounds,
        Self::EditsInputs,
        Self::EvenTiles,
        Self::OddTiles,
        Self::Zeros,
        Self::Stale,
    ];

    /// Its function's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Deadlock => "deadlock",
            Self::OutOfBounds => "out_of_bounds",
            Self::EditsInputs => "edits_inputs",
            Self::EvenTiles => "even_tiles",
            Self::OddTiles => "odd_tiles",
            Self::Zeros => "zeros",
            Self::Stale => "stale",
        }
    }

    /// The variant that it stands in for: another one for each, so that a space can hold them all.
    pub fn variant(self) -> Variant {
        let number = self as u16;
        [(Gene::LoadBytes, 2 << (number % 4)), (Gene::SharedPad, number / 4)]
            .into_iter()
            .try_fold(Variant::smallest(Family::Tiled), |variant, (gene, value)| variant.with(gene, value))
            .unwrap_or_else(|| Variant::smallest(Family::Tiled))
    }

    /// The kernel that it stands in for: fp16 with a head_dim of 64.
    pub fn kernel(self) -> Kernel {
        self.variant().kernel(&Problem::SEED)
    }
}

impl fmt::Display for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use spec::{DeviceLimits, legal};

    use super::*;

    #[test]
    fn each_stands_in_for_a_legal_kernel_of_its_own() {
        let kernels: HashSet<_> = Fixture::ALL.map(Fixture::kernel).into();
        assert_eq!(kernels.len(), Fixture::ALL.len());
        for fixture in Fixture::ALL {
            assert!(legal(&Problem::SEED, &fixture.variant(), &DeviceLimits::H100).is_ok(), "{fixture}");
        }
    }
}

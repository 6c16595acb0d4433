//! What a kernel writes.

use spec::Problem;

use crate::cases::{CaseError, Guarded, Tensor};

/// What the LSE holds before a launch: a NaN that no arithmetic gives.
const UNWRITTEN: u32 = 0xffa5_ffa5;

/// O and LSE in guarded memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// O.
    pub o: Tensor,
    /// The bits of the fp32 LSE, contiguous `[batch, heads_q, seqlen_q]`.
    pub lse: Guarded<u32>,
    /// Whether the executor ran only some blocks: then only the reference's rows must have been written.
    pub partial: bool,
}

impl Outputs {
    /// Outputs of a problem before a launch: poison in every place.
    ///
    /// # Errors
    ///
    /// Strides that put two elements of O at one place, or not the memory.
    pub fn unwritten(problem: &Problem) -> Result<Self, CaseError> {
        let o = Tensor::output(problem)?;
        let [.., [batch, rows, heads, _]] = problem.shapes();
        let rows = [batch, heads, rows].map(u128::from).iter().product();
        let lse = usize::try_from(rows).ok().and_then(|len| Guarded::poisoned(len, UNWRITTEN));
        let lse = lse.ok_or(CaseError::Memory { tensor: 'L', elements: rows })?;
        Ok(Self { o, lse, partial: false })
    }

    /// The same with the sign of every number that was written turned: what the launch that wrote it never gives again.
    pub fn negated(&self) -> Self {
        let mut negated = self.clone();
        let (o, lse) = (&mut negated.o.storage, &mut negated.lse);
        let poison = o.poison();
        o.inner_mut().iter_mut().filter(|word| **word != poison).for_each(|word| *word ^= 1 << 15);
        let poison = lse.poison();
        lse.inner_mut().iter_mut().filter(|word| **word != poison).for_each(|word| *word ^= 1 << 31);
        negated
    }

    /// Elements that a second launch, over [`Outputs::negated`] of these, left as it found them.
    pub fn left_alone(&self, second: &Self) -> usize {
        let found = self.negated();
        let o = [self, second, &found].map(|outputs| outputs.o.storage.inner());
        let lse = [self, second, &found].map(|outputs| outputs.lse.inner());
        unchanged(o) + unchanged(lse)
    }
}

/// Places where the second launch left what it found, and the first gave something else.
fn unchanged<T: PartialEq>([first, second, found]: [&[T]; 3]) -> usize {
    let places = first.iter().zip(second).zip(found);
    places.filter(|((first, second), found)| second == found && first != found).count()
}

#[cfg(test)]
mod tests {
    use spec::{Dtype, Problem};

    use super::*;

    #[test]
    fn what_a_second_launch_leaves_alone_is_counted() {
        let problem = Problem::new(1, 1, 4, 8, Dtype::F16);
        let mut first = Outputs::unwritten(&problem).unwrap();
        first.o.storage.inner_mut()[..16].fill(0);
        first.lse.inner_mut()[..2].fill(1f32.to_bits());
        let found = first.negated();
        assert_eq!(found.o.storage.inner()[15..17], [0x8000, first.o.storage.poison()]);
        assert_eq!(found.lse.inner()[1..3], [(-1f32).to_bits(), first.lse.poison()]);
        assert_eq!(first.left_alone(&first), 0);
        assert_eq!(first.left_alone(&found), 18);
        let mut half = found;
        half.o.storage.inner_mut()[..8].fill(0);
        assert_eq!(first.left_alone(&half), 10);
    }
}

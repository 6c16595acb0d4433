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
        let rows = [problem.batch, problem.heads_q, problem.seqlen_q].map(u128::from).iter().product();
        let lse = usize::try_from(rows).ok().and_then(|len| Guarded::poisoned(len, UNWRITTEN));
        let lse = lse.ok_or(CaseError::Memory { tensor: 'L', elements: rows })?;
        Ok(Self { o, lse, partial: false })
    }
}

//! Device arrays that the features of a problem read beside Q, K and V.

use spec::{Extra, ExtraAddresses, MatrixStrides, Pages, Problem};

use super::AttentionError;
use crate::driver::Buffer;

/// The arrays of a launch. A problem needs those of its features and takes no others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a>([Option<&'a Buffer>; Extra::ALL.len()]);

impl<'a> Extras<'a> {
    /// The same arrays and this one, laid out as [`Extra`] says.
    ///
    /// What it holds is trusted: starts must not fall, numbers of keys not exceed the problem's, and pages be those of the cache.
    #[must_use]
    pub fn with(mut self, extra: Extra, array: &'a Buffer) -> Self {
        self.0[extra as usize] = Some(array);
        self
    }

    /// The array, if it is there.
    pub fn get(&self, extra: Extra) -> Option<&'a Buffer> {
        self.0[extra as usize]
    }

    /// Their addresses, if they are those that the problem needs and large enough.
    pub(super) fn addresses(&self, problem: &Problem) -> Result<ExtraAddresses, AttentionError> {
        let mut addresses = ExtraAddresses::default();
        for extra in Extra::ALL {
            let what = extra.name();
            match (extra.is_of(problem), self.get(extra)) {
                (false, None) => {}
                (false, Some(_)) => return Err(AttentionError::Unasked { what, problem: Box::new(*problem) }),
                (true, None) => return Err(AttentionError::Missing { what, problem: Box::new(*problem) }),
                (true, Some(array)) => {
                    let (found, needed) = (array.bytes() as u64, bytes(extra, problem));
                    if found < needed {
                        return Err(AttentionError::Short { what, found, needed });
                    }
                    addresses.0[extra as usize] = array.address();
                }
            }
        }
        Ok(addresses)
    }
}

/// Bytes from the first element that a kernel may read to the end of the last.
fn bytes(extra: Extra, problem: &Problem) -> u64 {
    let batch = u64::from(problem.batch);
    let matrix = |strides: Option<MatrixStrides>| {
        let Some(MatrixStrides { batch, head, row }) = strides else { return 0 };
        let steps = [(problem.batch, batch), (problem.heads_q, head), (problem.seqlen_q, row)];
        let last = steps.map(|(extent, stride)| u64::from(extent - 1).saturating_mul(stride.unsigned_abs()));
        last.into_iter().fold(u64::from(problem.seqlen_kv), u64::saturating_add)
    };
    let elements = match extra {
        Extra::Slopes | Extra::Sinks => problem.heads_q.into(),
        Extra::Bias => matrix(problem.features.bias.map(|bias| bias.strides)),
        Extra::Mask => matrix(problem.features.mask),
        Extra::StartsQ | Extra::StartsKv => batch + 1,
        Extra::UsedKv => batch,
        Extra::Pages => problem.features.pages.map_or(0, |Pages { columns, .. }| batch * u64::from(columns)),
    };
    elements.saturating_mul(extra.element_bytes(problem).into())
}

#[cfg(test)]
mod tests {
    use spec::{Bias, Dtype, Features};

    use super::*;

    #[test]
    fn arrays_are_as_large_as_what_is_read() {
        let problem = Problem::new(2, 4, 100, 64, Dtype::F16).with_seqlens(3, 50);
        let broadcast = MatrixStrides { batch: 0, head: 64, row: 0 };
        let features = Features {
            bias: Some(Bias { wide: true, strides: broadcast }),
            mask: Some(MatrixStrides { batch: 1000, head: 0, row: 50 }),
            pages: Some(Pages { count: 9, size: 16, columns: 4 }),
            ..Features::NONE
        };
        let problem = Problem { features, ..problem };
        let found = Extra::ALL.map(|extra| bytes(extra, &problem));
        assert_eq!(found, [16, 16, (3 * 64 + 50) * 4, 1000 + 2 * 50 + 50, 12, 12, 8, 2 * 4 * 4]);
    }
}

//! Tensor maps: how the copy engine (TMA) finds its way through a tensor.

use std::ptr;

use spec::layout::PANEL;
use spec::{Dtype, Strides};

use super::DriverError;
use super::raw::call;

/// What the driver encodes into; it insists on the alignment.
#[repr(C, align(64))]
struct Encoded([u64; 16]);

/// A tensor `[batch, seqlen, heads, head_dim]` of 16-bit elements, to be copied in boxes of some rows of one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiled {
    /// Device address, a multiple of 16.
    pub address: u64,
    /// Element type.
    pub dtype: Dtype,
    /// Batch entries, positions, heads, columns.
    pub shape: [u32; 4],
    /// Strides as [`spec::legal()`] allows them for the copy engine.
    pub strides: Strides,
    /// Rows of a box, at most 256; it is [`PANEL`] columns wide.
    pub rows: u32,
}

impl Tiled {
    /// The map, with coordinates `[column, position, head, batch entry]`. A box lands in shared memory in the permutation of
    /// 128-byte rows that tensor cores read; what lies outside the tensor becomes zeros.
    pub fn encode(&self) -> Result<[u64; 16], DriverError> {
        // The driver's enumerations, by its documentation of `cuTensorMapEncodeTiled`.
        const FLOAT16: u32 = 6;
        const BFLOAT16: u32 = 9;
        const INTERLEAVE_NONE: u32 = 0;
        const SWIZZLE_128B: u32 = 3;
        const L2_PROMOTION_256B: u32 = 3;
        const OUTSIDE_ZERO: u32 = 0;

        let data_type = match self.dtype {
            Dtype::F16 => FLOAT16,
            Dtype::Bf16 => BFLOAT16,
        };
        let (extents, strides) = (self.extents(), self.strides_bytes());
        let boxes = [PANEL, self.rows, 1, 1];
        let mut map = Encoded([0; 16]);
        // SAFETY: all arrays outlive the call and have the lengths that four dimensions need; the address is only noted.
        unsafe {
            call!(cuTensorMapEncodeTiled(
                ptr::from_mut(&mut map).cast(),
                data_type,
                4,
                ptr::without_provenance_mut(self.address as usize),
                extents.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                [1; 4].as_ptr(),
                INTERLEAVE_NONE,
                SWIZZLE_128B,
                L2_PROMOTION_256B,
                OUTSIDE_ZERO,
            ))
        }?;
        Ok(map.0)
    }

    /// Columns, positions, heads, batch entries.
    fn extents(&self) -> [u64; 4] {
        let [batch, seqlen, heads, columns] = self.shape;
        [columns, seqlen, heads, batch].map(u64::from)
    }

    /// In bytes, of all dimensions but the columns.
    fn strides_bytes(&self) -> [u64; 3] {
        let [batch, seqlen, heads, columns] = self.shape;
        let Strides { batch: batch_stride, seq, head } = self.strides;
        let bytes = u64::from(self.dtype.bytes());
        [(seqlen, seq), (heads, head), (batch, batch_stride)].map(|(extent, stride)| {
            // Nobody steps along a dimension of one element, but the driver checks its stride all the same.
            let stride = if extent > 1 { stride.unsigned_abs() } else { u64::from(columns) };
            stride * bytes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENSOR: Tiled = Tiled {
        address: 0x7f00_0000_0000,
        dtype: Dtype::F16,
        shape: [2, 300, 8, 96],
        strides: Strides::bshd(300, 8, 96),
        rows: 64,
    };

    #[test]
    fn dimensions_are_in_the_order_of_coordinates() {
        assert_eq!(TENSOR.extents(), [96, 300, 8, 2]);
        assert_eq!(TENSOR.strides_bytes(), [8 * 96 * 2, 96 * 2, 300 * 8 * 96 * 2]);
    }

    #[test]
    fn strides_that_nobody_steps_by_are_made_acceptable() {
        let one = Tiled { shape: [1, 300, 1, 96], strides: Strides { batch: 0, seq: 104, head: 7 }, ..TENSOR };
        assert_eq!(one.strides_bytes(), [208, 192, 192]);
    }

    #[test]
    fn encoding_without_a_driver_is_an_error() {
        if driver_shim::available().is_err() {
            let error = TENSOR.encode().unwrap_err().to_string();
            assert!(error.starts_with("cuTensorMapEncodeTiled: "), "{error}");
        }
    }
}

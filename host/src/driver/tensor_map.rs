//! Tensor maps: how the copy engine (TMA) finds its way through a tensor.

use std::ptr;

use spec::layout::PANEL;
use spec::{Dtype, PlainMap};

use super::raw::call;
use super::{DriverError, Gpu};

/// What the driver encodes into; it insists on the alignment.
#[repr(C, align(64))]
struct Encoded([u64; 16]);

/// A map in the form that GPUs read. A box lands in shared memory in the permutation of 128-byte rows that tensor cores
/// read; what lies outside the tensor becomes zeros.
///
/// # Errors
///
/// The driver refuses an address that is no multiple of 16, and strides that [`spec::legal()`] would not have let through.
pub fn encode(gpu: &Gpu, dtype: Dtype, map: &PlainMap) -> Result<[u64; 16], DriverError> {
    let _current = gpu.bind()?;
    // The driver's enumerations, by its documentation of `cuTensorMapEncodeTiled`.
    const UINT16: u32 = 1;
    const FLOAT16: u32 = 6;
    const FLOAT32: u32 = 7;
    const BFLOAT16: u32 = 9;
    const INTERLEAVE_NONE: u32 = 0;
    const SWIZZLE_128B: u32 = 3;
    const L2_PROMOTION_256B: u32 = 3;
    const OUTSIDE_ZERO: u32 = 0;

    let data_type = match dtype {
        Dtype::F16 => FLOAT16,
        Dtype::Bf16 => BFLOAT16,
        Dtype::F32 => FLOAT32,
        // Words of two elements, as the map counts.
        Dtype::E4m3 => UINT16,
    };
    let PlainMap { address, extents, strides, box_rows } = *map;
    let boxes = [PANEL, box_rows, 1, 1];
    let mut encoded = Encoded([0; 16]);
    // SAFETY: all arrays outlive the call and have the lengths that four dimensions need; the address is only noted.
    unsafe {
        call!(cuTensorMapEncodeTiled(
            ptr::from_mut(&mut encoded).cast(),
            data_type,
            4,
            ptr::without_provenance_mut(address as usize),
            extents.map(u64::from).as_ptr(),
            strides.as_ptr(),
            boxes.as_ptr(),
            [1; 4].as_ptr(),
            INTERLEAVE_NONE,
            SWIZZLE_128B,
            L2_PROMOTION_256B,
            OUTSIDE_ZERO,
        ))
    }?;
    Ok(encoded.0)
}

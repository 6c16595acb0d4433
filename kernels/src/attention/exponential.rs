//! Exponentials, shared out between the special-function and the FMA units.

use crate::gpu::{exp2, exp2_polynomial, min_nan};

/// `2^x` for the `index`-th element of a thread: one in `poly` by the polynomial, the others by the special-function
/// unit; none by the polynomial if `poly` is 0.
#[inline(always)]
pub fn exponential(x: f32, index: usize, poly: u32) -> f32 {
    if poly != 0 && index.is_multiple_of(poly as usize) { exp2_polynomial(x) } else { exp2(x) }
}

/// Like [`exponential`], for exponents that may be large: their powers then are too, or infinite.
#[inline(always)]
pub fn unbounded_exponential(x: f32, index: usize, poly: u32) -> f32 {
    if poly != 0 && index.is_multiple_of(poly as usize) { exp2_polynomial(min_nan(x, 127.0)) } else { exp2(x) }
}

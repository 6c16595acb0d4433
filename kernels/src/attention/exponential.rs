//! Exponentials, shared out between the special-function and the FMA units.

use crate::gpu::{exp2, exp2_polynomial};

/// `2^x` for the `index`-th element of a thread: one in `poly` by the polynomial, the others by the special-function
/// unit; none by the polynomial if `poly` is 0.
#[inline(always)]
pub fn exponential(x: f32, index: usize, poly: u32) -> f32 {
    if poly != 0 && index.is_multiple_of(poly as usize) { exp2_polynomial(x) } else { exp2(x) }
}

//! What is right: references in fp64 and in the kernels' precision, error budgets, and the judge.
//!
//! # Budgets
//!
//! With `e(x)` the error of `x` against fp64, `ref` the same-precision reference and `u(x)` one [`ulp`](crate::cases::number::ulp)
//! of O's dtype at `x`, a kernel's output must satisfy, for every row `r` that is looked at,
//!
//! * `max_d |e(O[r,d])| <= 2 max_d |e(ref[r,d])| + u(max_d |O64[r,d]|) + 2 s[r] w[r] + 2^-126 v[r]`,
//! * `|e(LSE[r])| <= 2 |e(ref LSE[r])| + 2^-15 + s[r]`,
//!
//! and over all of them
//!
//! * `rms(e(O)) <= 2 rms(e(ref)) + rms_r(u(max_d |O64[r,d]|)) / 4 + rms_r(2 s[r] w[r] + 2^-126 v[r])`.
//!
//! A row is held against its own reference: an error that would drown among a case's largest outputs shows in a row of
//! small ones, such as one key of a thousand left out. The terms that do not come from the reference:
//!
//! * `u`: one rounding of the output more or less than the reference; on average a rounding costs `u / sqrt(12)`.
//! * `s[r] = (2 + ceil(head_dim / 16)) 2^-23 |scale| |q[r]| max_j |k[j]|`: scores are summed in fp32 in another order, and
//!   by tensor cores that take 16 products at a time and cut digits off instead of rounding: all to one side, so a long
//!   sum is off by up to a unit in the last place for each step. `w[r] = max_d sum_j p[j] |v[j,d]|` is what an error in the
//!   weights moves.
//! * `2^-126`: smaller exponentials are zero on a GPU, which shows where a sink is far above all logits;
//!   `v[r] = max_d sum_j |v[j,d]|`.
//! * `2^-15`: exponentials of two are approximate, up to `3e-6` each, and all to one side.
//!
//! What features add to the scores counts in `s[r]` beside them.
//!
//! For e4m3, tensor cores take 32 products at a time and keep 13 bits of a sum: `s[r]` has 32 and `2^-13` in the place of 16 and
//! `2^-23`. The first line has two more terms on its right:
//!
//! * `(n[r] / 4 + sqrt(m) + 2 + ceil(m / 32)) 2^-13 max_d sum_c max_n |sum_(j in c, j < n) p[j] v[j,d]|`, over spans `c` of
//!   `m` = 1024 keys, or all if they are fewer, and with `n[r] = max_d max_c |sum_(j in c) sign(v[j,d])|` on its way: so much may be cut off
//!   the sum over a span, relative to the largest that it is on its way; it counts in the last line too. Each product is cut off on
//!   its own, to the unit of the sum so far, which is half of the largest on average, by half of it on average. Sums of all 4096
//!   products of one sign lost 9.4 % on an H200 (records/tests/h200-2026-11-29-fp8), which is why kernels put those of a span aside.
//! * `2^-3 max_d sqrt(sum_j (p[j] v[j,d])^2)`: a weight is off by up to `2^-4` of it, each in its own way. Which way depends on the
//!   maximum that the weight is relative to, which is another in a kernel than in the reference; where few weights count, the
//!   reference may have none to round. This is five times the deviation of such a sum, and as much as four equal ones can be off by;
//!   the last line has a quarter of it.
//!
//! On the seed shape with normal inputs, `max |e(O)|` must also stay below [`SEED_LIMIT`]. A row that sees no key is
//! exactly 0 with an LSE of -inf. NaN is right in rows whose query is NaN, and in columns where a row sees values that are
//! NaN, or infinities of both signs; infinity is right where it sees those of one sign. Elsewhere both are wrong. The budget of
//! a row is worked out with zeros in the place of such values.

mod answers;
mod budget;
mod exact;
mod judge;
mod logits;
pub mod metamorphic;
mod outputs;
mod reference;
mod rounded;
mod rows;

pub use answers::{Answer, Answers};
pub use budget::{RowBudget, SEED_LIMIT};
pub use judge::judge;
pub use outputs::Outputs;
pub use reference::{Expected, Reference};
pub use rounded::SamePrecision;
pub use rows::Row;

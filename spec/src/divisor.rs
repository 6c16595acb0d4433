//! Division by a number that is known before the launch.

/// A divisor, with the factor that stands for its reciprocal: a kernel divides by one multiplication, where a division takes
/// some 130 cycles.
///
/// With `s = ceil(log2(d))` the factor is `m = ceil(2^(31 + s) / d)`, so that `m d` exceeds `2^(31 + s)` by less than `2^s`, and
/// `floor(n m / 2^(31 + s))` is `floor(n / d)` for all `n` below `2^31` (Granlund and Montgomery, "Division by invariant
/// integers using multiplication", 1994).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Divisor {
    /// The divisor itself, `d`.
    pub value: u32,
    factor: u32,
    shift: u32,
}

impl Divisor {
    /// To divide by `value`, 1 to 2^31; 0 is taken as 1.
    pub const fn new(value: u32) -> Self {
        let value = if value == 0 { 1 } else { value };
        let shift = value.next_power_of_two().ilog2();
        Self { value, factor: (1u64 << (31 + shift)).div_ceil(value as u64) as u32, shift }
    }

    /// Quotient and rest of `n`, which is below 2^31.
    #[inline(always)]
    pub const fn divide(self, n: u32) -> (u32, u32) {
        let quotient = (((2 * n) as u64 * self.factor as u64) >> 32) as u32 >> self.shift;
        (quotient, n - quotient * self.value)
    }

    /// Its numbers, in the order in which they lie in memory.
    pub const fn to_words(self) -> [u32; 3] {
        [self.value, self.factor, self.shift]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_those_of_a_division() {
        const MOST: u32 = i32::MAX as u32;
        let near = |n: u32| [n.saturating_sub(1), n, n.saturating_add(1)];
        let divisors = (1..3000).chain((0..31).flat_map(|bit| near(1 << bit))).chain([1 << 31, MOST - 1, MOST]);
        for value in divisors.filter(|value| *value > 0) {
            let divisor = Divisor::new(value);
            // Where a quotient goes up, and the ends.
            let multiples = [1, 2, 3, MOST / value / 2, MOST / value].map(|times| times.saturating_mul(value));
            let numbers = multiples.into_iter().flat_map(near).chain([0, 1, MOST - 1, MOST]);
            for n in numbers.filter(|n| *n <= MOST) {
                assert_eq!(divisor.divide(n), (n / value, n % value), "{n} / {value}");
            }
        }
    }
}

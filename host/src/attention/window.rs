//! What L2 is asked to keep.

use std::ops::Range;

use crate::driver::L2Window;

/// The window over K and V, or over K alone where one window does not reach over both; `None` where nothing is set aside.
pub(super) fn window([k, v]: [Range<u64>; 2], set_aside: u64, largest: u64) -> Option<L2Window> {
    let both = k.start.min(v.start)..k.end.max(v.end);
    let Range { start, end } = if both.end - both.start <= largest { both } else { k };
    let bytes = (end - start).min(largest);
    // More than is set aside would drive itself out.
    let share = (set_aside as f64 / bytes as f64).min(1.0) as f32;
    (set_aside > 0 && bytes > 0).then_some(L2Window { start, bytes, share })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_reaches_over_k_and_v_as_far_as_it_may() {
        let [k, v] = [1000..1400, 500..900];
        let of = |start, bytes, share| Some(L2Window { start, bytes, share });
        assert_eq!(window([k.clone(), v.clone()], 900, 1000), of(500, 900, 1.0));
        assert_eq!(window([k.clone(), v.clone()], 450, 1000), of(500, 900, 0.5));
        assert_eq!(window([k.clone(), v.clone()], 800, 899), of(1000, 400, 1.0));
        assert_eq!(window([k.clone(), v.clone()], 50, 100), of(1000, 100, 0.5));
        assert_eq!(window([k.clone(), v.clone()], 0, 1000), None);
        assert_eq!(window([k, v], 100, 0), None);
    }
}

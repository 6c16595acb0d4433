//! Memory between guard zones.

/// Elements of a guard zone: enough that a block's worth of stray rows ends in it, and a multiple of any alignment.
pub const GUARD: usize = 4096;

/// A buffer with a zone of [`GUARD`] elements before and after it. At first all of it holds one value, the poison.
#[derive(Clone, Debug, PartialEq)]
pub struct Guarded<T> {
    words: Vec<T>,
    poison: T,
}

impl<T: Copy + PartialEq> Guarded<T> {
    /// `len` elements of poison between guard zones; `None` if there is not the memory.
    pub fn poisoned(len: usize, poison: T) -> Option<Self> {
        let all = len.checked_add(2 * GUARD)?;
        let mut words = Vec::new();
        words.try_reserve_exact(all).ok()?;
        words.resize(all, poison);
        Some(Self { words, poison })
    }

    /// The elements between the zones.
    pub fn inner(&self) -> &[T] {
        &self.words[GUARD..self.words.len() - GUARD]
    }

    /// The elements between the zones.
    pub fn inner_mut(&mut self) -> &mut [T] {
        let end = self.words.len() - GUARD;
        &mut self.words[GUARD..end]
    }

    /// All elements, zones included: what a device holds.
    pub fn whole(&self) -> &[T] {
        &self.words
    }

    /// All elements, zones included: what a device gave back.
    pub fn whole_mut(&mut self) -> &mut [T] {
        &mut self.words
    }

    /// The poison.
    pub fn poison(&self) -> T {
        self.poison
    }

    /// Elements of the zones that were written: how many, and where the first is, counted from the buffer's start.
    pub fn breach(&self) -> Option<(usize, i64)> {
        let end = self.words.len() - GUARD;
        let written = |&at: &usize| self.words[at] != self.poison;
        let mut breaches = (0..GUARD).chain(end..self.words.len()).filter(written);
        let first = breaches.next()?;
        Some((1 + breaches.count(), first as i64 - GUARD as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaches_are_found_on_both_sides() {
        let mut buffer = Guarded::poisoned(3, 7u16).unwrap();
        assert_eq!(buffer.inner(), [7, 7, 7]);
        buffer.inner_mut().fill(0);
        assert_eq!(buffer.breach(), None);
        buffer.whole_mut()[GUARD + 3] = 0;
        assert_eq!(buffer.breach(), Some((1, 3)));
        buffer.whole_mut()[GUARD - 1] = 0;
        assert_eq!(buffer.breach(), Some((2, -1)));
    }

    #[test]
    fn too_much_memory_is_refused() {
        assert_eq!(Guarded::poisoned(usize::MAX / 4, 0u16), None);
    }
}

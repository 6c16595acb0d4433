//! Which keys a row sees.

use spec::AttentionArgs;

/// Row `i` sees keys `0..visible(i)`.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    /// How many there are.
    pub keys: u32,
    /// Row `i` sees key `i + diagonal` as its last.
    pub diagonal: i32,
}

impl Mask {
    /// The mask of a launch.
    #[inline(always)]
    pub fn new(args: &AttentionArgs) -> Self {
        Self { keys: args.seqlen_kv, diagonal: args.diagonal }
    }

    /// Number of keys that a row sees.
    #[inline(always)]
    pub fn visible(&self, row: u32) -> u32 {
        let end = row as i32 + self.diagonal + 1;
        (end.max(0) as u32).min(self.keys)
    }

    /// Whether some row from `first_row` on does not see all of the keys before `end`.
    #[inline(always)]
    pub fn hides_any(&self, first_row: u32, end: u32) -> bool {
        self.visible(first_row) < end
    }
}

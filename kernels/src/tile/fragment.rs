//! Which lane holds what of the fragments of `mma.sync.m16n8k16`.

/// A lane's place in the fragments.
#[derive(Clone, Copy, Debug)]
pub struct Lane(u32);

impl Lane {
    /// The lane of a thread.
    #[inline(always)]
    pub fn of(thread: u32) -> Self {
        Self(thread % 32)
    }

    /// Its number, 0 to 31.
    #[inline(always)]
    pub fn index(self) -> u32 {
        self.0
    }

    /// The first of the two rows (8 apart) that the lane holds of an accumulator of 16 rows.
    #[inline(always)]
    pub fn row(self) -> u32 {
        self.0 / 4
    }

    /// The first of the two columns (side by side) that the lane holds of 8 columns.
    #[inline(always)]
    pub fn column(self) -> u32 {
        self.0 % 4 * 2
    }

    /// Whether it is the first of the four lanes that share a row.
    #[inline(always)]
    pub fn leads_row(self) -> bool {
        self.0.is_multiple_of(4)
    }
}

/// Row and chunk whose address a lane gives to load a 16 x 16 block as operand `a`.
#[inline(always)]
pub fn matrix_row_a(Lane(lane): Lane) -> (u32, u32) {
    (lane % 16, lane / 16)
}

/// Row and chunk whose address a lane gives to load 16 keys x 16 columns of K as two operands `b` of 8 keys.
#[inline(always)]
pub fn matrix_row_k(Lane(lane): Lane) -> (u32, u32) {
    (lane / 16 * 8 + lane % 8, lane / 8 % 2)
}

/// Row and chunk whose address a lane gives to load, transposed, 16 keys x 16 columns of V as two operands `b` of 8
/// columns.
#[inline(always)]
pub fn matrix_row_v(Lane(lane): Lane) -> (u32, u32) {
    (lane % 16, lane / 16)
}

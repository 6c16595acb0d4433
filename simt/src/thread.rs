//! Who a thread is, and how it gives up.

use crate::Cause;
use crate::machine::{enter, peek};

/// Index of the thread in its block. Its lane is this modulo 32.
#[inline]
pub fn thread_idx() -> u32 {
    peek(|machine| machine.thread - machine.rank * machine.launch.threads)
}

/// Index of the block in the grid.
#[inline]
pub fn block_idx() -> u32 {
    peek(|machine| machine.block + machine.rank)
}

/// Blocks of the grid.
#[inline]
pub fn grid_dim() -> u32 {
    peek(|machine| machine.launch.grid)
}

/// Threads of the block.
#[inline]
pub fn block_dim() -> u32 {
    peek(|machine| machine.launch.threads)
}

/// Ends the launch with a message.
pub fn trap(message: &str) -> ! {
    enter(|machine| machine.fault(Cause::Trap(message.to_owned())))
}

//! Grids of one stream that overlap. Here they run one after the other, so all that can be seen is what came too early.

use crate::Cause;
use crate::machine::enter;

/// Waits for the grids before this one: a fault if the thread has touched global memory already.
pub fn await_earlier_grids() {
    enter(|machine| match machine.touched_global[machine.thread as usize] {
        true => machine.fault(Cause::BeforeEarlierGrids),
        false => Ok(()),
    });
}

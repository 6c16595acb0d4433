//! `cp.async`: copies from global to shared memory that finish later.
//!
//! The source is read when the copy is issued and delivered when its thread waits for it. Until then the destination is
//! poison: storing there faults, and so does loading when the launch checks for races. Delivery counts as a store by the
//! thread that waits, so that other threads need a barrier after it.

use std::collections::VecDeque;

use crate::Cause;
use crate::machine::enter;

/// One copy under way.
struct Pending {
    to: u32,
    bytes: u32,
    data: [u8; 16],
    /// Number of its group.
    group: u64,
}

/// The copies of one thread, in the order of issue.
#[derive(Default)]
pub(crate) struct Copies {
    pending: VecDeque<Pending>,
    /// Groups committed so far; the open group's number.
    committed: u64,
}

impl Copies {
    pub(crate) fn clear(&mut self) {
        self.pending.clear();
        self.committed = 0;
    }
}

/// Starts a copy of `src_bytes` bytes followed by zeros up to `bytes` (4, 8 or 16, to which both addresses are aligned).
/// With `src_bytes` zero the source is not touched.
pub fn cp_async(dst_shared: u32, src_global: u64, bytes: u32, src_bytes: u32) {
    enter(|machine| {
        if !matches!(bytes, 4 | 8 | 16) || src_bytes > bytes {
            return machine.fault(Cause::CopySize { bytes, src_bytes });
        }
        machine.stats.copies += 1;
        let mut data = [0; 16];
        if src_bytes > 0 {
            machine.read_global(machine.thread, src_global, bytes, &mut data[..src_bytes as usize])?;
        }
        machine.reserve_shared(machine.base, dst_shared, bytes, bytes)?;
        let copies = &mut machine.copies[machine.thread as usize];
        copies.pending.push_back(Pending { to: dst_shared, bytes, data, group: copies.committed });
        Ok(())
    });
}

/// Closes the thread's open group of copies, which may be empty.
pub fn cp_async_commit() {
    enter(|machine| {
        machine.copies[machine.thread as usize].committed += 1;
        Ok(())
    });
}

/// Waits until at most `pending_groups` of the thread's closed groups are under way.
pub fn cp_async_wait(pending_groups: u32) {
    enter(|machine| {
        machine.stats.copy_waits += 1;
        let thread = machine.thread as usize;
        let done = machine.copies[thread].committed.saturating_sub(u64::from(pending_groups));
        while let Some(copy) = machine.copies[thread].pending.pop_front_if(|copy| copy.group < done) {
            machine.fill_shared(copy.to, &copy.data[..copy.bytes as usize])?;
        }
        Ok(())
    });
}

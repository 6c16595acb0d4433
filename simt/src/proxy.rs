//! The order between threads' stores and what the copy engine and the tensor cores see of them.

use crate::machine::enter;

/// Lets copies and products see what this thread has stored to shared memory, and barriers it has initialised; other
/// threads that issue them need a barrier after it (`fence.proxy.async`).
pub fn fence_proxy_async() {
    enter(|machine| {
        let thread = machine.thread;
        machine.mbarriers.publish(thread);
        if let Some(races) = &mut machine.races {
            races.fence(thread);
        }
        Ok(())
    });
}

//! Global memory: the launch's buffers.

use core::ptr;

use crate::launch::Buffer;
use crate::machine::{Machine, Outcome, enter};
use crate::{Access, Cause};

/// An address is the buffer's number plus one above these bits and the offset below, biased by half their range: offsets
/// before the start are still told from those of the buffer before, and 0 is in no buffer.
const OFFSET_BITS: u32 = 44;
const BIAS: u64 = 1 << (OFFSET_BITS - 1);

/// Address of the first byte of the launch's buffer `index`; aligned as far as a vector access can ask.
pub fn address_of(index: usize) -> u64 {
    ((index as u64 + 1) << OFFSET_BITS) + BIAS
}

/// The buffers of a launch, as kernels see them.
pub(crate) struct GlobalMemory<'a>(&'a [Buffer<'a>]);

impl<'a> GlobalMemory<'a> {
    /// Takes the buffers for itself: what it hands out writes to them.
    pub(crate) fn new(buffers: &'a mut [Buffer<'_>]) -> Self {
        Self(buffers)
    }

    /// Where `bytes` bytes at `address` are, if an access to them, aligned to `align`, is allowed.
    #[inline]
    fn resolve(&self, address: u64, bytes: u32, align: u32, access: Access) -> Result<*mut u8, Cause> {
        let index = (address >> OFFSET_BITS).wrapping_sub(1);
        let offset = (address & ((1 << OFFSET_BITS) - 1)) as i64 - BIAS as i64;
        let Some(buffer) = usize::try_from(index).ok().and_then(|index| self.0.get(index)) else {
            return Err(Cause::NoBuffer { access, address, bytes });
        };
        let inside = offset >= 0 && offset as u64 + u64::from(bytes) <= buffer.bytes;
        let aligned = offset & i64::from(align - 1) == 0;
        if inside && aligned && (buffer.writable || access == Access::Load) {
            // SAFETY: the offset was just found to be inside the buffer.
            return Ok(unsafe { buffer.start.add(offset as usize) });
        }
        let (size, name) = (buffer.bytes, buffer.name.to_owned());
        Err(if !inside {
            Cause::OutOfBuffer { access, address, bytes, buffer: name, size, offset }
        } else if !aligned {
            Cause::MisalignedGlobal { access, address, bytes, buffer: name, offset }
        } else {
            Cause::ReadOnly { address, bytes, buffer: name, offset }
        })
    }
}

impl Machine<'_> {
    /// Reads on behalf of `thread` from `address`, which must be aligned to `align`.
    #[inline]
    pub(crate) fn read_global(&mut self, thread: u32, address: u64, align: u32, into: &mut [u8]) -> Outcome<()> {
        self.touched_global[thread as usize] = true;
        match self.global.resolve(address, into.len() as u32, align, Access::Load) {
            Ok(from) => {
                self.stats.global_loads += 1;
                self.stats.global_load_bytes += into.len() as u64;
                // SAFETY: `resolve` found that many readable bytes there; `into` is local to its caller.
                unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
                Ok(())
            }
            Err(cause) => self.fault_of(thread, cause),
        }
    }
}

/// Loads `N` bytes (1, 2, 4, 8 or 16), naturally aligned.
#[inline]
pub fn load_global<const N: usize>(address: u64) -> [u8; N] {
    const { assert!(N.is_power_of_two() && N <= 16) };
    let mut data = [0; N];
    enter(|machine| machine.read_global(machine.thread, address, N as u32, &mut data));
    data
}

/// Stores `N` bytes (1, 2, 4, 8 or 16), naturally aligned.
#[inline]
pub fn store_global<const N: usize>(address: u64, data: [u8; N]) {
    const { assert!(N.is_power_of_two() && N <= 16) };
    enter(|machine| {
        machine.touched_global[machine.thread as usize] = true;
        match machine.global.resolve(address, N as u32, N as u32, Access::Store) {
            Ok(to) => {
                machine.stats.global_stores += 1;
                machine.stats.global_store_bytes += N as u64;
                // SAFETY: `resolve` found `N` writable bytes there.
                unsafe { ptr::copy_nonoverlapping(data.as_ptr(), to, N) };
                Ok(())
            }
            Err(cause) => machine.fault(cause),
        }
    });
}

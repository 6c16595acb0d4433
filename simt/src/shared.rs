//! Shared memory of a block.

use crate::machine::{Machine, Outcome, enter};
use crate::{Access, Cause};

/// What memory holds that nobody has written: NaN in fp16, bf16 and fp32.
const POISON: u8 = 0xff;

/// Bytes of the smallest asynchronous copy, and so the grain at which copies in flight are known.
const GRAIN: usize = 4;

/// The bytes, and which of them wait for a copy.
pub(crate) struct SharedMemory {
    bytes: Vec<u8>,
    /// Per grain: 0, or 1 + the thread whose copy is to fill it.
    in_flight: Vec<u16>,
    /// How many grains wait, so that a check costs nothing where none does.
    waiting: usize,
}

impl SharedMemory {
    pub(crate) fn new(bytes: u32) -> Self {
        let bytes = bytes as usize;
        Self { bytes: vec![POISON; bytes], in_flight: vec![0; bytes.div_ceil(GRAIN)], waiting: 0 }
    }

    /// Forgets everything.
    pub(crate) fn poison(&mut self) {
        self.bytes.fill(POISON);
        if self.waiting > 0 {
            self.in_flight.fill(0);
            self.waiting = 0;
        }
    }

    #[inline]
    fn check(&self, address: u32, bytes: u32, access: Access) -> Result<(), Cause> {
        let size = self.bytes.len() as u32;
        if u64::from(address) + u64::from(bytes) > u64::from(size) {
            return Err(Cause::OutOfShared { access, address, bytes, size });
        }
        if address & (bytes - 1) != 0 {
            return Err(Cause::MisalignedShared { access, address, bytes });
        }
        Ok(())
    }

    #[inline]
    fn check_flight(&self, address: u32, bytes: u32, access: Access) -> Result<(), Cause> {
        if self.waiting == 0 {
            return Ok(());
        }
        let first = address as usize / GRAIN;
        let last = (address + bytes - 1) as usize / GRAIN;
        match self.in_flight[first..=last].iter().find(|&&issuer| issuer != 0) {
            Some(&issuer) => Err(Cause::InFlight { access, address, bytes, issuer: u32::from(issuer) - 1 }),
            None => Ok(()),
        }
    }
}

impl Machine<'_> {
    /// Reads on behalf of `thread`.
    #[inline]
    pub(crate) fn read_shared<const N: usize>(&mut self, thread: u32, address: u32) -> Outcome<[u8; N]> {
        let checked = self.shared.check(address, N as u32, Access::Load).and_then(|()| match &mut self.races {
            Some(races) => {
                self.shared.check_flight(address, N as u32, Access::Load)?;
                races.load(thread, address, N as u32)
            }
            None => Ok(()),
        });
        match checked {
            Ok(()) => {
                let mut data = [0; N];
                data.copy_from_slice(&self.shared.bytes[address as usize..][..N]);
                Ok(data)
            }
            Err(cause) => self.fault_of(thread, cause),
        }
    }

    /// Writes on behalf of the running thread.
    #[inline]
    fn write_shared(&mut self, address: u32, data: &[u8]) -> Outcome<()> {
        let (thread, bytes) = (self.thread, data.len() as u32);
        let checked = self.shared.check(address, bytes, Access::Store).and_then(|()| {
            self.shared.check_flight(address, bytes, Access::Store)?;
            self.races.as_mut().map_or(Ok(()), |races| races.store(thread, address, bytes))
        });
        match checked {
            Ok(()) => {
                self.shared.bytes[address as usize..][..data.len()].copy_from_slice(data);
                Ok(())
            }
            Err(cause) => self.fault(cause),
        }
    }

    /// Poisons what a copy by the running thread is to fill.
    pub(crate) fn reserve_shared(&mut self, address: u32, bytes: u32) -> Outcome<()> {
        self.write_shared(address, &[POISON; 16][..bytes as usize])?;
        let grains = bytes as usize / GRAIN;
        self.shared.in_flight[address as usize / GRAIN..][..grains].fill(self.thread as u16 + 1);
        self.shared.waiting += grains;
        Ok(())
    }

    /// Fills what [`Self::reserve_shared`] has poisoned.
    pub(crate) fn fill_shared(&mut self, address: u32, data: &[u8]) -> Outcome<()> {
        let grains = data.len() / GRAIN;
        self.shared.in_flight[address as usize / GRAIN..][..grains].fill(0);
        self.shared.waiting -= grains;
        self.write_shared(address, data)
    }
}

/// Loads `N` bytes (1, 2, 4, 8 or 16), naturally aligned.
#[inline]
pub fn load_shared<const N: usize>(address: u32) -> [u8; N] {
    const { assert!(N.is_power_of_two() && N <= 16) };
    enter(|machine| {
        machine.stats.shared_loads += 1;
        machine.stats.shared_load_bytes += N as u64;
        machine.read_shared(machine.thread, address)
    })
}

/// Stores `N` bytes (1, 2, 4, 8 or 16), naturally aligned.
#[inline]
pub fn store_shared<const N: usize>(address: u32, data: [u8; N]) {
    const { assert!(N.is_power_of_two() && N <= 16) };
    enter(|machine| {
        machine.stats.shared_stores += 1;
        machine.stats.shared_store_bytes += N as u64;
        machine.write_shared(address, &data)
    });
}

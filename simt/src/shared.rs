//! Shared memory of the blocks that run together.

use crate::events::Event;
use crate::machine::{Machine, Outcome, enter};
use crate::{Access, Actor, Cause, Launch, Misuse};

/// What memory holds that nobody has written: NaN in fp16, bf16 and fp32.
const POISON: u8 = 0xff;

/// Bytes of the smallest asynchronous copy, and so the grain at which copies in flight are known.
const GRAIN: usize = 4;

/// Bytes that products read at a time, and so the grain at which their operands are known.
pub(crate) const CHUNK: usize = 16;

/// Where each block's shared memory starts is a multiple of this, as permuted tiles need it.
const ALIGN: u32 = 1024;

/// Where the chunk at `address` of rows of 128 bytes lies: chunks are permuted within each row, each row of eight
/// differently, so that a column of chunks is spread over all banks.
pub(crate) const fn permute(address: u32) -> u32 {
    address ^ (address >> 3 & 0x70)
}

/// Marks the grains of an mbarrier.
const MBARRIER: u16 = u16::MAX;

/// The bytes, and what is going on with them.
pub(crate) struct SharedMemory {
    /// Bytes of one block.
    size: u32,
    /// From one block to the next.
    pub(crate) pitch: u32,
    /// Threads of a block.
    threads: u32,
    bytes: Vec<u8>,
    /// Per grain: 0, 1 + the thread of the cluster whose copy is to fill it, or [`MBARRIER`].
    in_flight: Vec<u16>,
    /// How many grains are not 0, so that a check costs nothing where none is.
    waiting: usize,
    /// Per chunk: how many products have yet to read it.
    reading: Vec<u32>,
    /// All of them.
    reads: usize,
}

impl SharedMemory {
    pub(crate) fn new(launch: &Launch<'_>) -> Self {
        let pitch = launch.shared_bytes.next_multiple_of(ALIGN);
        let bytes = (pitch * launch.cluster) as usize;
        Self {
            size: launch.shared_bytes,
            pitch,
            threads: launch.threads,
            bytes: vec![POISON; bytes],
            in_flight: vec![0; bytes / GRAIN],
            waiting: 0,
            reading: vec![0; bytes / CHUNK],
            reads: 0,
        }
    }

    /// Forgets everything.
    pub(crate) fn poison(&mut self) {
        self.bytes.fill(POISON);
        if self.waiting > 0 {
            self.in_flight.fill(0);
            self.waiting = 0;
        }
        if self.reads > 0 {
            self.reading.fill(0);
            self.reads = 0;
        }
    }

    #[inline]
    fn check(&self, address: u32, bytes: u32, align: u32, access: Access) -> Result<(), Cause> {
        if u64::from(address) + u64::from(bytes) > u64::from(self.size) {
            return Err(Cause::OutOfShared { access, address, bytes, size: self.size });
        }
        if address & (align - 1) != 0 {
            return Err(Cause::MisalignedShared { access, address, bytes, align });
        }
        Ok(())
    }

    /// Whether nothing that fills these bytes, which `thread` accesses, is in flight, and they are no mbarrier.
    #[inline]
    fn check_flight(&self, thread: u32, base: u32, address: u32, bytes: u32, access: Access) -> Result<(), Cause> {
        if self.waiting == 0 {
            return Ok(());
        }
        let at = base + address;
        let first = at as usize / GRAIN;
        let last = (at + bytes - 1) as usize / GRAIN;
        match self.in_flight[first..=last].iter().find(|&&issuer| issuer != 0) {
            Some(&MBARRIER) => Err(Cause::Mbarrier { address, misuse: Misuse::Touched(access) }),
            Some(&issuer) => {
                let issuer = Actor::thread(u32::from(issuer) - 1, thread, self.threads);
                Err(Cause::InFlight { access, address, bytes, issuer })
            }
            None => Ok(()),
        }
    }

    /// Whether no product has yet to read these bytes.
    #[inline]
    fn check_reads(&self, base: u32, address: u32, bytes: u32) -> Result<(), Cause> {
        if self.reads == 0 {
            return Ok(());
        }
        let at = base + address;
        let (first, last) = (at as usize / CHUNK, (at + bytes - 1) as usize / CHUNK);
        match self.reading[first..=last].iter().all(|&reads| reads == 0) {
            true => Ok(()),
            false => Err(Cause::Operand { address, bytes }),
        }
    }

    fn mark(&mut self, at: u32, bytes: u32, with: u16) {
        let grains = bytes as usize / GRAIN;
        self.in_flight[at as usize / GRAIN..][..grains].fill(with);
        match with {
            0 => self.waiting -= grains,
            _ => self.waiting += grains,
        }
    }
}

impl Machine<'_> {
    /// Reads on behalf of `thread`, which is of the running thread's block.
    #[inline]
    pub(crate) fn read_shared<const N: usize>(&mut self, thread: u32, address: u32) -> Outcome<[u8; N]> {
        let (base, bytes) = (self.base, N as u32);
        let checked = self.shared.check(address, bytes, bytes, Access::Load).and_then(|()| match &mut self.races {
            Some(races) => {
                self.shared.check_flight(thread, base, address, bytes, Access::Load)?;
                races.load(thread, base + address, bytes)
            }
            None => Ok(()),
        });
        match checked {
            Ok(()) => {
                let mut data = [0; N];
                data.copy_from_slice(&self.shared.bytes[(base + address) as usize..][..N]);
                Ok(data)
            }
            Err(cause) => self.fault_of(thread, cause),
        }
    }

    /// Makes sure that the running thread may store there, and counts it as done.
    #[inline]
    fn claim(&mut self, base: u32, address: u32, bytes: u32, align: u32) -> Outcome<&mut [u8]> {
        self.claim_as(self.thread, base, address, bytes, align)
    }

    /// The same for any thread.
    #[inline]
    fn claim_as(&mut self, thread: u32, base: u32, address: u32, bytes: u32, align: u32) -> Outcome<&mut [u8]> {
        let checked = self.shared.check(address, bytes, align, Access::Store).and_then(|()| {
            self.shared.check_flight(thread, base, address, bytes, Access::Store)?;
            self.shared.check_reads(base, address, bytes)?;
            self.races.as_mut().map_or(Ok(()), |races| races.store(thread, base + address, bytes))
        });
        match checked {
            Ok(()) => Ok(&mut self.shared.bytes[(base + address) as usize..][..bytes as usize]),
            Err(cause) => self.fault_of(thread, cause),
        }
    }

    /// Stores on behalf of the running thread in the block whose memory starts at `base`.
    #[inline]
    pub(crate) fn write_shared(&mut self, base: u32, address: u32, data: &[u8]) -> Outcome<()> {
        let bytes = data.len() as u32;
        self.claim(base, address, bytes, bytes)?.copy_from_slice(data);
        Ok(())
    }

    /// Stores a chunk on behalf of any thread, in its own block.
    pub(crate) fn write_chunk(&mut self, thread: u32, address: u32, chunk: [u8; CHUNK]) -> Outcome<()> {
        let bytes = CHUNK as u32;
        self.claim_as(thread, self.base, address, bytes, bytes)?.copy_from_slice(&chunk);
        Ok(())
    }

    /// Poisons what a copy by the running thread is to fill in the block whose memory starts at `base`.
    pub(crate) fn reserve_shared(&mut self, base: u32, address: u32, bytes: u32, align: u32) -> Outcome<()> {
        self.claim(base, address, bytes, align)?.fill(POISON);
        self.shared.mark(base + address, bytes, self.thread as u16 + 1);
        Ok(())
    }

    /// Fills what [`Self::reserve_shared`] has poisoned for this thread.
    pub(crate) fn fill_shared(&mut self, address: u32, data: &[u8]) -> Outcome<()> {
        self.shared.mark(self.base + address, data.len() as u32, 0);
        self.write_shared(self.base, address, data)
    }

    /// A copy reserved at `at`, an address through all blocks, lands: rows of 128 bytes, permuted.
    pub(crate) fn land(&mut self, at: u32, rows: &[u8]) {
        self.shared.mark(at, rows.len() as u32, 0);
        for (to, chunk) in (at..).step_by(CHUNK).zip(rows.chunks_exact(CHUNK)) {
            self.shared.bytes[permute(to) as usize..][..CHUNK].copy_from_slice(chunk);
        }
    }

    /// Makes 8 bytes an mbarrier.
    pub(crate) fn claim_mbarrier(&mut self, address: u32) -> Outcome<()> {
        let base = self.base;
        self.claim(base, address, 8, 8)?;
        self.shared.mark(base + address, 8, MBARRIER);
        Ok(())
    }

    /// A warp issues a product that will read the chunk at `address`; the first warp to do so holds it. `last` is for
    /// [`crate::race::Races::offer`].
    pub(crate) fn offer_chunk(&mut self, warp: u32, address: u32, hold: bool, last: &mut Option<Event>) -> Outcome<()> {
        let (base, bytes) = (self.base, CHUNK as u32);
        let checked = self.shared.check(address, bytes, bytes, Access::Load).and_then(|()| match &self.races {
            Some(races) => {
                self.shared.check_flight(self.thread, base, address, bytes, Access::Load)?;
                races.offer(warp, base + address, bytes, last)
            }
            None => Ok(()),
        });
        if let Err(cause) = checked {
            return self.fault(cause);
        }
        if hold {
            self.shared.reading[(base + address) as usize / CHUNK] += 1;
            self.shared.reads += 1;
        }
        Ok(())
    }

    /// Reads a chunk that [`Self::offer_chunk`] held, as its bytes.
    pub(crate) fn consume_chunk(&mut self, address: u32) -> [u8; CHUNK] {
        let at = (self.base + address) as usize;
        self.shared.reading[at / CHUNK] -= 1;
        self.shared.reads -= 1;
        std::array::from_fn(|i| self.shared.bytes[at + i])
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
        machine.write_shared(machine.base, address, &data)
    });
}

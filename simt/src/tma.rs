//! The copy engine: boxes of a tensor to shared memory of one or more blocks, by one thread, beside all threads.
//!
//! The destination is poison from the issue on; the schedule says when the copy lands, in any order, and in each block on its
//! own. It is over for those that waited for the phase of its mbarrier in their block.

use std::cell::OnceCell;
use std::rc::Rc;

use crate::Cause;
use crate::machine::{Machine, Outcome, enter};

/// Bytes of a row of a box.
const ROW: u32 = 128;

/// Elements of a row of a box.
const COLUMNS: i64 = ROW as i64 / 2;

/// What a destination is aligned to: eight rows, which the permutation goes through.
const ALIGN: u32 = 1024;

/// A tensor of two-byte elements in four dimensions, the contiguous one first, and the box that is copied of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Address of the first element, a multiple of 16.
    pub address: u64,
    /// Elements in each dimension.
    pub extents: [u32; 4],
    /// Bytes from one element to the next in all dimensions but the first; multiples of 16.
    pub strides: [u64; 3],
    /// Rows (elements of the second dimension) of a box, 1 to 256. It has 64 elements of the first dimension and one of the
    /// others.
    pub rows: u32,
}

impl TensorMap {
    fn check(&self) -> Result<(), Cause> {
        if !self.address.is_multiple_of(16) {
            return Err(Cause::TensorMap("the tensor starts at a multiple of 16 bytes"));
        }
        if self.strides.iter().any(|stride| !stride.is_multiple_of(16)) {
            return Err(Cause::TensorMap("strides are multiples of 16 bytes"));
        }
        if self.extents.contains(&0) {
            return Err(Cause::TensorMap("every dimension has at least one element"));
        }
        if !(1..=256).contains(&self.rows) {
            return Err(Cause::TensorMap("a box has 1 to 256 rows"));
        }
        Ok(())
    }
}

/// A copy under way to one block.
pub(crate) struct BulkCopy {
    source: Rc<Source>,
    /// Where to, and its barrier, as addresses through all blocks of the cluster.
    to: u32,
    barrier: u32,
}

impl BulkCopy {
    /// Where it goes, as an address through all blocks of the cluster.
    pub(crate) fn to(&self) -> u32 {
        self.to
    }
}

/// What one instruction copies.
struct Source {
    map: TensorMap,
    from: [u32; 4],
    /// The thread that issued it.
    issuer: u32,
    /// The box, once it has been read: however many blocks get it, it is read once.
    data: OnceCell<Vec<u8>>,
}

impl Machine<'_> {
    /// Ends one of the copies under way.
    pub(crate) fn deliver(&mut self, index: usize) -> Outcome<()> {
        let BulkCopy { source, to, barrier } = self.bulk_copies.swap_remove(index);
        let data = match source.data.get() {
            Some(data) => data,
            None => {
                let data = self.read_box(&source)?;
                source.data.get_or_init(|| data)
            }
        };
        self.land(to, data);
        self.complete_copy(barrier, to, data.len() as u32);
        Ok(())
    }

    /// The rows of a box, one after the other.
    fn read_box(&mut self, &Source { map, from, issuer, .. }: &Source) -> Outcome<Vec<u8>> {
        let [columns, rows, heads, batches] = map.extents.map(i64::from);
        let [column, first_row, head, batch] = from.map(|coordinate| i64::from(coordinate.cast_signed()));
        let inside = (0..heads).contains(&head) && (0..batches).contains(&batch);
        // The part of each row that exists.
        let (begin, end) = (column.max(0), (column + COLUMNS).min(columns));
        let mut data = vec![0; (map.rows * ROW) as usize];
        for (row, data) in (first_row..).zip(data.chunks_exact_mut(ROW as usize)) {
            if inside && begin < end && (0..rows).contains(&row) {
                let outer = [row, head, batch].into_iter().zip(map.strides);
                let offset =
                    outer.map(|(index, stride)| index as u64 * stride).fold(begin as u64 * 2, u64::wrapping_add);
                let part = ((begin - column) * 2) as usize..((end - column) * 2) as usize;
                self.read_global(issuer, map.address.wrapping_add(offset), 2, &mut data[part])?;
            }
        }
        Ok(data)
    }

    /// Starts a copy to the blocks of the cluster whose bits are set.
    fn start_copy(&mut self, to: u32, map: &TensorMap, barrier: u32, from: [u32; 4], blocks: u32) -> Outcome<()> {
        if let Err(cause) = map.check() {
            return self.fault(cause);
        }
        if blocks == 0 {
            return self.fault(Cause::ToNobody);
        }
        let (bytes, issuer) = (map.rows * ROW, self.thread);
        let source = Rc::new(Source { map: *map, from, issuer, data: OnceCell::new() });
        self.touched_global[issuer as usize] = true;
        self.stats.bulk_copies += 1;
        for rank in (0..u32::BITS).filter(|rank| blocks >> rank & 1 == 1) {
            let base = self.peer(rank)?;
            self.check_mbarrier(base, barrier)?;
            self.reserve_shared(base, to, bytes, ALIGN)?;
            self.stats.bulk_copy_bytes += u64::from(bytes);
            let source = Rc::clone(&source);
            self.bulk_copies.push(BulkCopy { source, to: base + to, barrier: base + barrier });
        }
        Ok(())
    }
}

/// Starts copying the box at `[column, row, head, batch]` (signed) to shared memory, 128 bytes a row, rows' chunks of 16 bytes
/// permuted in groups of eight rows: chunk `c` of row `r` lies where chunk `c ^ (r % 8)` would. What lies outside the tensor
/// becomes zeros. The bytes, zeros included, complete on the barrier (`cp.async.bulk.tensor.4d` with 128-byte swizzle).
pub fn tma_load(dst_shared: u32, map: &TensorMap, barrier: u32, coordinates: [u32; 4]) {
    enter(|machine| machine.start_copy(dst_shared, map, barrier, coordinates, 1 << machine.rank));
}

/// Like [`tma_load`], but to every block of the cluster whose rank is a set bit of `blocks`, which must be known to have
/// started and must still run: to the same address in each of them, and its bytes complete on the barrier at the same
/// address there (`.multicast::cluster`).
pub fn tma_load_multicast(dst_shared: u32, map: &TensorMap, barrier: u32, coordinates: [u32; 4], blocks: u16) {
    enter(|machine| machine.start_copy(dst_shared, map, barrier, coordinates, blocks.into()));
}

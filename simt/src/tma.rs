//! The copy engine: boxes of a tensor to shared memory, by one thread, beside all threads.
//!
//! The destination is poison from the issue on; the schedule says when the copy lands, in any order. It is over for those
//! that waited for the phase of its mbarrier.

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

/// A copy under way.
pub(crate) struct BulkCopy {
    map: TensorMap,
    from: [u32; 4],
    /// Where to, and its barrier, as addresses through all blocks of the cluster.
    to: u32,
    barrier: u32,
    /// The thread that issued it.
    issuer: u32,
}

impl Machine<'_> {
    /// Ends one of the copies under way.
    pub(crate) fn deliver(&mut self, index: usize) -> Outcome<()> {
        let BulkCopy { map, from, to, barrier, issuer } = self.bulk_copies.swap_remove(index);
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
        self.land(to, &data);
        self.complete_copy(barrier, to, map.rows * ROW);
        Ok(())
    }
}

/// Starts copying the box at `[column, row, head, batch]` (signed) to shared memory, 128 bytes a row, rows' chunks of 16 bytes
/// permuted in groups of eight rows: chunk `c` of row `r` lies where chunk `c ^ (r % 8)` would. What lies outside the tensor
/// becomes zeros. The bytes, zeros included, complete on the barrier (`cp.async.bulk.tensor.4d` with 128-byte swizzle).
pub fn tma_load(dst_shared: u32, map: &TensorMap, barrier: u32, coordinates: [u32; 4]) {
    enter(|machine| {
        if let Err(cause) = map.check() {
            return machine.fault(cause);
        }
        machine.check_mbarrier(barrier)?;
        machine.reserve_shared(dst_shared, map.rows * ROW, ALIGN)?;
        machine.touched_global[machine.thread as usize] = true;
        machine.stats.bulk_copies += 1;
        machine.stats.bulk_copy_bytes += u64::from(map.rows * ROW);
        machine.bulk_copies.push(BulkCopy {
            map: *map,
            from: coordinates,
            to: machine.base + dst_shared,
            barrier: machine.base + barrier,
            issuer: machine.thread,
        });
        Ok(())
    });
}

//! What a tensor map says.

use crate::layout::words;
use crate::{LaunchGeometry, Problem, Strides, TensorMaps};

/// A tensor of two-byte words as the copy engine sees it: `[batch, head, row, column]` with the columns contiguous, and a
/// box of one head's rows by 64 columns. A word is an element of 16 bits, or two of 8.
///
/// For a GPU the driver encodes it to its own 128 bytes; the CPU machine takes it in the same space as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainMap {
    /// Address of the first element.
    pub address: u64,
    /// Words of a row, rows, heads, batch entries.
    pub extents: [u32; 4],
    /// Bytes from one row, head and batch entry to the next, multiples of 16.
    pub strides: [u64; 3],
    /// Rows of a box.
    pub box_rows: u32,
}

impl PlainMap {
    /// The maps of Q, K and V at these addresses; `None` if the kernel takes none.
    pub fn of(geometry: &LaunchGeometry, problem: &Problem, [q, k, v]: [u64; 3]) -> Option<[Self; 3]> {
        let boxes = geometry.boxes?;
        let Problem { batch, heads_q, heads_kv, seqlen_q, head_dim_qk, head_dim_v, .. } = *problem;
        let element = u64::from(problem.dtype.bytes());
        let map = |address, columns, rows, heads, strides: &Strides, box_rows| {
            let outer = [(rows, strides.seq), (heads, strides.head), (batch, strides.batch)];
            // Nobody steps along a dimension of one element: its stride may be anything, but a map's may not.
            let step = |(extent, stride): (u32, i64)| if extent > 1 { stride.unsigned_abs() * element } else { 16 };
            let row = words(columns, problem.dtype.bytes());
            Self { address, extents: [row, rows, heads, batch], strides: outer.map(step), box_rows }
        };
        let strides = &problem.strides;
        // Keys that no row sees become zeros like those that do not exist: what they hold must not reach a product.
        let keys = problem.visible_keys(seqlen_q - 1).end.max(1);
        Some([
            map(q, head_dim_qk, seqlen_q, heads_q, &strides.q, boxes.q),
            map(k, head_dim_qk, keys, heads_kv, &strides.k, boxes.kv),
            map(v, head_dim_v, keys, heads_kv, &strides.v, boxes.kv),
        ])
    }

    /// The map in the space of an encoded one.
    pub fn to_words(self) -> [u64; 16] {
        let Self { address, extents: [columns, rows, heads, batch], strides: [row, head, entry], box_rows } = self;
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [address, pair(columns, rows), pair(heads, batch), row, head, entry, box_rows.into(), 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    /// Inverse of [`Self::to_words`].
    pub fn from_words(words: &[u64; 16]) -> Self {
        let [address, columns_rows, heads_batch, row, head, entry, box_rows, ..] = *words;
        let extents =
            [columns_rows as u32, (columns_rows >> 32) as u32, heads_batch as u32, (heads_batch >> 32) as u32];
        Self { address, extents, strides: [row, head, entry], box_rows: box_rows as u32 }
    }
}

impl TensorMaps {
    /// The maps as the CPU machine takes them.
    pub fn plain(maps: [PlainMap; 3]) -> Self {
        Self(maps.map(PlainMap::to_words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Align, DeviceLimits, Family, Mask, Variant, legal};

    #[test]
    fn maps_are_those_of_the_tensors() {
        let problem = Problem::SEED.with_heads_kv(2).with_seqlens(100, 70);
        let variant = Variant::smallest(Family::Wgmma);
        let geometry = legal(&problem, &variant, &DeviceLimits::H100).unwrap();
        let maps = PlainMap::of(&geometry, &problem, [16, 32, 48]).unwrap();
        assert_eq!(maps.map(|map| map.address), [16, 32, 48]);
        assert_eq!(maps[0].extents, [64, 100, 8, 1]);
        assert_eq!(maps[1].extents, [64, 70, 2, 1]);
        assert_eq!(maps[1].strides, [256, 128, 16]);
        assert_eq!(maps[2].box_rows, geometry.boxes.unwrap().kv);
        assert_eq!(maps.map(|map| PlainMap::from_words(&map.to_words())), maps);
        let bytes = Problem::new(1, 8, 100, 128, crate::Dtype::E4m3);
        let of_bytes = legal(&bytes, &variant, &DeviceLimits::H100).unwrap();
        let maps_of_bytes = PlainMap::of(&of_bytes, &bytes, [16, 32, 48]).unwrap();
        assert_eq!((maps_of_bytes[0].extents, maps_of_bytes[0].strides), ([64, 100, 8, 1], [1024, 128, 16]));
        let hiding = problem.with_mask(Mask::Causal(Align::TopLeft)).with_seqlens(50, 70);
        let maps = PlainMap::of(&geometry, &hiding, [16, 32, 48]).unwrap();
        assert_eq!(maps.map(|map| map.extents[1]), [50, 50, 50]);
        let none = legal(&problem, &Variant::smallest(Family::Tiled), &DeviceLimits::H100);
        assert_eq!(none.map(|geometry| PlainMap::of(&geometry, &problem, [0; 3])), Ok(None));
    }
}

//! Appending to a K/V cache.

use core::fmt;

use crate::legal::{check_problem, steps_of};
use crate::{Features, Illegal, Problem, Strides};

/// Threads of a block.
pub const APPEND_THREADS: u32 = 128;
/// Neighbouring threads that copy one row of K, and the same one of V.
pub const APPEND_LANES: u32 = 16;
/// Rows of K and V together, of one head each, that a block copies.
const ROWS: u32 = APPEND_THREADS / APPEND_LANES;
/// Row numbers plus a block must fit `u32`.
const MAX_ROWS: u64 = 1 << 31;
/// Bytes of the widest access.
const WIDEST: u64 = 16;
/// Bytes of the narrowest access: elements of one byte are copied two at a time.
pub const APPEND_ALIGNMENT: u32 = 2;

/// New keys and values of every batch entry, for the cache that a problem's K and V are.
///
/// Row `i` of entry `b` becomes the entry's key `used[b] + i`, where `used` is an array on the GPU like
/// [`Extra::UsedKv`](crate::Extra::UsedKv). Keys from the problem's `seqlen_kv` on, for which there is no room, are dropped, and
/// so are those whose page is none of the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Append {
    cache: Problem,
    rows: u32,
    strides: [Strides; 2],
}

impl Append {
    /// Contiguous `[batch, rows, heads_kv, head_dim]` to the cache of `problem`: with [`Features::pages`] its pages, else rows of
    /// K and V. Mask, scale and what else is asked of the scores do not matter.
    pub const fn to(problem: &Problem, rows: u32) -> Self {
        let Problem { heads_kv, head_dim_qk, head_dim_v, .. } = *problem;
        let Features { packed_kv, pages, .. } = problem.features;
        let features = Features { packed_kv, pages, used_kv: true, ..Features::NONE };
        Self {
            cache: Problem { features, scale: None, ..*problem },
            rows,
            strides: [Strides::bshd(rows, heads_kv, head_dim_qk), Strides::bshd(rows, heads_kv, head_dim_v)],
        }
    }

    /// The same where the new rows of K and of V have other strides.
    #[must_use]
    pub const fn with_strides(self, k: Strides, v: Strides) -> Self {
        Self { strides: [k, v], ..self }
    }

    /// The problem whose K and V are the cache, with nothing but [used lengths](Features::used_kv) and pages of its features.
    pub const fn cache(&self) -> &Problem {
        &self.cache
    }

    /// New keys of each batch entry.
    pub const fn rows(&self) -> u32 {
        self.rows
    }

    /// Shapes of the new K and V, and of those of the cache, as they are in memory.
    pub const fn shapes(&self) -> [[u32; 4]; 4] {
        let Problem { batch, heads_kv, head_dim_qk, head_dim_v, .. } = self.cache;
        let [_, k, v, _] = self.cache.shapes();
        [[batch, self.rows, heads_kv, head_dim_qk], [batch, self.rows, heads_kv, head_dim_v], k, v]
    }

    /// Strides of the new K and V, and of those of the cache.
    pub const fn strides(&self) -> [Strides; 4] {
        let [k, v] = self.strides;
        [k, v, self.cache.strides.k, self.cache.strides.v]
    }

    /// Blocks of its launch, each of [`APPEND_THREADS`] threads without shared memory.
    ///
    /// # Errors
    ///
    /// Whatever makes the problem impossible; no new keys, or more than the cache has room for; elements of one byte whose rows
    /// start at odd addresses.
    pub fn blocks(&self) -> Result<u32, Illegal> {
        check_problem(&self.cache)?;
        for ((strides, shape), tensor) in self.strides().into_iter().zip(self.shapes()).zip(['K', 'V', 'K', 'V']) {
            let element = i64::from(self.cache.dtype.bytes());
            let odd = |(_, stride): (&str, i64)| stride.wrapping_mul(element) % i64::from(APPEND_ALIGNMENT) != 0;
            if steps_of(strides, shape).any(odd) {
                return Err(Illegal::Alignment { tensor, access_bytes: APPEND_ALIGNMENT });
            }
        }
        let most = self.cache.seqlen_kv;
        if !(1..=most).contains(&self.rows) {
            return Err(Illegal::NewKeys { value: self.rows, most });
        }
        let rows = self.all_rows();
        if rows > MAX_ROWS {
            return Err(Illegal::NewRows { rows, most: MAX_ROWS });
        }
        Ok((rows as u32).div_ceil(ROWS))
    }

    /// The kernel's argument for arrays at these device addresses.
    pub fn args(&self, addresses: &AppendAddresses) -> AppendArgs {
        let Problem { heads_kv, seqlen_kv, head_dim_qk, head_dim_v, dtype, .. } = self.cache;
        let element = i64::from(dtype.bytes());
        // Of dimensions of one element a stride may be anything.
        let in_bytes = |Strides { batch, seq, head }: Strides| Strides {
            batch: batch.wrapping_mul(element),
            seq: seq.wrapping_mul(element),
            head: head.wrapping_mul(element),
        };
        let pages = self.cache.features.pages;
        let [.., [places, ..], _] = self.shapes();
        AppendArgs {
            addresses: *addresses,
            strides: self.strides().map(in_bytes),
            heads_kv,
            rows: self.rows,
            all_rows: self.all_rows() as u32,
            seqlen_kv,
            places,
            page_size: pages.map_or(0, |pages| pages.size),
            page_columns: pages.map_or(0, |pages| pages.columns),
            k_bytes: head_dim_qk * dtype.bytes(),
            v_bytes: head_dim_v * dtype.bytes(),
            access_bytes: self.access_bytes(addresses),
        }
    }

    /// Bytes of the widest access, at most [`WIDEST`], at a multiple of which every row starts and ends.
    fn access_bytes(&self, addresses: &AppendAddresses) -> u32 {
        let Problem { head_dim_qk, head_dim_v, dtype, .. } = self.cache;
        let element = u64::from(dtype.bytes());
        let AppendAddresses { new_k, new_v, k, v, .. } = *addresses;
        let starts = [new_k, new_v, k, v];
        let rows = [head_dim_qk, head_dim_v].map(|columns| u64::from(columns) * element);
        let steps = self.strides().into_iter().zip(self.shapes()).flat_map(|(strides, shape)| steps_of(strides, shape));
        let steps = steps.map(|(_, stride)| (stride as u64).wrapping_mul(element));
        // What divides all of them divides their union of bits.
        let all = starts.into_iter().chain(rows).chain(steps).fold(WIDEST, |all, bytes| all | bytes);
        1 << all.trailing_zeros()
    }

    /// New rows of all heads and batch entries.
    fn all_rows(&self) -> u64 {
        // Three factors of 32 bits may need more than 64.
        let rows = u64::from(self.cache.batch) * u64::from(self.rows);
        rows.saturating_mul(self.cache.heads_kv.into())
    }
}

/// For example `4 new keys for b1-hq8-hk8-sq1-sk512-dqk64-dv64-f16-full-bshd-usedkv`.
impl fmt::Display for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} new keys for {}", self.rows, self.cache)
    }
}

/// Device addresses of what appending reads and writes, laid out as the [`Append`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct AppendAddresses {
    /// New K.
    pub new_k: u64,
    /// New V.
    pub new_v: u64,
    /// K of the cache.
    pub k: u64,
    /// V of the cache.
    pub v: u64,
    /// Keys that the cache holds of each batch entry, `[batch]` in `u32`.
    pub used: u64,
    /// The table of pages, `[batch, columns]` in `u32`; 0 where there are none.
    pub pages: u64,
    /// Where the keys are written that the cache then holds of each batch entry, `[batch]` in `u32`: what attention over all of
    /// them takes as its used lengths. 0 if they are not wanted.
    pub raised: u64,
}

/// The one argument of the kernel that appends, passed by value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct AppendArgs {
    /// Where everything is.
    pub addresses: AppendAddresses,
    /// Strides of the new K and V, and of those of the cache, in bytes. A page stands for a batch entry.
    pub strides: [Strides; 4],
    /// Key/value heads.
    pub heads_kv: u32,
    /// New keys of each batch entry.
    pub rows: u32,
    /// New rows of all heads and batch entries.
    pub all_rows: u32,
    /// Keys of a batch entry that there is room for.
    pub seqlen_kv: u32,
    /// Pages of the cache, or batch entries where there are none.
    pub places: u32,
    /// Keys of a page.
    pub page_size: u32,
    /// Columns of the table of pages.
    pub page_columns: u32,
    /// Bytes of a row of K.
    pub k_bytes: u32,
    /// Bytes of a row of V.
    pub v_bytes: u32,
    /// Bytes of one access: 2, 4, 8 or 16.
    pub access_bytes: u32,
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;
    use crate::{Dtype, Pages};

    #[test]
    fn bytes_are_copied_two_at_a_time() {
        let mut odd = CACHE.with_dtype(crate::Dtype::E4m3);
        assert!(Append::to(&odd, 4).blocks().is_ok());
        odd.strides.v.seq += 1;
        let refusal = Append::to(&odd, 4).blocks().unwrap_err();
        assert_eq!(refusal.to_string(), "2-byte accesses need every stride of V to be a multiple of 2 bytes");
    }

    const CACHE: Problem = Problem::new(3, 8, 1, 64, Dtype::F16).with_heads_kv(2).with_seqlens(1, 100);

    const ADDRESSES: AppendAddresses =
        AppendAddresses { new_k: 0x100, new_v: 0x200, k: 0x300, v: 0x400, used: 0x500, pages: 0, raised: 0 };

    #[test]
    fn accesses_are_as_wide_as_everything_allows() {
        let width = |append: &Append, addresses| append.args(&addresses).access_bytes;
        let append = Append::to(&CACHE, 5);
        assert_eq!(append.blocks(), Ok(4));
        assert_eq!(width(&append, ADDRESSES), 16);
        assert_eq!(width(&append, AppendAddresses { new_v: 0x208, ..ADDRESSES }), 8);
        assert_eq!(width(&append, AppendAddresses { k: 0x302, ..ADDRESSES }), 2);
        let [k, v, ..] = append.strides();
        assert_eq!(width(&append.with_strides(Strides { head: 66, ..k }, v), ADDRESSES), 4);
        let one = Append::to(&Problem { batch: 1, ..CACHE }, 1);
        let anything = Strides { batch: 1, seq: -3, head: 64 };
        assert_eq!(width(&one.with_strides(anything, anything), ADDRESSES), 16, "nobody steps along one element");
    }

    #[test]
    fn refusals_carry_their_numbers() {
        let refusal = |problem: &Problem, rows| Append::to(problem, rows).blocks().unwrap_err().to_string();
        for rows in [0, 101] {
            let expected = std::format!("{rows} new keys of each batch entry; 1 to 100 are allowed, as seqlen_kv is");
            assert_eq!(refusal(&CACHE, rows), expected);
        }
        let packed = Features { packed_kv: Some(7), ..Features::NONE };
        let packed = Problem { features: packed, ..CACHE };
        assert_eq!(refusal(&packed, 1), "packed_kv and used_kv are both set; they exclude each other");
        let small = Features { pages: Some(Pages { count: 9, size: 16, columns: 6 }), ..Features::NONE };
        let small = Problem { features: small, ..CACHE };
        assert_eq!(refusal(&small, 1), "the size x columns of pages is 96; 100 to 536870912 are allowed");
        assert!(refusal(&Problem { head_dim_v: 12, ..CACHE }, 1).starts_with("head_dim_v is 12; "));
        let many = Problem { batch: u32::MAX, ..CACHE };
        let expected = "858993459000 new rows over all batch entries and heads; at most 2147483648 are allowed";
        assert_eq!(refusal(&many, 100), expected);
    }
}

//! Appending to a K/V cache: new rows of K and V are copied to where the keys of each batch entry end.
//!
//! It computes nothing, and so is of no family: one entry point copies rows of any type and width.

use spec::{APPEND_LANES, APPEND_THREADS, AppendArgs, Strides};

use crate::gpu::{Global, block_index, divide, thread_index};

/// A row's way from the new ones into the cache.
#[derive(Clone, Copy)]
struct Move {
    from: Global,
    to: Global,
    bytes: u32,
}

/// One block's rows. Each goes by neighbouring threads, the head's row of K and of V together.
#[inline(always)]
pub fn append(args: &AppendArgs) {
    let (group, lane) = (thread_index() / APPEND_LANES, thread_index() % APPEND_LANES);
    let row = block_index() * (APPEND_THREADS / APPEND_LANES) + group;
    if row >= args.all_rows {
        return;
    }
    let (token, head) = divide(row, args.heads_kv);
    let (entry, new) = divide(token, args.rows);
    let used = Global::new(args.addresses.used).at(i64::from(entry) * 4).load_u32();
    let raised = Global::new(args.addresses.raised);
    if !raised.is_null() && new == 0 && head == 0 && lane == 0 {
        raised.at(i64::from(entry) * 4).store_u32(used.saturating_add(args.rows).min(args.seqlen_kv));
    }
    // What the arrays hold is not trusted: nothing is written where the cache is not.
    let key = used.saturating_add(new);
    if key >= args.seqlen_kv {
        return;
    }
    let (place, position) = place(args, entry, key);
    if place >= args.places {
        return;
    }

    let row_of = |tensor: u64, Strides { batch, seq, head: h }: Strides, [place, position]: [u32; 2]| {
        Global::new(tensor).at(i64::from(place) * batch + i64::from(position) * seq + i64::from(head) * h)
    };
    let [new_k, new_v, cache_k, cache_v] = args.strides;
    let (from, to) = ([entry, new], [place, position]);
    let k = Move {
        from: row_of(args.addresses.new_k, new_k, from),
        to: row_of(args.addresses.k, cache_k, to),
        bytes: args.k_bytes,
    };
    let v = Move {
        from: row_of(args.addresses.new_v, new_v, from),
        to: row_of(args.addresses.v, cache_v, to),
        bytes: args.v_bytes,
    };
    match args.access_bytes {
        2 => copy(lane, k, v, 2, |from, to| to.store_u16(from.load_u16())),
        4 => copy(lane, k, v, 4, |from, to| to.store_u32(from.load_u32())),
        8 => copy(lane, k, v, 8, |from, to| to.store_pair(from.load_pair())),
        _ => copy(lane, k, v, 16, |from, to| to.store_chunk(from.load_chunk())),
    }
}

/// The page, or batch entry where there are no pages, that holds a key, and the key's position there.
#[inline(always)]
fn place(args: &AppendArgs, entry: u32, key: u32) -> (u32, u32) {
    let table = Global::new(args.addresses.pages);
    if table.is_null() {
        return (entry, key);
    }
    let (column, position) = divide(key, args.page_size);
    let index = i64::from(entry) * i64::from(args.page_columns) + i64::from(column);
    (table.at(index * 4).load_u32(), position)
}

/// This thread's share of two rows, so many bytes at a time.
#[inline(always)]
fn copy(lane: u32, k: Move, v: Move, access_bytes: u32, access: impl Fn(Global, Global)) {
    let of_k = k.bytes / access_bytes;
    let all = of_k + v.bytes / access_bytes;
    let mut index = lane;
    while index < all {
        let (Move { from, to, .. }, index_there) = if index < of_k { (k, index) } else { (v, index - of_k) };
        let byte = i64::from(index_there * access_bytes);
        access(from.at(byte), to.at(byte));
        index += APPEND_LANES;
    }
}

//! Block and thread of every thread, and values that the compilers know nothing of.

use std::vec::Vec;

use super::Probe;
use super::values::bytes;
use crate::probes::thread::{probe_indices, probe_opaque};

pub(super) const PROBES: &[Probe] = &[
    Probe::new("probe_indices", probe_indices, 64, Vec::new, |_| {
        bytes((0..3).flat_map(|block| (0..64).flat_map(move |thread| [block, thread, 3])))
    })
    .blocks(3),
    // What is added to hide a value is 0 in every block.
    Probe::new("probe_opaque", probe_opaque, 32, any_words, <[u8]>::to_vec).blocks(2),
];

/// The largest word, whose sum with anything else wraps, and others.
fn any_words() -> Vec<u8> {
    bytes((0..64u32).map(|index| u32::MAX - index * 0x0403_0201))
}

//! Block and thread of every thread.

use std::vec::Vec;

use super::Probe;
use super::values::bytes;
use crate::probes::thread::probe_indices;

pub(super) const PROBES: &[Probe] = &[Probe::new("probe_indices", probe_indices, 64, Vec::new, |_| {
    bytes((0..3).flat_map(|block| (0..64).flat_map(move |thread| [block, thread, 3])))
})
.blocks(3)];

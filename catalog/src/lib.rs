//! The shipped catalog as bytes, for programs that are to run without any of the project's files.
#![no_std]

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../", $name)))),*]
    };
}

/// The catalog's files by name. The builder reads them: `builder::Catalog::embedded`.
pub const FILES: &[(&str, &[u8])] = files![
    "manifest.json"
    "decode-sm_80.shard"
    "decode-sm_89.shard"
    "decode-sm_90a.shard"
    "mma-sm_80.shard"
    "mma-sm_89.shard"
    "mma-sm_90a.shard"
    "tiled-sm_80.shard"
    "tiled-sm_89.shard"
    "tiled-sm_90a.shard"
    "wgmma-sm_90a.shard"
];

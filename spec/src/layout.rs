//! Where each family keeps what in shared memory: the kernels address by it, [`crate::legal()`] adds it up.
//!
//! All sizes and offsets are in bytes from the start of a block's dynamic shared memory.

use crate::DeviceLimits;

/// Bytes of the unit in which rows are loaded, padded and permuted.
pub const CHUNK: u32 = 16;

const fn round_up(value: u32, to: u32) -> u32 {
    value.div_ceil(to) * to
}

const fn max(a: u32, b: u32) -> u32 {
    if a > b { a } else { b }
}

/// Shared memory of the `tiled` family: one Q, K and V tile in the input dtype, probabilities as fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TiledLayout {
    /// From one row of the Q or K tile to the next.
    pub qk_pitch: u32,
    /// From one row of the V tile to the next.
    pub v_pitch: u32,
    /// Start of the K tile; Q starts at 0.
    pub k: u32,
    /// Start of the V tile.
    pub v: u32,
    /// Start of the probabilities, `tile_q` rows of `tile_kv` fp32.
    pub p: u32,
    /// All of it.
    pub bytes: u32,
}

impl TiledLayout {
    /// The layout for rows of so many bytes in Q and K, and in V, with `pad` chunks after each.
    pub const fn new(tile_q: u32, tile_kv: u32, qk_bytes: u32, v_bytes: u32, pad: u32) -> Self {
        let qk_pitch = round_up(qk_bytes, CHUNK) + pad * CHUNK;
        let v_pitch = round_up(v_bytes, CHUNK) + pad * CHUNK;
        let k = tile_q * qk_pitch;
        let v = k + tile_kv * qk_pitch;
        let p = v + tile_kv * v_pitch;
        Self { qk_pitch, v_pitch, k, v, p, bytes: p + tile_q * tile_kv * 4 }
    }
}

/// A partial result: rows of unnormalised fp32 outputs, then each row's maximum and sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialLayout {
    /// From one row of outputs to the next.
    pub pitch: u32,
    /// Start of the maxima and sums, 8 bytes a row.
    pub states: u32,
    /// All of it.
    pub bytes: u32,
}

impl PartialLayout {
    /// The layout for so many rows.
    pub const fn new(rows: u32, head_dim_v: u32) -> Self {
        // Eight spare columns keep the eight rows that a warp writes at once in different banks.
        let pitch = (round_up(head_dim_v, 16) + 8) * 4;
        // The next group's outputs are read in chunks, too.
        Self { pitch, states: rows * pitch, bytes: round_up(rows * pitch + rows * 8, CHUNK) }
    }
}

/// Shared memory of the `mma` family: Q, then a ring of K/V stages for each group of warps. If there are several, each leaves its
/// partial result in the space of its ring once its main loop is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmaLayout {
    /// From one row of the Q or K tile to the next.
    pub qk_pitch: u32,
    /// From one row of the V tile to the next.
    pub v_pitch: u32,
    /// Start of the first ring; Q starts at 0.
    pub rings: u32,
    /// Size of a K tile; those of a ring start it.
    pub k_tile: u32,
    /// Size of a V tile; those of a ring follow its K tiles.
    pub v_tile: u32,
    /// Size of a ring.
    pub ring: u32,
    /// A group's partial result.
    pub partial: PartialLayout,
    /// Start of the copy engine's barriers: Q's, then those of each ring's K tiles and V tiles.
    pub barriers: u32,
    /// All of it.
    pub bytes: u32,
}

impl MmaLayout {
    /// The layout for 16-bit elements; `pad` chunks after each row, groups of warps that share the keys, stages per ring.
    #[expect(clippy::too_many_arguments, reason = "one for each gene that matters")]
    pub const fn new(
        tile_q: u32,
        tile_kv: u32,
        head_dim_qk: u32,
        head_dim_v: u32,
        pad: u32,
        groups: u32,
        stages: u32,
        copy_engine: bool,
    ) -> Self {
        // Tensor-core steps are 16 wide: rows are filled with zeros up to there.
        let qk_pitch = round_up(head_dim_qk, 16) * 2 + pad * CHUNK;
        let v_pitch = round_up(head_dim_v, 16) * 2 + pad * CHUNK;
        let rings = tile_q * qk_pitch;
        let (k_tile, v_tile) = (tile_kv * qk_pitch, tile_kv * v_pitch);
        let partial = PartialLayout::new(tile_q, head_dim_v);
        // The permutation needs an alignment that holds for stages, but not for partial results.
        let ring = max((k_tile + v_tile) * stages, if groups > 1 { round_up(partial.bytes, 8 * PANEL_ROW) } else { 0 });
        let barriers = rings + groups * ring;
        let bytes = barriers + if copy_engine { (1 + 2 * groups * stages) * BARRIER } else { 0 };
        Self { qk_pitch, v_pitch, rings, k_tile, v_tile, ring, partial, barriers, bytes }
    }
}

/// Shared memory of the `decode` family: that of `mma` with a ring for each warp, and in a cluster a place where the partial results of
/// this block's share of the rows arrive, one from each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLayout {
    /// Q, rings and barriers.
    pub block: MmaLayout,
    /// Start of the partial results that arrive.
    pub inbox: u32,
    /// What and where each of them is.
    pub arrived: PartialLayout,
    /// All of it.
    pub bytes: u32,
}

impl DecodeLayout {
    /// The layout for 16-bit elements, `stages` per ring.
    #[expect(clippy::too_many_arguments, reason = "one for each gene that matters")]
    pub const fn new(
        tile_q: u32,
        tile_kv: u32,
        head_dim_qk: u32,
        head_dim_v: u32,
        warps: u32,
        stages: u32,
        cluster: u32,
        copy_engine: bool,
    ) -> Self {
        let pad = Self::pad(head_dim_qk, head_dim_v);
        let block = MmaLayout::new(tile_q, tile_kv, head_dim_qk, head_dim_v, pad, warps, stages, copy_engine);
        let arrived = PartialLayout::new(tile_q / cluster, head_dim_v);
        let inbox = round_up(block.bytes, CHUNK);
        let bytes = if cluster > 1 { inbox + cluster * arrived.bytes } else { block.bytes };
        Self { block, inbox, arrived, bytes }
    }

    /// Chunks of padding after each row: none where rows have chunks to permute.
    pub const fn pad(head_dim_qk: u32, head_dim_v: u32) -> u32 {
        let permuted = head_dim_qk.is_multiple_of(PANEL) && head_dim_v.is_multiple_of(PANEL);
        if permuted { 0 } else { 1 }
    }
}

/// Bytes of a word, in which the copy engine counts: an element of 16 bits, or two of 8.
pub const WORD: u32 = 2;

/// Words in a row of a panel: what the copy engine permutes and a product reads at a time.
pub const PANEL: u32 = 64;

/// Bytes of a row of a panel.
pub const PANEL_ROW: u32 = PANEL * WORD;

/// Words that so many elements of so many bytes are.
pub const fn words(elements: u32, element_bytes: u32) -> u32 {
    elements * element_bytes / WORD
}

/// Bytes of a tile of `rows` rows of so many words, kept as panels of 64.
pub const fn panels(rows: u32, words: u32) -> u32 {
    rows * round_up(words, PANEL) * WORD
}

/// Bytes of a barrier.
pub const BARRIER: u32 = 8;

/// Space for barriers, from 0 on: it keeps the tiles after it aligned to the 1024 bytes that the permutation needs.
pub const BARRIERS: u32 = 1024;

/// Where in that space the `wgmma` family's producer leaves each consumer the [chunk](CHUNK) that says which tile its Q is of.
pub const POSTED: u32 = BARRIERS / 2;

/// Registers of a thread of the copying warpgroup and of one that computes, for 1 to 4 of the latter.
pub const WGMMA_REGISTERS: [(u32, u32); 4] = [(56, 240), (24, 240), (32, 160), (24, 112)];

/// The same where the copying warpgroup turns V, for 1 to 3.
pub const WGMMA_TURNING_REGISTERS: [(u32, u32); 3] = [(56, 240), (40, 232), (56, 152)];

/// Keys over which tensor cores add up products of one-byte elements, in whole tiles: their sums keep few bits, so that longer ones
/// are put together in fp32.
pub const SUMMED_KEYS: u32 = 1024;

/// Shared memory of the `wgmma` family when one warpgroup copies for those that compute: barriers, Q, a ring of K tiles,
/// one of V tiles, and for elements of one byte another of V tiles as they are copied, before they are turned, and sums in fp32.
///
/// Each consumer's 64 rows have a place of their own, for Q and then for O on its way out, which leaves from the sums where
/// there are any. Persistent blocks have two of them where there is the memory, so that the next Q comes meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WgmmaLayout {
    /// Size of a consumer's place; they start at [`BARRIERS`].
    pub rows: u32,
    /// Size of all consumers' rows.
    pub tile: u32,
    /// Places for each of them.
    pub places: u32,
    /// Start of the ring of K tiles.
    pub k: u32,
    /// Size of a K tile.
    pub k_tile: u32,
    /// Start of the ring of V tiles that are multiplied.
    pub v: u32,
    /// Size of such a V tile.
    pub v_tile: u32,
    /// Start of the ring of V tiles that are copied: the same, unless V is turned.
    pub copied_v: u32,
    /// Size of such a V tile.
    pub copied_v_tile: u32,
    /// Tiles of that ring: one, if V is turned, since turning it is quick.
    pub copied_stages: u32,
    /// Start of the consumers' sums, if there are any.
    pub sums: u32,
    /// Size of a consumer's sums and the maxima that they are relative to.
    pub sums_rows: u32,
    /// All of it.
    pub bytes: u32,
}

impl WgmmaLayout {
    /// The layout for elements of so many bytes, 2 or 1. Elements of one byte have V turned: a product reads them along its
    /// depth alone.
    pub const fn new(
        tile_q: u32,
        tile_kv: u32,
        head_dim_qk: u32,
        head_dim_v: u32,
        stages: u32,
        persistent: bool,
        element_bytes: u32,
    ) -> Self {
        let k_tile = panels(tile_kv, words(head_dim_qk, element_bytes));
        let copied_v_tile = panels(tile_kv, words(head_dim_v, element_bytes));
        let turned = element_bytes < WORD;
        let v_tile = if turned { panels(head_dim_v, words(tile_kv, element_bytes)) } else { copied_v_tile };
        let q = panels(64, words(head_dim_qk, element_bytes));
        // A lane has two rows' maxima beside its sums.
        let (rows, sums_rows) =
            if turned { (q, 64 * head_dim_v * 4 + 128 * 8) } else { (max(q, panels(64, head_dim_v)), 0) };
        let tile = tile_q / 64 * rows;
        let copied_stages = if turned { 1 } else { stages };
        let copied = if turned { copied_stages * copied_v_tile } else { 0 };
        let rest = BARRIERS + stages * (k_tile + v_tile) + copied + tile_q / 64 * sums_rows;
        let places = if persistent && rest + 2 * tile <= DeviceLimits::H100.shared_bytes_per_block { 2 } else { 1 };
        let k = BARRIERS + places * tile;
        let v = k + stages * k_tile;
        let copied_v = if turned { v + stages * v_tile } else { v };
        Self {
            rows,
            tile,
            places,
            k,
            k_tile,
            v,
            v_tile,
            copied_v,
            copied_v_tile,
            copied_stages,
            sums: copied_v + copied_stages * copied_v_tile,
            sums_rows,
            bytes: rest + places * tile,
        }
    }
}

/// Shared memory of the `wgmma` family when warpgroups (and blocks of a cluster) share the keys: barriers, Q, a ring of
/// K/V stages for each warpgroup, and a place where the partial results of this block's rows arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WgmmaSplitLayout {
    /// Start of Q; barriers start at 0.
    pub q: u32,
    /// Start of the first ring.
    pub rings: u32,
    /// V within a stage; K starts it.
    pub v_in_stage: u32,
    /// Size of a stage.
    pub stage: u32,
    /// Size of a ring.
    pub ring: u32,
    /// Start of the partial results.
    pub partials: u32,
    /// What and where each of them is.
    pub partial: PartialLayout,
    /// All of it.
    pub bytes: u32,
}

impl WgmmaSplitLayout {
    /// The layout for 16-bit elements, `groups` warpgroups a block and `cluster` blocks.
    pub const fn new(
        tile_q: u32,
        tile_kv: u32,
        head_dim_qk: u32,
        head_dim_v: u32,
        stages: u32,
        groups: u32,
        cluster: u32,
    ) -> Self {
        let v_in_stage = panels(tile_kv, head_dim_qk);
        let stage = v_in_stage + panels(tile_kv, head_dim_v);
        let rings = BARRIERS + panels(tile_q, head_dim_qk);
        let partials = rings + groups * stages * stage;
        let partial = PartialLayout::new(tile_q / cluster, head_dim_v);
        Self {
            q: BARRIERS,
            rings,
            v_in_stage,
            stage,
            ring: stages * stage,
            partials,
            partial,
            bytes: partials + groups * cluster * partial.bytes,
        }
    }
}

//! Where each family keeps what in shared memory: the kernels address by it, [`crate::legal()`] adds it up.
//!
//! All sizes and offsets are in bytes from the start of a block's dynamic shared memory.

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
    /// The layout for 16-bit elements and `pad` chunks after each row.
    pub const fn new(tile_q: u32, tile_kv: u32, head_dim_qk: u32, head_dim_v: u32, pad: u32) -> Self {
        let qk_pitch = round_up(head_dim_qk * 2, CHUNK) + pad * CHUNK;
        let v_pitch = round_up(head_dim_v * 2, CHUNK) + pad * CHUNK;
        let k = tile_q * qk_pitch;
        let v = k + tile_kv * qk_pitch;
        let p = v + tile_kv * v_pitch;
        Self { qk_pitch, v_pitch, k, v, p, bytes: p + tile_q * tile_kv * 4 }
    }
}

/// Shared memory of the `mma` family: Q, then a ring of K/V stages for each group of warps. The groups' partial results
/// are merged in the space of the rings once the main loop is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmaLayout {
    /// From one row of the Q or K tile to the next.
    pub qk_pitch: u32,
    /// From one row of the V tile to the next.
    pub v_pitch: u32,
    /// Start of the first ring; Q starts at 0.
    pub rings: u32,
    /// V within a stage; K starts it.
    pub v_in_stage: u32,
    /// Size of a stage.
    pub stage: u32,
    /// Size of a ring.
    pub ring: u32,
    /// From one row of a partial result (fp32) to the next.
    pub partial_pitch: u32,
    /// Size of one group's partial result; its row maxima and sums follow it.
    pub partial: u32,
    /// All of it.
    pub bytes: u32,
}

impl MmaLayout {
    /// The layout for 16-bit elements; `pad` chunks after each row, groups of warps that share the keys, stages per ring.
    pub const fn new(
        tile_q: u32,
        tile_kv: u32,
        head_dim_qk: u32,
        head_dim_v: u32,
        pad: u32,
        groups: u32,
        stages: u32,
    ) -> Self {
        // Tensor-core steps are 16 wide: rows are filled with zeros up to there.
        let qk_pitch = round_up(head_dim_qk, 16) * 2 + pad * CHUNK;
        let v_pitch = round_up(head_dim_v, 16) * 2 + pad * CHUNK;
        let rings = tile_q * qk_pitch;
        let v_in_stage = tile_kv * qk_pitch;
        let stage = v_in_stage + tile_kv * v_pitch;
        let ring = stage * stages;
        // Eight spare columns keep the eight rows that a warp writes at once in different banks.
        let partial_pitch = (round_up(head_dim_v, 16) + 8) * 4;
        let partial = tile_q * partial_pitch + tile_q * 8;
        let merge = if groups > 1 { groups * partial } else { 0 };
        Self {
            qk_pitch,
            v_pitch,
            rings,
            v_in_stage,
            stage,
            ring,
            partial_pitch,
            partial,
            bytes: max(rings + groups * ring, merge),
        }
    }
}

//! The only place that decides whether a variant fits a problem and a GPU.

use crate::layout::{
    DecodeLayout, MmaLayout, PANEL, TiledLayout, WGMMA_REGISTERS, WGMMA_TURNING_REGISTERS, WgmmaLayout,
    WgmmaSplitLayout,
};
use crate::{
    AttentionArgs, BlockOrder, BlockWalk, DeviceLimits, Divisor, Dtype, Family, Features, Gene, MapBoxes, Problem, Sm,
    Strides, Variant,
};

/// Why a variant cannot run a problem on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// A dimension of the problem is zero.
    #[error("{field} is 0; at least 1 is needed")]
    Empty {
        /// The dimension.
        field: &'static str,
    },
    /// A head_dim is out of range.
    #[error("{field} is {value}; multiples of 8 from 8 to 256 are allowed")]
    HeadDim {
        /// `head_dim_qk` or `head_dim_v`.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// Query heads cannot be shared out evenly.
    #[error("heads_q is {heads_q}; it must be a multiple of heads_kv, {heads_kv}")]
    Heads {
        /// Query heads.
        heads_q: u32,
        /// Key/value heads.
        heads_kv: u32,
    },
    /// Sequence too long for 32-bit row numbers.
    #[error("{field} is {value}; at most {} is allowed", MAX_SEQLEN)]
    Seqlen {
        /// `seqlen_q` or `seqlen_kv`.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// The scale is not a finite number.
    #[error("the softmax scale must be finite")]
    Scale,
    /// Rows do not start at multiples of the width of an access.
    #[error("{access_bytes}-byte accesses need every stride of {tensor} to be a multiple of {access_bytes} bytes")]
    Alignment {
        /// Q, K, V or O.
        tensor: char,
        /// Bytes of one load or store.
        access_bytes: u32,
    },
    /// The copy engine cannot walk a tensor so.
    #[error(
        "the {dimension} stride of {tensor} is {bytes} B; the copy engine takes multiples of 16 from 16 to {} B",
        MAX_COPY_STRIDE
    )]
    CopyStride {
        /// Q, K or V.
        tensor: char,
        /// `batch`, `seq` or `head`.
        dimension: &'static str,
        /// The stride in bytes.
        bytes: i64,
    },
    /// Rows do not hold a whole number of loads.
    #[error("{load_bytes}-byte loads do not divide a row of {row_bytes} B")]
    LoadWidth {
        /// Bytes of one load.
        load_bytes: u32,
        /// Bytes of one row.
        row_bytes: u32,
    },
    /// Too many threads.
    #[error("needs {needed} threads per block, {allowed} are allowed")]
    Threads {
        /// What it needs.
        needed: u32,
        /// What there is.
        allowed: u32,
    },
    /// Too much shared memory.
    #[error("needs {needed} B of shared memory per block, this GPU allows {allowed} B")]
    SharedMemory {
        /// What it needs.
        needed: u32,
        /// What there is.
        allowed: u32,
    },
    /// So many blocks do not fit one multiprocessor.
    #[error("{blocks} blocks per SM need {needed} B of shared memory, this GPU has {allowed} B")]
    Occupancy {
        /// Blocks per multiprocessor.
        blocks: u32,
        /// What they need.
        needed: u32,
        /// What there is.
        allowed: u32,
    },
    /// Too many registers.
    #[error("holds {needed} values per thread in registers, {allowed} are left for them")]
    Registers {
        /// What it needs.
        needed: u32,
        /// What there is.
        allowed: u32,
    },
    /// The tile cannot be divided among the warps.
    #[error("{what} would be {value}; allowed are {allowed}")]
    Division {
        /// The share.
        what: &'static str,
        /// Its value, rounded down.
        value: u32,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The rows' chunks cannot be permuted.
    #[error("shared_pad=0 permutes 8 chunks, a row of head_dim {head_dim} has {chunks}; use shared_pad=1")]
    Swizzle {
        /// The head_dim.
        head_dim: u32,
        /// Its 16-byte chunks.
        chunks: u32,
    },
    /// No product of the family has this width.
    #[error(
        "family {family} has no product of {head_dim_v} columns; head_dim_v of 64, 96, 128, 192 and 256 are allowed"
    )]
    Width {
        /// The family.
        family: Family,
        /// Columns of V.
        head_dim_v: u32,
    },
    /// Genes that do not go together.
    #[error("gene {} set so needs {needs}", .gene.name())]
    Together {
        /// The gene.
        gene: Gene,
        /// What it needs.
        needs: &'static str,
    },
    /// The softcap is no bound.
    #[error("softcap is {}; finite numbers above 0 are allowed", f32::from_bits(*.bits))]
    Softcap {
        /// Its bits, as fp32.
        bits: u32,
    },
    /// A matrix is not of the problem's rows and keys, nor can one value serve all.
    #[error("{what} has {extent} {dimension}; {full}{} are allowed", if *.dimension == "keys" { "" } else { " or 1" })]
    Broadcast {
        /// The bias or the boolean mask.
        what: &'static str,
        /// `batch`, `heads`, `rows` or `keys`.
        dimension: &'static str,
        /// How many it has.
        extent: u32,
        /// How many the problem has.
        full: u32,
    },
    /// Packed batch entries have too few rows or keys together, or too many.
    #[error("{field} is {value}; 1 to {most} are allowed, batch times the most of one entry")]
    Packed {
        /// `packed_q` or `packed_kv`.
        field: &'static str,
        /// Its value.
        value: u32,
        /// The largest that is allowed.
        most: u64,
    },
    /// Two fields contradict each other.
    #[error("{field} and {other} are both set; they exclude each other")]
    Exclusive {
        /// The one.
        field: &'static str,
        /// The other.
        other: &'static str,
    },
    /// Pages hold too little, or too much for 32-bit numbers.
    #[error("the {field} is {value}; {least} to {} are allowed", MAX_SEQLEN)]
    Pages {
        /// What of the pages.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The least that is allowed.
        least: u64,
    },
    /// No new keys for a cache, or more than it has room for.
    #[error("{value} new keys of each batch entry; 1 to {most} are allowed, as seqlen_kv is")]
    NewKeys {
        /// How many.
        value: u32,
        /// How many there is room for.
        most: u32,
    },
    /// More new rows for a cache than row numbers have bits for.
    #[error("{rows} new rows over all batch entries and heads; at most {most} are allowed")]
    NewRows {
        /// How many.
        rows: u64,
        /// The largest number that is allowed.
        most: u64,
    },
    /// The family has no kernels for elements of the problem's type.
    #[error("family {family} takes no {}; {} does", .dtype.name(), Family::most_portable(*.dtype))]
    Dtype {
        /// The family.
        family: Family,
        /// The type.
        dtype: Dtype,
    },
    /// Elements of this type are multiplied in rows of one width only.
    #[error("{field} is {value}; e4m3 kernels have 128 alone")]
    E4m3Width {
        /// `head_dim_qk` or `head_dim_v`.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// A gene's value is none that elements of this type go with.
    #[error("gene {} set so does not go with e4m3: {reason}", .gene.name())]
    E4m3 {
        /// The gene.
        gene: Gene,
        /// Why.
        reason: &'static str,
    },
    /// Too many query rows for the family that packs heads.
    #[error(
        "family decode packs {rows} rows, seqlen_q times the query heads that share K and V; at most {} are allowed",
        MAX_PACKED_ROWS
    )]
    PackedRows {
        /// How many.
        rows: u32,
    },
    /// Only some families have entry points with features.
    #[error("family {family} has no kernels with features such as a window; tiled and mma have")]
    Features {
        /// The family.
        family: Family,
    },
    /// The GPU has not what the family needs.
    #[error("family {family} does not run on {sm}")]
    Device {
        /// The family.
        family: Family,
        /// The GPU's target.
        sm: Sm,
    },
    /// More blocks than a grid can have.
    #[error("needs {blocks} blocks, a grid has at most {}", i32::MAX)]
    Grid {
        /// What it needs.
        blocks: u64,
    },
}

/// Longest sequence: row numbers plus a tile must fit `i32`, and [`FULL_DIAGONAL`] plus a row number too.
pub const MAX_SEQLEN: u32 = 1 << 29;
/// The diagonal of a mask that hides nothing.
pub const FULL_DIAGONAL: i32 = 1 << 30;
/// Rows that the query heads which share K and V may have together, where they are packed: more are worth tiles of their own.
const MAX_PACKED_ROWS: u32 = 64;
const MAX_THREADS: u32 = 1024;
/// Strides of a tensor map have 40 bits, the last four of them zero.
const MAX_COPY_STRIDE: i64 = (1 << 40) - 16;
/// Registers of a thread at most, less what addresses, loop state and fragments in flight take in the families here.
const REGISTERS_FOR_TILES: u32 = 255 - 55;

/// How a legal variant is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LaunchGeometry {
    /// Blocks, in one dimension: batch x heads may exceed what the other dimensions allow.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory that a block uses, in bytes.
    pub shared_bytes: u32,
    /// What a launch asks for: more, where blocks are to stay alone on their multiprocessors.
    pub asked_shared_bytes: u32,
    /// Query tiles of one head.
    pub tiles_q: u32,
    /// Whether the query heads that share K and V are rows of the same tiles: heads are then those of K and V.
    #[cfg_attr(feature = "serde", serde(default))]
    pub packs_heads: bool,
    /// Which block does what.
    pub walk: BlockWalk,
    /// Whether blocks may start before the kernel before them in the stream is over.
    pub early_launch: bool,
    /// Whether L2 is asked to keep K and V.
    pub l2_window: bool,
    /// The boxes of the kernel's tensor maps, if it takes any.
    pub boxes: Option<MapBoxes>,
}

impl LaunchGeometry {
    /// Heads that have query tiles of their own, over all batch entries.
    pub const fn heads(&self, problem: &Problem) -> u32 {
        problem.batch * if self.packs_heads { problem.heads_kv } else { problem.heads_q }
    }

    /// The kernel's argument for tensors at these device addresses; `lse` is 0 if it is not wanted.
    pub fn args(&self, problem: &Problem, [q, k, v, o, lse]: [u64; 5]) -> AttentionArgs {
        let mut strides = problem.strides;
        let Features { packed_q, packed_kv, pages, .. } = problem.features;
        // Batch entries are found by other means than a stride.
        if packed_q.is_some() {
            (strides.q.batch, strides.o.batch) = (0, 0);
        }
        if packed_kv.is_some() || pages.is_some() {
            (strides.k.batch, strides.v.batch) = (0, 0);
        }
        AttentionArgs {
            q,
            k,
            v,
            o,
            lse,
            q_strides: strides.q,
            k_strides: strides.k,
            v_strides: strides.v,
            o_strides: strides.o,
            heads_q: Divisor::new(problem.heads_q),
            heads_per_kv: Divisor::new(problem.heads_per_kv()),
            groups: self.walk.groups(self.heads(problem), self.tiles_q),
            seqlen_q: problem.seqlen_q,
            seqlen_kv: problem.seqlen_kv,
            tiles_q: self.tiles_q,
            tiles_total: self.tiles_q * self.heads(problem),
            diagonal: problem.diagonal().map_or(FULL_DIAGONAL, |d| d as i32),
            walk: self.walk,
            scale_log2: problem.softmax_scale() * core::f32::consts::LOG2_E,
        }
    }
}

/// Whether `variant` can run `problem` on a GPU with these limits, and how it is launched.
pub fn legal(problem: &Problem, variant: &Variant, limits: &DeviceLimits) -> Result<LaunchGeometry, Illegal> {
    check_problem(problem)?;
    let family = variant.family();
    if !family.runs_on(limits.sm) {
        return Err(Illegal::Device { family, sm: limits.sm });
    }
    if !family.takes(problem.dtype) {
        return Err(Illegal::Dtype { family, dtype: problem.dtype });
    }
    if let Some((gene, _)) = variant.genes().find(|(gene, value)| !gene.works_on(*value, limits.sm)) {
        return Err(Illegal::Together { gene, needs: "a GPU of compute capability 9.0" });
    }
    if problem.needs_features() {
        check_features(variant)?;
    }
    let threads = variant.threads();
    if threads > MAX_THREADS {
        return Err(Illegal::Threads { needed: threads, allowed: MAX_THREADS });
    }
    let need = match family {
        Family::Tiled => tiled(problem, variant)?,
        Family::Mma => mma(problem, variant)?,
        Family::Wgmma => wgmma(problem, variant)?,
        Family::Decode => decode(problem, variant)?,
    };
    check_resources(&need, threads, variant.value(Gene::BlocksPerSm).max(1), limits)?;

    let packs_heads = family == Family::Decode;
    let (rows, heads) =
        if packs_heads { (packed_rows(problem), problem.heads_kv) } else { (problem.seqlen_q, problem.heads_q) };
    let tiles_q = rows.div_ceil(variant.value(Gene::TileQ));
    let cluster = u64::from(variant.value(Gene::Cluster).max(1));
    let blocks = u64::from(tiles_q) * u64::from(problem.batch) * u64::from(heads) * cluster;
    let all_blocks = i32::try_from(blocks).map_err(|_| Illegal::Grid { blocks })?.unsigned_abs();
    let early_launch = variant.value(Gene::EarlyLaunch) == 1;
    // Blocks of launches that overlap take what room there is: two of one launch would meet on a multiprocessor, and others would
    // stay idle. With half of the shared memory each stays alone.
    let alone = early_launch && all_blocks <= limits.multiprocessors;
    let asked_shared_bytes = need.shared_bytes.max(if alone { limits.shared_bytes_per_sm / 2 } else { 0 });
    let persistent = variant.value(Gene::Persistent) == 1;
    let order = BlockOrder::ALL[variant.value(Gene::BlockOrder) as usize % BlockOrder::ALL.len()];
    let walk = order.walk(problem.batch * heads, heads_in_l2(problem, limits));
    Ok(LaunchGeometry {
        blocks: if persistent { all_blocks.div_ceil(walk.run()).min(limits.multiprocessors) } else { all_blocks },
        threads,
        shared_bytes: need.shared_bytes,
        asked_shared_bytes,
        tiles_q,
        packs_heads,
        walk,
        early_launch,
        l2_window: variant.value(Gene::L2Window) == 1,
        boxes: need.boxes,
    })
}

/// Rows of a tile's head where the query heads that share K and V are packed.
pub(crate) const fn packed_rows(problem: &Problem) -> u32 {
    problem.seqlen_q.saturating_mul(problem.heads_per_kv())
}

/// Query heads whose K and V half of L2 holds: the other half is for those that come before and after, and for Q and O.
fn heads_in_l2(problem: &Problem, limits: &DeviceLimits) -> u32 {
    let row = u64::from((problem.head_dim_qk + problem.head_dim_v) * problem.dtype.bytes());
    let heads_kv = limits.l2_bytes / 2 / (u64::from(problem.seqlen_kv) * row).max(1);
    u32::try_from(heads_kv).unwrap_or(u32::MAX).max(1).saturating_mul(problem.heads_per_kv())
}

/// Whether the variant's family has entry points with features, and its genes go with them.
fn check_features(variant: &Variant) -> Result<(), Illegal> {
    match variant.family() {
        Family::Tiled | Family::Mma => {}
        family @ (Family::Wgmma | Family::Decode) => return Err(Illegal::Features { family }),
    }
    // What a block works on is read from memory, which it may not touch so early; pages and packed rows are no boxes of one tensor.
    let never = [Gene::EarlyLaunch, Gene::CopyEngine];
    match never.into_iter().find(|gene| variant.value(*gene) == 1) {
        Some(gene) => Err(Illegal::Together { gene, needs: "a problem without features" }),
        None => Ok(()),
    }
}

pub(crate) fn check_problem(p: &Problem) -> Result<(), Illegal> {
    for (field, value) in [
        ("batch", p.batch),
        ("heads_q", p.heads_q),
        ("heads_kv", p.heads_kv),
        ("seqlen_q", p.seqlen_q),
        ("seqlen_kv", p.seqlen_kv),
    ] {
        if value == 0 {
            return Err(Illegal::Empty { field });
        }
    }
    for (field, value) in [("head_dim_qk", p.head_dim_qk), ("head_dim_v", p.head_dim_v)] {
        if value == 0 || value > 256 || value % 8 != 0 {
            return Err(Illegal::HeadDim { field, value });
        }
    }
    if !p.heads_q.is_multiple_of(p.heads_kv) {
        return Err(Illegal::Heads { heads_q: p.heads_q, heads_kv: p.heads_kv });
    }
    for (field, value) in [("seqlen_q", p.seqlen_q), ("seqlen_kv", p.seqlen_kv)] {
        if value > MAX_SEQLEN {
            return Err(Illegal::Seqlen { field, value });
        }
    }
    if !p.softmax_scale().is_finite() {
        return Err(Illegal::Scale);
    }
    Features::check(p)
}

/// What a block of a variant needs.
struct Need {
    shared_bytes: u32,
    /// Values each thread holds in registers through the main loop.
    registers: u32,
    /// Boxes of its tensor maps.
    boxes: Option<MapBoxes>,
}

fn check_resources(need: &Need, threads: u32, blocks: u32, limits: &DeviceLimits) -> Result<(), Illegal> {
    let shared = need.shared_bytes;
    if shared > limits.shared_bytes_per_block {
        return Err(Illegal::SharedMemory { needed: shared, allowed: limits.shared_bytes_per_block });
    }
    let together = (shared + limits.shared_bytes_reserved) * blocks;
    if together > limits.shared_bytes_per_sm {
        return Err(Illegal::Occupancy { blocks, needed: together, allowed: limits.shared_bytes_per_sm });
    }
    if threads * blocks > limits.threads_per_sm {
        return Err(Illegal::Threads { needed: threads * blocks, allowed: limits.threads_per_sm });
    }
    let per_thread = (limits.registers_per_sm / (threads * blocks)).min(255);
    let allowed = per_thread.saturating_sub(255 - REGISTERS_FOR_TILES);
    if need.registers > allowed {
        return Err(Illegal::Registers { needed: need.registers, allowed });
    }
    Ok(())
}

/// From one element of a dimension to the next, in elements.
struct Step {
    tensor: char,
    dimension: &'static str,
    stride: i64,
}

/// The steps along the dimensions of Q, K, V and O.
fn steps(problem: &Problem) -> impl Iterator<Item = Step> + use<> {
    let strides = problem.strides;
    let tensors = [('Q', strides.q), ('K', strides.k), ('V', strides.v), ('O', strides.o)];
    tensors.into_iter().zip(problem.shapes()).flat_map(|((tensor, strides), shape)| {
        steps_of(strides, shape).map(move |(dimension, stride)| Step { tensor, dimension, stride })
    })
}

/// The steps along the dimensions of a tensor. Nobody steps along a dimension of one element, and tensor libraries leave
/// anything as its stride.
pub(crate) fn steps_of(
    Strides { batch, seq, head }: Strides,
    shape: [u32; 4],
) -> impl Iterator<Item = (&'static str, i64)> {
    let steps = [("batch", batch), ("seq", seq), ("head", head)];
    steps.into_iter().zip(shape).filter(|(_, extent)| *extent > 1).map(|(step, _)| step)
}

fn check_alignment(problem: &Problem, load_bytes: u32) -> Result<(), Illegal> {
    for Step { tensor, stride, .. } in steps(problem) {
        // Outputs are stored in pairs at least.
        let (access_bytes, dtype) =
            if tensor == 'O' { (load_bytes.max(4), problem.dtype.output()) } else { (load_bytes, problem.dtype) };
        if stride.wrapping_mul(dtype.bytes().into()) % i64::from(access_bytes) != 0 {
            return Err(Illegal::Alignment { tensor, access_bytes });
        }
    }
    Ok(())
}

/// Whether the copy engine can walk Q, K and V. It knows no stride of 0, by which dimensions are expanded.
fn check_copy_strides(problem: &Problem) -> Result<(), Illegal> {
    for Step { tensor, dimension, stride } in steps(problem).filter(|step| step.tensor != 'O') {
        let bytes = stride.saturating_mul(problem.dtype.bytes().into());
        if bytes % 16 != 0 || !(1..=MAX_COPY_STRIDE).contains(&bytes) {
            return Err(Illegal::CopyStride { tensor, dimension, bytes });
        }
    }
    Ok(())
}

fn tiled(problem: &Problem, variant: &Variant) -> Result<Need, Illegal> {
    let (tile_q, tile_kv) = (variant.value(Gene::TileQ), variant.value(Gene::TileKv));
    let (warps, lanes) = (variant.value(Gene::Warps), variant.value(Gene::RowLanes));
    let load_bytes = variant.value(Gene::LoadBytes);
    check_alignment(problem, load_bytes)?;
    let [qk_bytes, v_bytes] = [problem.head_dim_qk, problem.head_dim_v].map(|columns| columns * problem.dtype.bytes());
    for row_bytes in [qk_bytes, v_bytes] {
        if !row_bytes.is_multiple_of(load_bytes) {
            return Err(Illegal::LoadWidth { load_bytes, row_bytes });
        }
    }
    // The polynomial is as exact as 16 bits need.
    if problem.dtype == Dtype::F32 && variant.value(Gene::ExpPoly) != 0 {
        return Err(Illegal::Together { gene: Gene::ExpPoly, needs: "f16 or bf16" });
    }
    let rows = tile_q * lanes / (32 * warps);
    if rows * 32 * warps != tile_q * lanes || !(1..=8).contains(&rows) {
        return Err(Illegal::Division { what: "rows per thread", value: rows, allowed: "1 to 8" });
    }
    let keys = tile_kv / lanes;
    if keys * lanes != tile_kv || !(1..=8).contains(&keys) {
        return Err(Illegal::Division { what: "keys per thread", value: keys, allowed: "1 to 8" });
    }
    let layout = TiledLayout::new(tile_q, tile_kv, qk_bytes, v_bytes, variant.value(Gene::SharedPad));
    let registers = rows * (keys + 2 * problem.head_dim_v.div_ceil(2 * lanes) + 3);
    Ok(Need { shared_bytes: layout.bytes, registers, boxes: None })
}

fn mma(problem: &Problem, variant: &Variant) -> Result<Need, Illegal> {
    let (tile_q, tile_kv) = (variant.value(Gene::TileQ), variant.value(Gene::TileKv));
    let (warps, groups) = (variant.value(Gene::Warps), variant.value(Gene::KvSplit));
    check_alignment(problem, crate::layout::CHUNK)?;
    if warps % groups != 0 {
        return Err(Illegal::Division { what: "warps per group", value: warps / groups, allowed: "whole numbers" });
    }
    let rows = tile_q * groups / warps;
    if rows * warps != tile_q * groups || (rows != 16 && rows != 32) {
        return Err(Illegal::Division { what: "rows per warp", value: rows, allowed: "16 and 32" });
    }
    let pad = variant.value(Gene::SharedPad);
    for head_dim in [problem.head_dim_qk, problem.head_dim_v] {
        let chunks = head_dim.div_ceil(16) * 2;
        if pad == 0 && chunks % 8 != 0 {
            return Err(Illegal::Swizzle { head_dim, chunks });
        }
    }
    let copy_engine = variant.value(Gene::CopyEngine) == 1;
    if copy_engine {
        check_copy_strides(problem)?;
        if !fills_panels(problem) || pad != 0 || variant.value(Gene::CacheHint) != 0 {
            let needs = "head_dims that are multiples of 64, shared_pad=0 and cache_hint=0";
            return Err(Illegal::Together { gene: Gene::CopyEngine, needs });
        }
    }
    let layout = MmaLayout::new(
        tile_q,
        tile_kv,
        problem.head_dim_qk,
        problem.head_dim_v,
        pad,
        groups,
        variant.value(Gene::Stages),
        copy_engine,
    );
    let boxes = copy_engine.then_some(MapBoxes { q: tile_q, kv: tile_kv });
    Ok(Need { shared_bytes: layout.bytes, registers: warp_registers(problem, variant, rows), boxes })
}

/// Whether rows are whole panels, as the copy engine leaves them.
fn fills_panels(problem: &Problem) -> bool {
    [problem.head_dim_qk, problem.head_dim_v].iter().all(|head_dim| head_dim.is_multiple_of(PANEL))
}

/// Registers of a thread for so many rows of a warp of `mma.sync`.
fn warp_registers(problem: &Problem, variant: &Variant, rows: u32) -> u32 {
    // Accumulators of 16 x 8 take 4 registers of each lane; Q fragments of 16 x 16 as many.
    let (qk16, v16) = (problem.head_dim_qk.div_ceil(16), problem.head_dim_v.div_ceil(16));
    let q = if variant.value(Gene::QInRegisters) == 1 { qk16 * 4 } else { 0 };
    rows / 16 * (variant.value(Gene::TileKv) / 2 + v16 * 8 + q + 4)
}

fn decode(problem: &Problem, variant: &Variant) -> Result<Need, Illegal> {
    let (tile_q, tile_kv) = (variant.value(Gene::TileQ), variant.value(Gene::TileKv));
    check_alignment(problem, crate::layout::CHUNK)?;
    let rows = packed_rows(problem);
    if rows > MAX_PACKED_ROWS {
        return Err(Illegal::PackedRows { rows });
    }
    let copy_engine = variant.value(Gene::CopyEngine) == 1;
    if copy_engine {
        check_copy_strides(problem)?;
        if !fills_panels(problem) {
            return Err(Illegal::Together { gene: Gene::CopyEngine, needs: "head_dims that are multiples of 64" });
        }
    }
    let layout = DecodeLayout::new(
        tile_q,
        tile_kv,
        problem.head_dim_qk,
        problem.head_dim_v,
        variant.value(Gene::Warps),
        variant.value(Gene::Stages),
        variant.value(Gene::Cluster),
        copy_engine,
    );
    let boxes = copy_engine.then_some(MapBoxes { q: tile_q, kv: tile_kv });
    Ok(Need { shared_bytes: layout.bytes, registers: warp_registers(problem, variant, tile_q), boxes })
}

fn wgmma(problem: &Problem, variant: &Variant) -> Result<Need, Illegal> {
    let (tile_q, tile_kv) = (variant.value(Gene::TileQ), variant.value(Gene::TileKv));
    let (groups, cluster) = (variant.value(Gene::KvSplit), variant.value(Gene::Cluster));
    let stages = variant.value(Gene::Stages);
    let (overlap, ping_pong) = (variant.value(Gene::Overlap), variant.value(Gene::PingPong));
    check_alignment(problem, crate::layout::CHUNK)?;
    check_copy_strides(problem)?;
    let (qk, v) = (problem.head_dim_qk, problem.head_dim_v);
    if ![64, 96, 128, 192, 256].contains(&v) {
        return Err(Illegal::Width { family: Family::Wgmma, head_dim_v: v });
    }
    let turned = problem.dtype == Dtype::E4m3;
    if turned {
        check_e4m3(problem, variant)?;
    }
    // Large exponents must come out large, which the polynomial does not see to. Held to that by one more instruction an element, it
    // made kernels slower by a tenth.
    if variant.value(Gene::LazyRescale) == 2 && variant.value(Gene::ExpPoly) != 0 {
        return Err(Illegal::Together { gene: Gene::LazyRescale, needs: "exp_poly=0 for lazy_rescale=2" });
    }
    // Without a product in flight during the softmax there is nothing to take turns over.
    if ping_pong == 1 && (overlap == 0 || tile_q != 128) {
        return Err(Illegal::Together { gene: Gene::PingPong, needs: "overlap=1 and tile_q=128" });
    }
    let shared_bytes = if groups == 1 {
        if cluster != 1 {
            return Err(Illegal::Together { gene: Gene::Cluster, needs: "kv_split above 1" });
        }
        let persistent = variant.value(Gene::Persistent) == 1;
        WgmmaLayout::new(tile_q, tile_kv, qk, v, stages, persistent, problem.dtype.bytes()).bytes
    } else {
        if variant.value(Gene::Persistent) == 1 {
            return Err(Illegal::Together { gene: Gene::Persistent, needs: "kv_split=1" });
        }
        if tile_q != 64 || overlap != 0 {
            return Err(Illegal::Together { gene: Gene::KvSplit, needs: "tile_q=64 and overlap=0" });
        }
        // A group has a few key tiles only: too few for that to pay.
        if variant.value(Gene::LazyRescale) == 2 {
            return Err(Illegal::Together { gene: Gene::LazyRescale, needs: "kv_split=1 for lazy_rescale=2" });
        }
        WgmmaSplitLayout::new(tile_q, tile_kv, qk, v, stages, groups, cluster).bytes
    };
    // Scores and outputs of 64 rows over 128 threads; with overlap the last step's probabilities too, packed.
    let packed = tile_kv / 8 * problem.dtype.bytes();
    let registers = tile_kv / 2 + v / 2 + if overlap == 1 { packed } else { 0 };
    // The copying warpgroup gives most of its registers to the others, of which addresses and counters need these.
    let others = if tile_q > 128 { 24 } else { 32 };
    let consumers = tile_q as usize / 64;
    let (_, each) = if turned { WGMMA_TURNING_REGISTERS[consumers - 1] } else { WGMMA_REGISTERS[consumers - 1] };
    let allowed = each - others;
    if registers > allowed {
        return Err(Illegal::Registers { needed: registers, allowed });
    }
    Ok(Need { shared_bytes, registers: 0, boxes: Some(MapBoxes { q: 64, kv: tile_kv }) })
}

/// What elements of one byte ask for.
fn check_e4m3(problem: &Problem, variant: &Variant) -> Result<(), Illegal> {
    for (field, value) in [("head_dim_qk", problem.head_dim_qk), ("head_dim_v", problem.head_dim_v)] {
        if value != 128 {
            return Err(Illegal::E4m3Width { field, value });
        }
    }
    let refusals = [
        (Gene::KvSplit, variant.value(Gene::KvSplit) != 1, "no warpgroup is left to turn V; 1 is allowed"),
        (
            Gene::TileQ,
            variant.value(Gene::TileQ) as usize > 64 * WGMMA_TURNING_REGISTERS.len(),
            "turning V takes the registers of a fourth consumer; 64 to 192 are allowed",
        ),
        (
            Gene::TileKv,
            !variant.value(Gene::TileKv).is_multiple_of(32),
            "a product takes 32 keys; multiples of 32 are allowed",
        ),
        (
            Gene::LazyRescale,
            variant.value(Gene::LazyRescale) == 2,
            "probabilities fill its range from the largest down; 0 and 1 are allowed",
        ),
    ];
    match refusals.into_iter().find(|(_, refused, _)| *refused) {
        Some((gene, _, reason)) => Err(Illegal::E4m3 { gene, reason }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;
    use crate::Pages;

    fn variant(text: &str) -> Variant {
        text.parse().unwrap()
    }

    const MMA: &str = "mma:tile_q=64,tile_kv=64,warps=4,kv_split=1,stages=2,q_in_registers=1,shared_pad=0,exp_poly=0,\
                       lazy_rescale=0,blocks_per_sm=1,cache_hint=0,block_order=1";

    #[test]
    fn seed_shape_geometry() {
        let geometry = legal(&Problem::SEED, &variant(MMA), &DeviceLimits::H100).unwrap();
        let expected = LaunchGeometry {
            blocks: 64,
            threads: 128,
            shared_bytes: 64 * 128 + 2 * 2 * 64 * 128,
            asked_shared_bytes: 64 * 128 + 2 * 2 * 64 * 128,
            tiles_q: 8,
            packs_heads: false,
            walk: BlockOrder::HeadsFirst.walk(8, 8),
            early_launch: false,
            l2_window: false,
            boxes: None,
        };
        assert_eq!(geometry, expected);
    }

    #[test]
    fn heads_that_share_keys_are_rows_of_one_tile() {
        let decode = |genes: &str| genes.parse::<Variant>().unwrap();
        let variant = decode("decode:tile_q=16,tile_kv=32,warps=4,cluster=4,stages=2,blocks_per_sm=1,copy_engine=1");
        let problem = Problem::DECODE.with_seqlens(5, 8192);
        let geometry = legal(&problem, &variant, &DeviceLimits::H100).unwrap();
        assert_eq!(
            (geometry.tiles_q, geometry.heads(&problem), geometry.blocks),
            (2, 8, 2 * 8 * 4),
            "20 rows of 8 heads"
        );
        let args = geometry.args(&problem, [0; 5]);
        assert_eq!((args.tiles_total, args.groups.split(15)), (16, (1, 7)));
        let refusal = |problem: &Problem, variant, limits| legal(problem, variant, limits).unwrap_err().to_string();
        assert_eq!(
            refusal(&problem.with_seqlens(17, 8192), &variant, &DeviceLimits::H100),
            "family decode packs 68 rows, seqlen_q times the query heads that share K and V; at most 64 are allowed"
        );
        assert_eq!(
            refusal(&problem, &variant, &DeviceLimits::A100),
            "gene cluster set so needs a GPU of compute capability 9.0"
        );
        let narrow = Problem { head_dim_qk: 80, ..problem }.in_bshd();
        assert_eq!(
            refusal(&narrow, &variant, &DeviceLimits::H100),
            "gene copy_engine set so needs head_dims that are multiples of 64"
        );
        let alone = decode("decode:tile_q=16,tile_kv=32,warps=4,cluster=1,stages=2,blocks_per_sm=1");
        assert!([DeviceLimits::A100, DeviceLimits::H100].iter().all(|limits| legal(&narrow, &alone, limits).is_ok()));
    }

    #[test]
    fn refusals_carry_their_numbers() {
        let wide = Problem::new(1, 1, 64, 256, crate::Dtype::F16);
        let big = variant(&MMA.replace("tile_kv=64", "tile_kv=128").replace("stages=2", "stages=4"));
        let refusal = legal(&wide, &big, &DeviceLimits::H100).unwrap_err();
        assert_eq!(refusal.to_string(), "needs 557056 B of shared memory per block, this GPU allows 232448 B");
        let odd = Problem::new(1, 1, 64, 65, crate::Dtype::F16);
        let refusal = legal(&odd, &big, &DeviceLimits::H100).unwrap_err();
        assert_eq!(refusal.to_string(), "head_dim_qk is 65; multiples of 8 from 8 to 256 are allowed");
        let heads = Problem::SEED.with_heads_kv(3);
        assert_eq!(legal(&heads, &big, &DeviceLimits::H100), Err(Illegal::Heads { heads_q: 8, heads_kv: 3 }));
    }

    const WGMMA: &str = "wgmma:tile_q=128,tile_kv=128,kv_split=1,cluster=1,stages=2,exp_poly=0,overlap=1,ping_pong=1,\
                         lazy_rescale=0,block_order=0";

    #[test]
    fn elements_of_one_byte_are_turned() {
        let refusal = |problem: &Problem, text: &str| {
            let refusal = legal(problem, &variant(text), &DeviceLimits::H100).unwrap_err();
            refusal.to_string()
        };
        let problem = Problem::new(1, 8, 512, 128, Dtype::E4m3);
        let geometry = legal(&problem, &variant(WGMMA), &DeviceLimits::H100).unwrap();
        // Q; K and V turned twice, and V once, each of 128 rows of 128 bytes; sums of 128 rows in fp32, and two maxima a thread.
        assert_eq!(geometry.shared_bytes, 1024 + 128 * 128 + 5 * 128 * 128 + 128 * 128 * 4 + 256 * 8);
        assert_eq!(refusal(&problem, MMA), "family mma takes no e4m3; wgmma does");
        assert_eq!(
            refusal(&Problem::new(1, 8, 512, 64, Dtype::E4m3), WGMMA),
            "head_dim_qk is 64; e4m3 kernels have 128 alone"
        );
        for (from, to, expected) in [
            ("lazy_rescale=0", "lazy_rescale=2", "lazy_rescale set so does not go with e4m3"),
            ("tile_kv=128", "tile_kv=80", "tile_kv set so does not go with e4m3"),
            ("tile_q=128,tile_kv=128,kv_split=1", "tile_q=64,tile_kv=128,kv_split=2", "kv_split set so"),
        ] {
            let text = WGMMA.replace(from, to).replace("ping_pong=1", "ping_pong=0");
            assert!(refusal(&problem, &text).contains(expected), "{to}");
        }
    }

    #[test]
    fn the_copy_engine_expands_no_dimension() {
        let mut expanded = Problem { batch: 2, ..Problem::SEED };
        expanded.strides.k.head = 0;
        let refusal = legal(&expanded, &variant(WGMMA), &DeviceLimits::H100).unwrap_err();
        let expected = "the head stride of K is 0 B; the copy engine takes multiples of 16 from 16 to 1099511627760 B";
        assert_eq!(refusal.to_string(), expected);
        expanded.strides.k.head = 1 << 39;
        assert!(legal(&expanded, &variant(WGMMA), &DeviceLimits::H100).is_err());
        assert!(legal(&expanded, &variant(MMA), &DeviceLimits::H100).is_ok());
    }

    #[test]
    fn strides_of_one_element_do_not_matter() {
        let mut one = Problem::SEED;
        for stride in [0, 1, -3, i64::MAX] {
            (one.strides.q.batch, one.strides.v.batch, one.strides.o.batch) = (stride, stride, stride);
            for text in [MMA, WGMMA] {
                assert!(legal(&one, &variant(text), &DeviceLimits::H100).is_ok(), "{stride}");
            }
        }
        one.batch = 2;
        assert!(legal(&one, &variant(MMA), &DeviceLimits::H100).is_err());
    }

    #[test]
    fn features_are_refused_by_name() {
        let with = |features| Problem { features, ..Problem::SEED };
        let refusal =
            |features, text| legal(&with(features), &variant(text), &DeviceLimits::H100).unwrap_err().to_string();
        for (softcap, named) in [(0.0, "0"), (-2.5, "-2.5"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
            let features = Features { softcap: Some(softcap), ..Features::NONE };
            assert_eq!(refusal(features, MMA), std::format!("softcap is {named}; finite numbers above 0 are allowed"));
        }
        for (features, expected) in [
            (
                Features { packed_q: Some(513), ..Features::NONE },
                "packed_q is 513; 1 to 512 are allowed, batch times the most of one entry",
            ),
            (
                Features { packed_kv: Some(9), used_kv: true, ..Features::NONE },
                "packed_kv and used_kv are both set; they exclude each other",
            ),
            (
                Features { pages: Some(Pages { count: 9, size: 16, columns: 31 }), ..Features::NONE },
                "the size x columns of pages is 496; 512 to 536870912 are allowed",
            ),
            (
                Features { pages: Some(Pages { count: 9, size: 0, columns: 31 }), ..Features::NONE },
                "the size of pages is 0; 1 to 536870912 are allowed",
            ),
        ] {
            assert_eq!(refusal(features, MMA), expected);
        }
        let sinks = Features { sinks: true, ..Features::NONE };
        assert!(legal(&with(sinks), &variant(MMA), &DeviceLimits::H100).is_ok());
        assert!(refusal(sinks, WGMMA).starts_with("family wgmma has no kernels with features"));
        let early = std::format!("{MMA},early_launch=1");
        assert_eq!(refusal(sinks, &early), "gene early_launch set so needs a problem without features");
    }

    #[test]
    fn single_precision_is_kept_from_what_would_round_it() {
        let problem = Problem::SEED.with_dtype(Dtype::F32);
        let refusal = |variant: &Variant| legal(&problem, variant, &DeviceLimits::H100).unwrap_err().to_string();
        let expected = |family| std::format!("family {family} takes no f32; tiled does");
        assert_eq!(refusal(&variant(MMA)), expected("mma"));
        assert_eq!(refusal(&variant(WGMMA)), expected("wgmma"));
        let tiled = Variant::smallest(Family::Tiled);
        assert_eq!(refusal(&tiled.with(Gene::ExpPoly, 1).unwrap()), "gene exp_poly set so needs f16 or bf16");
        let [half, single] =
            [Problem::SEED, problem].map(|problem| legal(&problem, &tiled, &DeviceLimits::H100).unwrap().shared_bytes);
        // Q, K and V take twice as much; probabilities are fp32 anyway.
        assert_eq!(single - half, (16 + 16 + 16) * 128);
        let mut odd = problem;
        odd.strides.k.seq += 1;
        assert!(legal(&odd, &tiled.with(Gene::LoadBytes, 4).unwrap(), &DeviceLimits::H100).is_ok());
        assert!(legal(&odd, &tiled.with(Gene::LoadBytes, 8).unwrap(), &DeviceLimits::H100).is_err());
    }

    #[test]
    fn what_a_target_cannot_do_is_refused_there() {
        for gene in [Gene::EarlyLaunch, Gene::CopyEngine] {
            let variant_with = variant(MMA).with(gene, 1).unwrap();
            for sm in Sm::ALL {
                let refusal = legal(&Problem::SEED, &variant_with, &DeviceLimits::of(sm));
                let refused = matches!(refusal, Err(Illegal::Together { gene: refused, .. }) if refused == gene);
                assert_eq!(refused, sm != Sm::Sm90a, "{sm}");
                assert_eq!(variant_with.kernel(&Problem::SEED).runs_on(sm), sm == Sm::Sm90a, "{sm}");
                assert!(variant(MMA).kernel(&Problem::SEED).runs_on(sm), "{sm}");
            }
        }
    }

    #[test]
    fn the_copy_engine_brings_whole_panels_of_plain_tensors() {
        let copied = variant(MMA).with(Gene::CopyEngine, 1).unwrap();
        let geometry = legal(&Problem::SEED, &copied, &DeviceLimits::H100).unwrap();
        let threads = legal(&Problem::SEED, &variant(MMA), &DeviceLimits::H100).unwrap();
        assert_eq!(geometry.boxes, Some(MapBoxes { q: 64, kv: 64 }));
        assert_eq!(geometry.shared_bytes - threads.shared_bytes, 8 * (1 + 2 * 2), "barriers of Q and of two stages");
        assert!(copied.kernel(&Problem::SEED).takes_tensor_maps());
        let refusal = |problem: &Problem, variant: &Variant| {
            legal(problem, variant, &DeviceLimits::H100).unwrap_err().to_string()
        };
        let needs = "gene copy_engine set so needs head_dims that are multiples of 64, shared_pad=0 and cache_hint=0";
        assert_eq!(refusal(&Problem::SEED, &copied.with(Gene::SharedPad, 1).unwrap()), needs);
        assert_eq!(refusal(&Problem::SEED, &copied.with(Gene::CacheHint, 1).unwrap()), needs);
        let capped = Problem { features: Features { softcap: Some(30.0), ..Features::NONE }, ..Problem::SEED };
        assert_eq!(refusal(&capped, &copied), "gene copy_engine set so needs a problem without features");
        let mut expanded = Problem::SEED;
        expanded.strides.v.head = 0;
        assert!(refusal(&expanded, &copied).starts_with("the head stride of V is 0 B"));
    }

    #[test]
    fn blocks_of_overlapping_launches_stay_alone_where_each_can_have_a_multiprocessor() {
        let limits = DeviceLimits::H100;
        let early = variant(MMA).with(Gene::EarlyLaunch, 1).unwrap();
        let asked = |problem: &Problem, variant: &Variant| legal(problem, variant, &limits).unwrap().asked_shared_bytes;
        let alone = asked(&Problem::SEED, &early);
        assert!(2 * (alone + limits.shared_bytes_reserved) > limits.shared_bytes_per_sm);
        // 64 blocks at the seed shape, and then three times as many.
        let many = Problem::new(3, 8, 512, 64, Dtype::F16);
        assert_eq!(asked(&many, &early), asked(&many, &variant(MMA)));
    }

    #[test]
    fn a_window_changes_the_launch_and_not_the_kernel() {
        let plain = Variant::smallest(Family::Wgmma);
        let window = plain.with(Gene::L2Window, 1).unwrap();
        let [of_plain, of_window] =
            [plain, window].map(|variant| legal(&Problem::SEED, &variant, &DeviceLimits::H100).unwrap());
        assert_eq!(of_window, LaunchGeometry { l2_window: true, ..of_plain });
        assert_eq!(window.kernel(&Problem::SEED), plain.kernel(&Problem::SEED));
    }

    #[test]
    fn more_batch_and_heads_than_grid_y_allows() {
        let many = Problem::new(65_536, 8, 4, 64, crate::Dtype::F16);
        assert_eq!(legal(&many, &variant(MMA), &DeviceLimits::H100).unwrap().blocks, 524_288);
    }
}

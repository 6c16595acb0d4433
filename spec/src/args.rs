//! What every attention kernel receives.

/// Strides of one tensor of shape `[batch, seqlen, heads, head_dim]`, in elements. The last dimension is contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Strides {
    /// From one batch entry to the next.
    pub batch: i64,
    /// From one sequence position to the next.
    pub seq: i64,
    /// From one head to the next.
    pub head: i64,
}

impl Strides {
    /// Contiguous `[batch, seqlen, heads, head_dim]`.
    pub const fn bshd(seqlen: u32, heads: u32, head_dim: u32) -> Self {
        let (seqlen, heads, head_dim) = (seqlen as i64, heads as i64, head_dim as i64);
        let row = heads.saturating_mul(head_dim);
        Self { batch: seqlen.saturating_mul(row), seq: row, head: head_dim }
    }

    /// Contiguous `[batch, heads, seqlen, head_dim]`.
    pub const fn bhsd(seqlen: u32, heads: u32, head_dim: u32) -> Self {
        let (seqlen, heads, head_dim) = (seqlen as i64, heads as i64, head_dim as i64);
        let head = seqlen.saturating_mul(head_dim);
        Self { batch: heads.saturating_mul(head), seq: head_dim, head }
    }
}

/// In which order the one-dimensional grid walks query tiles and heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum BlockOrder {
    /// All query tiles of a head, then the next head: neighbours share K and V.
    TilesFirst = 0,
    /// One query tile of every head, then the next tile.
    HeadsFirst = 1,
    /// Like `HeadsFirst` from the last tile to the first: under a causal mask the longest work starts first.
    LongestFirst = 2,
}

impl BlockOrder {
    /// All orders, by their gene value.
    pub const ALL: [Self; 3] = [Self::TilesFirst, Self::HeadsFirst, Self::LongestFirst];
}

/// The one argument of every attention kernel, passed by value.
///
/// Addresses are device addresses on the GPU and simulated ones on the CPU machine, hence integers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct AttentionArgs {
    /// Q, `[batch, seqlen_q, heads_q, head_dim_qk]`.
    pub q: u64,
    /// K, `[batch, seqlen_kv, heads_kv, head_dim_qk]`.
    pub k: u64,
    /// V, `[batch, seqlen_kv, heads_kv, head_dim_v]`.
    pub v: u64,
    /// O, `[batch, seqlen_q, heads_q, head_dim_v]`.
    pub o: u64,
    /// Natural-log LSE as fp32, contiguous `[batch, heads_q, seqlen_q]`; 0 if it is not wanted.
    pub lse: u64,
    /// Strides of Q.
    pub q_strides: Strides,
    /// Strides of K.
    pub k_strides: Strides,
    /// Strides of V.
    pub v_strides: Strides,
    /// Strides of O.
    pub o_strides: Strides,
    /// Query heads.
    pub heads_q: u32,
    /// Query heads that share one K/V head.
    pub heads_per_kv: u32,
    /// Query rows.
    pub seqlen_q: u32,
    /// Keys.
    pub seqlen_kv: u32,
    /// Query tiles of one head: `ceil(seqlen_q / tile_q)`.
    pub tiles_q: u32,
    /// batch x heads_q.
    pub heads_total: u32,
    /// Row `i` sees key `j` if `j <= i + diagonal`; `i32::MAX / 2` when nothing is masked.
    pub diagonal: i32,
    /// A [`BlockOrder`].
    pub block_order: u32,
    /// Softmax scale times log2(e): scores become exponents of two with one multiplication.
    pub scale_log2: f32,
}

/// Boxes that the copy engine brings, in rows of one head; each is 64 columns wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MapBoxes {
    /// Rows of a box of Q.
    pub q: u32,
    /// Rows of a box of K or V.
    pub kv: u32,
}

/// Tensor maps of Q, K and V: the second argument of kernels that use the copy engine, passed by value.
///
/// Each is 128 bytes. For a GPU its driver encodes them; they must lie at a multiple of 64 bytes, which the type cannot say,
/// since the code generator takes no argument aligned above 16 bytes: the PTX is patched instead. For the CPU machine they
/// are [`PlainMap`](crate::PlainMap)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TensorMaps(pub [[u64; 16]; 3]);

/// Both arguments of a kernel that uses the copy engine, as the CPU machine passes them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct MappedArgs {
    /// The first.
    pub args: AttentionArgs,
    /// The second, of [`PlainMap`](crate::PlainMap)s.
    pub maps: TensorMaps,
}

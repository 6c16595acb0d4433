//! What every attention kernel receives.

use crate::Divisor;

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
    /// Like `LongestFirst` within groups of heads whose K and V half of L2 holds, one group after the other.
    GroupsLongestFirst = 3,
    /// Head by head: the last query tile, the first, the last but one, the second and so on. Under a causal mask two
    /// neighbours are as much work as any other two; persistent blocks take them together.
    Folded = 4,
}

impl BlockOrder {
    /// All orders, by their gene value.
    pub const ALL: [Self; 5] =
        [Self::TilesFirst, Self::HeadsFirst, Self::LongestFirst, Self::GroupsLongestFirst, Self::Folded];

    /// The walk that a launch takes, when `heads_in_l2` query heads' K and V fit in L2 beside others.
    pub fn walk(self, heads_total: u32, heads_in_l2: u32) -> BlockWalk {
        let (heads, tiles) = match self {
            Self::TilesFirst => (1, TileOrder::Forward),
            Self::HeadsFirst => (heads_total, TileOrder::Forward),
            Self::LongestFirst => (heads_total, TileOrder::Backward),
            Self::GroupsLongestFirst => (heads_in_l2.clamp(1, heads_total.max(1)), TileOrder::Backward),
            Self::Folded => (1, TileOrder::Folded),
        };
        BlockWalk { heads, tiles: tiles as u32 }
    }
}

/// A [`BlockOrder`] as the kernels take it: groups of heads one after the other; within a group one tile of every head,
/// then the next tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct BlockWalk {
    /// Query heads of a group, at least 1; the last group may have fewer.
    pub heads: u32,
    /// A [`TileOrder`].
    pub tiles: u32,
}

/// In which order the query tiles of a head are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TileOrder {
    /// From the first to the last.
    Forward = 0,
    /// From the last to the first.
    Backward = 1,
    /// The last, the first, the last but one, the second and so on.
    Folded = 2,
}

/// What takes the number of a block, or of a persistent block's turn, apart along a [`BlockWalk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GroupDivisors {
    /// Query tiles of a group of heads.
    pub tiles: Divisor,
    /// Heads of a group.
    pub heads: Divisor,
    /// Heads of the last group, which may have fewer.
    pub heads_of_last: Divisor,
    /// Number of the last group.
    pub last: u32,
}

impl GroupDivisors {
    /// Number of the block's query tile along the walk, which begins with 0 in every head, and its head among those of all batch
    /// entries.
    #[inline(always)]
    pub const fn split(&self, block: u32) -> (u32, u32) {
        let (group, in_group) = self.tiles.divide(block);
        let heads = if group == self.last { self.heads_of_last } else { self.heads };
        let (tile, head) = heads.divide(in_group);
        (tile, group * self.heads.value + head)
    }
}

impl BlockWalk {
    /// What takes apart the numbers of blocks of `tiles_q` query tiles for each of so many heads, at least one of each.
    pub const fn groups(&self, heads_total: u32, tiles_q: u32) -> GroupDivisors {
        let last = (heads_total - 1) / self.heads;
        GroupDivisors {
            tiles: Divisor::new(self.heads * tiles_q),
            heads: Divisor::new(self.heads),
            heads_of_last: Divisor::new(heads_total - last * self.heads),
            last,
        }
    }

    /// Which of a head's `tiles_q` query tiles is taken as number `n`.
    #[inline(always)]
    pub const fn tile(&self, n: u32, tiles_q: u32) -> u32 {
        if self.tiles == TileOrder::Forward as u32 {
            n
        } else if self.tiles == TileOrder::Backward as u32 {
            tiles_q - 1 - n
        } else if n.is_multiple_of(2) {
            tiles_q - 1 - n / 2
        } else {
            n / 2
        }
    }

    /// How many tiles in a row a persistent block takes, before it passes over those of the other blocks.
    #[inline(always)]
    pub const fn run(&self) -> u32 {
        if self.tiles == TileOrder::Folded as u32 { 2 } else { 1 }
    }
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
    pub heads_q: Divisor,
    /// Query heads that share one K/V head.
    pub heads_per_kv: Divisor,
    /// What takes a block's number apart.
    pub groups: GroupDivisors,
    /// Query rows.
    pub seqlen_q: u32,
    /// Keys.
    pub seqlen_kv: u32,
    /// Query tiles of one head: `ceil(seqlen_q / tile_q)`.
    pub tiles_q: u32,
    /// Query tiles of all heads of all batch entries.
    pub tiles_total: u32,
    /// Row `i` sees key `j` if `j <= i + diagonal`; `i32::MAX / 2` when nothing is masked.
    pub diagonal: i32,
    /// Which block does what.
    pub walk: BlockWalk,
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

//! Attention on the tensor cores by `mma.sync`, with K and V copied ahead (sm_80 and later).
//!
//! A block holds one query tile; each warp holds 16 or 32 of its rows. With `KV_SPLIT` groups of warps, each group takes
//! every so many-th key tile through a ring of its own, and the groups' results are merged at the end: short sequences
//! fill the GPU that way. Scores, probabilities and the output never leave registers.

mod ring;

pub(super) use ring::Ring;
use spec::{AttentionArgs, layout::MmaLayout};

use crate::attention::{
    Destination, Features, FragmentScores, LOGITS_LOG2, Loader, Operand, Partials, RowState, Scale, Source, add_seen,
    all_finite, any_thread, complete, finish_scores, make_finite, merge, pack_operand, rescale, softmax, store_output,
};
use crate::gpu::{
    CacheHint, HALF_BYTES, Half, Shared, TensorMap, any_lane, block_index, load_matrices, load_matrices_transposed,
    opaque, overlap_grids, sync_block, thread_index, uniform,
};
use crate::tile::{Lane, SharedTile, matrix_row_a, matrix_row_k, matrix_row_v};

/// The family's genes for one entry point; see [`spec::Gene`].
pub trait Genes {
    /// What the entry point can do beyond the plain problem.
    type Features: Features;
    /// Columns of Q and K.
    const HEAD_DIM_QK: u32;
    /// Columns of V and O.
    const HEAD_DIM_V: u32;
    /// Query rows of a block.
    const TILE_Q: u32;
    /// Keys of one step of a group.
    const TILE_KV: u32;
    /// Warps of a block.
    const WARPS: u32;
    /// Groups of a block that share the keys.
    const KV_SPLIT: u32;
    /// Groups that share them over all blocks of a cluster.
    const SHARES: u32 = Self::KV_SPLIT;
    /// K/V tiles a group's ring holds.
    const STAGES: u32;
    /// Whether Q stays in registers.
    const Q_IN_REGISTERS: bool;
    /// Chunks of padding after each row of a shared tile; with 0 chunks are permuted.
    const SHARED_PAD: u32;
    /// One in so many exponentials by a polynomial; 0 for none.
    const EXP_POLY: u32;
    /// Whether the output is rescaled only if some row of the warp found a new maximum.
    const LAZY_RESCALE: bool;
    /// What L2 is told about K and V.
    const CACHE_HINT: CacheHint;
    /// Whether the copy engine copies Q, K and V.
    const COPY_ENGINE: bool;
    /// Whether blocks start while the kernel before them ends.
    const EARLY_LAUNCH: bool;
    /// Steps whose copies are started before the main loop. The only stage of a ring is refilled when it is read.
    const AHEAD: u32 = if Self::STAGES == 1 { 1 } else { Self::STAGES - 1 };
    /// Threads of a group.
    const GROUP_THREADS: u32 = 32 * Self::WARPS / Self::KV_SPLIT;
    /// Where things are in shared memory.
    const LAYOUT: MmaLayout = MmaLayout::new(
        Self::TILE_Q,
        Self::TILE_KV,
        Self::HEAD_DIM_QK,
        Self::HEAD_DIM_V,
        Self::SHARED_PAD,
        Self::KV_SPLIT,
        Self::STAGES,
        Self::COPY_ENGINE,
    );
}

/// Scores or outputs of a warp: `R` x 16 rows, `N` x 8 columns.
pub(super) type Accumulator<const R: usize, const N: usize> = [[[f32; 4]; N]; R];

/// One block's attention. A warp has `R` x 16 rows; head_dim_qk fills `QK16` x 16 columns, head_dim_v `V8` x 8, a key
/// tile `KV8` x 8. The copy engine, if it copies, takes the tensor maps of Q, K and V.
#[inline(always)]
pub fn attention<E: Half, G: Genes, const R: usize, const QK16: usize, const KV8: usize, const V8: usize>(
    args: &AttentionArgs,
    more: &<G::Features as Features>::Args,
    maps: Option<[TensorMap; 3]>,
) {
    let done = attempt::<E, G, R, QK16, KV8, V8, false>(args, more, maps, thread_index(), block_index());
    if G::Features::ON && !done {
        // Nothing is taken over: what the first attempt found out would take up registers all the time.
        attempt::<E, G, R, QK16, KV8, V8, true>(args, more, maps, opaque(thread_index()), opaque(block_index()));
    }
}

/// [`attention`], [containing](crate::attention::all_finite) what is not finite in V if `CONTAINED`. Else it is not done, and says so,
/// where some of its output is not finite.
#[inline(always)]
fn attempt<
    E: Half,
    G: Genes,
    const R: usize,
    const QK16: usize,
    const KV8: usize,
    const V8: usize,
    const CONTAINED: bool,
>(
    args: &AttentionArgs,
    more: &<G::Features as Features>::Args,
    maps: Option<[TensorMap; 3]>,
    thread: u32,
    block: u32,
) -> bool {
    let lane = Lane::of(thread);
    let group = uniform(thread / G::GROUP_THREADS);
    let first_warp_row = thread % G::GROUP_THREADS / 32 * (R as u32 * 16);
    let features = G::Features::of(block, args, more, G::TILE_Q, HALF_BYTES);
    let work = features.work(args, G::TILE_Q, HALF_BYTES);
    if G::Features::ON && work.rows == 0 {
        return true;
    }
    let scale = Scale::new(if G::Features::ON { LOGITS_LOG2 } else { args.scale_log2 });

    let shared = Shared::base();
    let block = Loader { thread, threads: 32 * G::WARPS };
    let ring = Ring::<G>::new(group, group, thread % G::GROUP_THREADS, &work, maps);
    ring.prepare(block);
    if G::EARLY_LAUNCH {
        overlap_grids();
    }
    let to = features.destination(&work, args, HALF_BYTES);
    ring.start(features, block);
    let q = ring.q();

    let mut q_fragments = [[[0; 4]; QK16]; R];
    if G::Q_IN_REGISTERS {
        let mut k16 = 0;
        while k16 < QK16 {
            load_q(q, first_warp_row, k16, lane, &mut q_fragments);
            k16 += 1;
        }
    }

    let start = if G::Features::ON { features.start(group == 0 && lane.leads_row()) } else { RowState::EMPTY };
    let mut states = [[start; 2]; R];
    let mut output: Accumulator<R, V8> = [[[0.0; 4]; V8]; R];
    let mut step = 0;
    while step < ring.steps {
        let k = ring.next_k(step, features);
        if G::Features::ON && CONTAINED {
            // While no scores take up registers.
            make_finite::<E>(ring.next_v(step), G::TILE_KV, G::HEAD_DIM_V, ring.loader);
        }
        let mut scores: Accumulator<R, KV8> = [[[0.0; 4]; KV8]; R];
        let mut k16 = 0;
        while k16 < QK16 {
            if !G::Q_IN_REGISTERS {
                load_q(q, first_warp_row, k16, lane, &mut q_fragments);
            }
            add_scores::<E, R, QK16, KV8>(&mut scores, &q_fragments, k, k16, lane);
            k16 += 1;
        }
        let first_key = ring.first_key(step);
        let mut r = 0;
        while r < R {
            let first_row = work.first_row + first_warp_row + r as u32 * 16;
            if G::Features::ON {
                let scores = &mut scores[r];
                features.finish::<E>(&mut FragmentScores { scores, first_row, first_key, lane }, &work);
            } else {
                finish_scores(&mut scores[r], &scale, &work.mask, first_row, first_key, lane);
            }
            let corrections = softmax(&mut scores[r], &mut states[r], &scale, G::EXP_POLY);
            if !G::LAZY_RESCALE || any_lane(corrections != [1.0; 2]) {
                rescale(&mut output[r], corrections);
            }
            r += 1;
        }
        let v = ring.next_v(step);
        add_output::<E, R, KV8, V8>(&mut output, &scores, v, lane);
        ring.release(step);
        step += 1;
    }

    let at = Place { group, first_warp_row, lane, block };
    finish::<E, G, R, V8, CONTAINED>(shared, output, states, &scale, features, &ring, &to, at)
}

/// Where a thread is in its block.
#[derive(Clone, Copy)]
struct Place {
    /// Its group of warps.
    group: u32,
    /// First row of its warp.
    first_warp_row: u32,
    lane: Lane,
    block: Loader,
}

/// Loads a warp's Q fragments of 16 columns.
#[inline(always)]
pub(super) fn load_q<const R: usize, const QK16: usize>(
    q: SharedTile,
    first_row: u32,
    k16: usize,
    lane: Lane,
    fragments: &mut [[[u32; 4]; QK16]; R],
) {
    let (row, chunk) = matrix_row_a(lane);
    let mut r = 0;
    while r < R {
        fragments[r][k16] = load_matrices(q.chunk(first_row + r as u32 * 16 + row, k16 as u32 * 2 + chunk));
        r += 1;
    }
}

/// `scores += Q K^T` over 16 columns of Q and K.
#[inline(always)]
pub(super) fn add_scores<E: Half, const R: usize, const QK16: usize, const KV8: usize>(
    scores: &mut Accumulator<R, KV8>,
    q: &[[[u32; 4]; QK16]; R],
    k: SharedTile,
    k16: usize,
    lane: Lane,
) {
    let (row, chunk) = matrix_row_k(lane);
    let mut n16 = 0;
    while n16 < KV8 / 2 {
        let [a, b, c, d] = load_matrices(k.chunk(n16 as u32 * 16 + row, k16 as u32 * 2 + chunk));
        let mut r = 0;
        while r < R {
            E::mma(&mut scores[r][2 * n16], q[r][k16], [a, b]);
            E::mma(&mut scores[r][2 * n16 + 1], q[r][k16], [c, d]);
            r += 1;
        }
        n16 += 1;
    }
}

/// `output += P V`.
#[inline(always)]
pub(super) fn add_output<E: Half, const R: usize, const KV8: usize, const V8: usize>(
    output: &mut Accumulator<R, V8>,
    probabilities: &Accumulator<R, KV8>,
    v: SharedTile,
    lane: Lane,
) {
    let (row, chunk) = matrix_row_v(lane);
    let mut k16 = 0;
    while k16 < KV8 / 2 {
        let mut p = [[0; 4]; R];
        let mut r = 0;
        while r < R {
            p[r] = pack_operand::<E>(probabilities[r][2 * k16], probabilities[r][2 * k16 + 1]);
            r += 1;
        }
        let mut v16 = 0;
        while v16 < V8 / 2 {
            let [a, b, c, d] = load_matrices_transposed(v.chunk(k16 as u32 * 16 + row, v16 as u32 * 2 + chunk));
            let mut r = 0;
            while r < R {
                E::mma(&mut output[r][2 * v16], p[r], [a, b]);
                E::mma(&mut output[r][2 * v16 + 1], p[r], [c, d]);
                r += 1;
            }
            v16 += 1;
        }
        k16 += 1;
    }
}

/// Adds what is not finite in the V of a group's keys to the rows that see it, where V was made finite for the rest; else says
/// whether all output of the block is finite, and so complete.
#[inline(always)]
fn complete_output<E: Half, G: Genes, const R: usize, const V8: usize, const CONTAINED: bool>(
    output: &mut Accumulator<R, V8>,
    features: G::Features,
    ring: &Ring<G>,
    Place { first_warp_row, lane, block, .. }: Place,
) -> bool {
    if !CONTAINED {
        return !any_thread(!all_finite(output.as_flattened()), Shared::base(), block);
    }
    let first_row = ring.work.first_row + first_warp_row;
    let v = features.source(ring.work, Operand::V, HALF_BYTES);
    let mut step = 0;
    while step < ring.steps {
        let [mut key, end] = ring.keys_of(step);
        while key < end {
            let mut r = 0;
            while r < R {
                let row = first_row + r as u32 * 16 + lane.row();
                let seen = [row, row + 8].map(|row| !features.hides::<E>(ring.work, row, key));
                let mut n = 0;
                while n < V8 && (n as u32) * 8 < G::HEAD_DIM_V {
                    let at = v.row(key).at((n as i64 * 8 + i64::from(lane.column())) * 2);
                    let values = E::unpack(at.load_u32());
                    let mut e = 0;
                    while e < 4 {
                        output[r][n][e] = add_seen(output[r][n][e], values[e % 2], seen[e / 2]);
                        e += 1;
                    }
                    n += 1;
                }
                r += 1;
            }
            key += 1;
        }
        step += 1;
    }
    true
}

/// Normalises the output and writes it, merging the groups' shares first if there are several. Says whether the output was
/// complete; else nothing is written.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "what a block has come to, and where it is from and goes to")]
fn finish<E: Half, G: Genes, const R: usize, const V8: usize, const CONTAINED: bool>(
    shared: Shared,
    mut output: Accumulator<R, V8>,
    states: [[RowState; 2]; R],
    scale: &Scale,
    features: G::Features,
    ring: &Ring<G>,
    to: &Destination,
    at: Place,
) -> bool {
    if G::Features::ON && !complete_output::<E, G, R, V8, CONTAINED>(&mut output, features, ring, at) {
        return false;
    }
    let Place { group, first_warp_row, lane, block } = at;
    let partials = Partials::new(shared.at(G::LAYOUT.rings), G::LAYOUT.partial, G::LAYOUT.ring, G::TILE_Q);
    if G::KV_SPLIT > 1 {
        // A group's partial result takes the place of its ring.
        ring.drain();
    }
    let mut r = 0;
    while r < R {
        let states = complete(states[r]);
        let first_row = first_warp_row + r as u32 * 16;
        if G::KV_SPLIT > 1 {
            partials.store(&output[r], states, group, first_row, lane);
        } else {
            store_output::<E, V8>(&output[r], states, scale, to, first_row, G::HEAD_DIM_V, lane);
        }
        r += 1;
    }
    if G::KV_SPLIT > 1 {
        sync_block();
        merge::<E, G::Features>(&partials, G::KV_SPLIT, 0, G::HEAD_DIM_V, to, scale, block);
    }
    true
}

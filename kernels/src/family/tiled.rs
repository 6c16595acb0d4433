//! Attention on the FMA units: any GPU, and the reference among the kernels.
//!
//! A block holds one query tile. `ROW_LANES` neighbouring lanes share a row: each has every `ROW_LANES`-th key of its
//! scores and every `ROW_LANES`-th pair of columns of its output. Probabilities cross lanes through shared memory.

use core::marker::PhantomData;

use spec::{AttentionArgs, layout::TiledLayout};

use crate::attention::{
    Features, LOGITS_LOG2, Loader, Operand, RowState, Scale, Scores, Source, Span, add_seen, all_finite, any_thread,
    exponential, load_tile, make_finite,
};
use crate::gpu::{Element, Shared, block_index, fma, opaque, shuffle_xor, sync_block, sync_warp, thread_index};
use crate::tile::SharedTile;

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
    /// Keys of one step.
    const TILE_KV: u32;
    /// Warps of a block.
    const WARPS: u32;
    /// Lanes that share a row.
    const ROW_LANES: u32;
    /// Bytes of one global load.
    const LOAD_BYTES: u32;
    /// Chunks of padding after each row of a shared tile.
    const SHARED_PAD: u32;
    /// One in so many exponentials by a polynomial.
    const EXP_POLY: u32;
    /// Bytes of an element of Q, K, V and O.
    const ELEMENT_BYTES: u32;
    /// Where things are in shared memory.
    const LAYOUT: TiledLayout = TiledLayout::new(
        Self::TILE_Q,
        Self::TILE_KV,
        Self::HEAD_DIM_QK * Self::ELEMENT_BYTES,
        Self::HEAD_DIM_V * Self::ELEMENT_BYTES,
        Self::SHARED_PAD,
    );
}

/// One block's attention. `ROWS` rows, `KEYS` scores of each and `PAIRS` pairs of its columns belong to a thread.
#[inline(always)]
pub fn attention<E: Element, G: Genes, const ROWS: usize, const KEYS: usize, const PAIRS: usize>(
    args: &AttentionArgs,
    more: &<G::Features as Features>::Args,
) {
    let done = attempt::<E, G, ROWS, KEYS, PAIRS, false>(args, more, thread_index(), block_index());
    if G::Features::ON && !done {
        // Nothing is taken over: what the first attempt found out would take up registers all the time.
        attempt::<E, G, ROWS, KEYS, PAIRS, true>(args, more, opaque(thread_index()), opaque(block_index()));
    }
}

/// [`attention`], [containing](crate::attention::all_finite) what is not finite in V if `CONTAINED`. Else it is not done, and says so,
/// where some of its output is not finite.
#[inline(always)]
fn attempt<E: Element, G: Genes, const ROWS: usize, const KEYS: usize, const PAIRS: usize, const CONTAINED: bool>(
    args: &AttentionArgs,
    more: &<G::Features as Features>::Args,
    thread: u32,
    block: u32,
) -> bool {
    let loader = Loader { thread, threads: 32 * G::WARPS };
    let row_groups = loader.threads / G::ROW_LANES;
    let (row_group, lane) = (thread / G::ROW_LANES, thread % G::ROW_LANES);
    let row_of = |i: usize| row_group + i as u32 * row_groups;
    let key_of = |j: usize| lane + j as u32 * G::ROW_LANES;

    let shared = Shared::base();
    let q = SharedTile::new(shared, G::LAYOUT.qk_pitch, false);
    let k = SharedTile::new(shared.at(G::LAYOUT.k), G::LAYOUT.qk_pitch, false);
    let v = SharedTile::new(shared.at(G::LAYOUT.v), G::LAYOUT.v_pitch, false);
    let p = |row: u32, key: u32| shared.at(G::LAYOUT.p + (row * G::TILE_KV + key) * 4);

    let features = G::Features::of(block, args, more, G::TILE_Q, E::BYTES);
    let work = features.work(args, G::TILE_Q, E::BYTES);
    if G::Features::ON && work.rows == 0 {
        return true;
    }
    let scale = Scale::new(if G::Features::ON { LOGITS_LOG2 } else { args.scale_log2 });
    let mut states = [if G::Features::ON { features.start(lane == 0) } else { RowState::EMPTY }; ROWS];
    let mut output = [[[0.0f32; 2]; PAIRS]; ROWS];

    let rows = Span {
        first: work.first_row,
        end: work.first_row + work.rows,
        rows: G::TILE_Q,
        row_bytes: G::HEAD_DIM_QK * E::BYTES,
    };
    load_tile(q, &work.q, rows, G::LOAD_BYTES, loader);
    let keys = work.keys();
    let mut first_key = 0;
    while first_key < keys {
        sync_block();
        let span = |head_dim| Span { first: first_key, end: keys, rows: G::TILE_KV, row_bytes: head_dim * E::BYTES };
        if G::Features::ON {
            load_tile(k, &features.source(&work, Operand::K, E::BYTES), span(G::HEAD_DIM_QK), G::LOAD_BYTES, loader);
            load_tile(v, &features.source(&work, Operand::V, E::BYTES), span(G::HEAD_DIM_V), G::LOAD_BYTES, loader);
        } else {
            load_tile(k, &work.k, span(G::HEAD_DIM_QK), G::LOAD_BYTES, loader);
            load_tile(v, &work.v, span(G::HEAD_DIM_V), G::LOAD_BYTES, loader);
        }
        sync_block();
        if G::Features::ON && CONTAINED {
            make_finite::<E>(v, G::TILE_KV, G::HEAD_DIM_V, loader);
            sync_block();
        }

        let mut scores = scores::<E, G, ROWS, KEYS>(q, k, row_of, key_of);
        let end = first_key + G::TILE_KV;
        let masked = work.mask.hides_any(work.first_row, end);
        if G::Features::ON {
            let scores = &mut scores;
            features.finish::<E>(
                &mut TileScores::<G, _, _, _, _> {
                    scores,
                    first_row: work.first_row,
                    first_key,
                    row_of,
                    key_of,
                    genes: PhantomData,
                },
                &work,
            );
        }
        let mut i = 0;
        while i < ROWS {
            let row = row_of(i);
            let visible = work.mask.visible(work.first_row + row);
            let mut tile_max = f32::NEG_INFINITY;
            let mut j = 0;
            while j < KEYS {
                if !G::Features::ON {
                    if scale.turns() {
                        scores[i][j] = scale.turn(scores[i][j]);
                    }
                    if masked && first_key + key_of(j) >= visible {
                        scores[i][j] = f32::NEG_INFINITY;
                    }
                }
                tile_max = tile_max.max(scores[i][j]);
                j += 1;
            }
            let step = states[i].advance(across_lanes::<G>(tile_max, f32::max), &scale);
            let mut j = 0;
            while j < KEYS {
                let probability = exponential(fma(scores[i][j], scale.factor, -step.base), j, G::EXP_POLY);
                states[i].sum += probability;
                p(row, key_of(j)).store_f32(probability);
                j += 1;
            }
            let mut c = 0;
            while c < PAIRS {
                output[i][c] = output[i][c].map(|x| x * step.correction);
                c += 1;
            }
            i += 1;
        }
        // A row's probabilities are written and read by one warp.
        sync_warp();

        let mut key = 0;
        while key < G::TILE_KV {
            let mut probabilities = [0.0; ROWS];
            let mut i = 0;
            while i < ROWS {
                probabilities[i] = p(row_of(i), key).load_f32();
                i += 1;
            }
            let mut c = 0;
            while c < PAIRS {
                let pair = lane + c as u32 * G::ROW_LANES;
                if pair * 2 < G::HEAD_DIM_V {
                    let [low, high] = E::load_pair(v.byte(key, pair * (2 * E::BYTES)));
                    let mut i = 0;
                    while i < ROWS {
                        let [x, y] = output[i][c];
                        output[i][c] = [fma(probabilities[i], low, x), fma(probabilities[i], high, y)];
                        i += 1;
                    }
                }
                c += 1;
            }
            key += 1;
        }
        first_key = end;
    }
    if G::Features::ON && CONTAINED {
        let v = features.source(&work, Operand::V, E::BYTES);
        let mut key = 0;
        while key < keys {
            let mut i = 0;
            while i < ROWS {
                let seen = !features.hides::<E>(&work, work.first_row + row_of(i), key);
                let mut c = 0;
                while c < PAIRS {
                    let pair = lane + c as u32 * G::ROW_LANES;
                    if pair * 2 < G::HEAD_DIM_V {
                        // Rows may start at any element.
                        let value = |column: u32| E::load(v.row(key), column);
                        let [x, y] = output[i][c];
                        output[i][c] = [add_seen(x, value(pair * 2), seen), add_seen(y, value(pair * 2 + 1), seen)];
                    }
                    c += 1;
                }
                i += 1;
            }
            key += 1;
        }
    } else if G::Features::ON && any_thread(!all_finite(output.as_flattened()), shared, loader) {
        return false;
    }

    let to = features.destination(&work, args, E::BYTES);
    let mut i = 0;
    while i < ROWS {
        let row = row_of(i);
        let state = RowState { sum: across_lanes::<G>(states[i].sum, |a, b| a + b), ..states[i] };
        let inverse = state.normaliser();
        let mut c = 0;
        while c < PAIRS {
            let pair = lane + c as u32 * G::ROW_LANES;
            if row < to.rows && pair * 2 < G::HEAD_DIM_V {
                let [low, high] = output[i][c];
                let at = to.o.row(row).at(i64::from(pair * (2 * E::BYTES)));
                E::store_pair(at, [low * inverse, high * inverse]);
            }
            c += 1;
        }
        if lane == 0 {
            to.store_lse(row, state.lse(&scale));
        }
        i += 1;
    }
    true
}

/// This thread's scores of a tile.
struct TileScores<'a, G, const ROWS: usize, const KEYS: usize, R, K> {
    scores: &'a mut [[f32; KEYS]; ROWS],
    first_row: u32,
    first_key: u32,
    row_of: R,
    key_of: K,
    genes: PhantomData<G>,
}

impl<G: Genes, const ROWS: usize, const KEYS: usize, R: Fn(usize) -> u32, K: Fn(usize) -> u32> Scores
    for TileScores<'_, G, ROWS, KEYS, R, K>
{
    #[inline(always)]
    fn rows(&self) -> [u32; 2] {
        [self.first_row, self.first_row + G::TILE_Q]
    }

    #[inline(always)]
    fn keys(&self) -> [u32; 2] {
        [self.first_key, self.first_key + G::TILE_KV]
    }

    #[inline(always)]
    fn map(&mut self, f: impl Fn(f32, u32, u32) -> f32) {
        let mut i = 0;
        while i < ROWS {
            let row = self.first_row + (self.row_of)(i);
            let mut j = 0;
            while j < KEYS {
                self.scores[i][j] = f(self.scores[i][j], row, self.first_key + (self.key_of)(j));
                j += 1;
            }
            i += 1;
        }
    }
}

/// Q K^T for this thread's rows and keys, 8 columns at a time.
#[inline(always)]
fn scores<E: Element, G: Genes, const ROWS: usize, const KEYS: usize>(
    q: SharedTile,
    k: SharedTile,
    row_of: impl Fn(usize) -> u32,
    key_of: impl Fn(usize) -> u32,
) -> [[f32; KEYS]; ROWS] {
    let mut scores = [[0.0; KEYS]; ROWS];
    let mut octet = 0;
    while octet < G::HEAD_DIM_QK / 8 {
        let mut rows = [[[0.0; 2]; 4]; ROWS];
        let mut i = 0;
        while i < ROWS {
            rows[i] = E::load_octet(q.chunk(row_of(i), octet * (E::BYTES / 2)));
            i += 1;
        }
        let mut j = 0;
        while j < KEYS {
            let key = E::load_octet(k.chunk(key_of(j), octet * (E::BYTES / 2)));
            let mut i = 0;
            while i < ROWS {
                let mut e = 0;
                while e < 4 {
                    scores[i][j] = fma(rows[i][e][0], key[e][0], scores[i][j]);
                    scores[i][j] = fma(rows[i][e][1], key[e][1], scores[i][j]);
                    e += 1;
                }
                i += 1;
            }
            j += 1;
        }
        octet += 1;
    }
    scores
}

/// Combines a value over the lanes that share a row.
#[inline(always)]
fn across_lanes<G: Genes>(mut value: f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut distance = 1;
    while distance < G::ROW_LANES {
        value = combine(value, shuffle_xor(value, distance));
        distance *= 2;
    }
    value
}

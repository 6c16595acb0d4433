//! Partial results merged as a plan merges them: on the oracle, and on kernels on the CPU machine. What a plan launches is tested in
//! `launch.rs`, and the whole on a GPU in `gpu.rs`.

use std::fmt;
use std::sync::OnceLock;

use builder::Library;
use host::attention::{Kernels, Layouts, MergeLayouts, Merging};
use host::cases::{Case, Distribution, Extras, Inputs, Layout as Order, Tensor, Tensors, number};
use host::device::simt::Simt;
use host::device::{Code, Failure};
use host::oracle::metamorphic::Executor;
use host::oracle::{Outputs, Reference, Row, SamePrecision, judge};
use host::tensor::Layout;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spec::{Align, DeviceLimits, Dtype, Extra, Family, Features, Mask, Problem, Sm, Variant};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const LIMITS: DeviceLimits = DeviceLimits::H100;

/// What memory holds where nothing of a tensor lies, and what empty parts hold: NaN in both types.
const STRAY: u16 = 0xffff;

/// head_dims and types of the kernels that are built.
const KINDS: [(u32, Dtype); 3] = [(8, Dtype::F16), (40, Dtype::F16), (40, Dtype::Bf16)];

/// The orders of dimensions that O of parts and of all may have.
const ORDERS: [Order; 4] = [Order::Bshd, Order::Bhsd, Order::Sbhd, Order::Capacity];

/// Problems drawn at random: the oracle is quick, a kernel on the CPU machine is not.
const RANDOM_ON_ORACLE: u64 = 300;
const RANDOM_ON_CPU: u64 = 60;

/// The kernels' library for the CPU machine.
fn code() -> Code {
    static PATH: OnceLock<std::path::PathBuf> = OnceLock::new();
    let build = || {
        let kernels = KINDS.into_iter().flat_map(|(head_dim, dtype)| {
            let plain = Problem::new(1, 1, 1, head_dim, dtype);
            let featured = Problem { features: Features { sinks: true, ..Features::NONE }, ..plain };
            [plain, featured].map(|problem| variant().kernel(&problem))
        });
        Library::open().and_then(|library| library.simt(&kernels.collect::<Vec<_>>())).expect("kernels")
    };
    Code::Library { path: PATH.get_or_init(build).clone() }
}

/// The variant of all merges.
fn variant() -> Variant {
    Variant::smallest(Family::Tiled)
}

/// Attention over keys that are cut into parts, and where its results lie.
#[derive(Debug)]
struct Cut {
    whole: Problem,
    /// Keys of each part; none is empty. A causal mask leaves all but the last visible to all rows.
    lengths: Vec<u32>,
    parts: Order,
    o: Order,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whole, lengths, parts, o } = self;
        write!(f, "{whole}, keys cut into {lengths:?}, parts {parts:?}, O {o:?}")
    }
}

impl Cut {
    fn new(whole: Problem, lengths: &[u32]) -> Self {
        let whole = whole.with_seqlens(whole.seqlen_q, lengths.iter().sum());
        Self { whole, lengths: lengths.to_vec(), parts: Order::Bshd, o: Order::Bshd }
    }

    /// One at random. Where the mask is causal, some rows may see no key of the last part, and where that is the only one, of none.
    fn random((head_dim, dtype): (u32, Dtype), seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let heads_kv = rng.random_range(1..=2);
        let rows = if rng.random() { 1 } else { rng.random_range(2..=6) };
        let problem = Problem::new(rng.random_range(1..=3), heads_kv * rng.random_range(1..=3), rows, head_dim, dtype);
        let mask = if rng.random() { Mask::Full } else { Mask::Causal(Align::BottomRight) };
        let features = Features { sinks: rng.random_ratio(1, 3), ..Features::NONE };
        let problem = Problem { features, ..problem.with_heads_kv(heads_kv).with_mask(mask) };
        let mut lengths: Vec<u32> = (0..rng.random_range(0..=4)).map(|_| rng.random_range(0..=20)).collect();
        lengths.push(rng.random_range((rows - 1).max(1)..=20));
        let mut order = || *ORDERS.choose(rng).expect("there are some");
        let (parts, o) = (order(), order());
        Self { parts, o, ..Self::new(problem, &lengths) }
    }

    fn merging(&self) -> Merging {
        let parts = Problem { batch: self.whole.batch * self.lengths.len() as u32, ..self.whole };
        let [parts, o] = [self.parts.of(&parts), self.o.of(&self.whole)].map(|problem| Layouts::of(&problem).o);
        Merging::of(&LIMITS, &parts, &o).expect("a merge")
    }

    /// What each part gives.
    fn attend(&self, executor: &mut dyn Executor, tensors: &Tensors) -> Result<Partial, Failure> {
        let merging = self.merging();
        let mut partial = Partial::empty(merging.layouts());
        let (whole, last) = (self.whole, self.lengths.len() - 1);
        let mut first = 0;
        for (part, keys) in self.lengths.iter().enumerate().filter(|(_, keys)| **keys > 0) {
            // The mask's diagonal ends in the last part, and sinks count once.
            let (mask, features, extras) = if part == last {
                (whole.mask, whole.features, tensors.extras.clone())
            } else {
                (Mask::Full, Features::NONE, Extras::default())
            };
            let problem = Problem { features, ..whole.with_seqlens(whole.seqlen_q, *keys).with_mask(mask) };
            let mut some = Tensors { extras, ..Tensors::unset(&problem)? };
            copy_rows(&mut some.q, &tensors.q, 0);
            copy_rows(&mut some.k, &tensors.k, first);
            copy_rows(&mut some.v, &tensors.v, first);
            partial.put(merging.layouts(), part as u32, &executor.run(&problem, &some)?);
            first += keys;
        }
        Ok(partial)
    }

    /// That the parts of a whole, merged, are the whole by the oracle in fp64.
    fn check(&self, executor: &mut dyn Executor, seed: u64) -> Result<(), Failure> {
        let case = Case::new(self.to_string(), self.whole, Distribution::Normal, seed);
        let tensors = case.inputs.generate(&self.whole)?;
        let merging = self.merging();
        let MergeLayouts { parts, o, .. } = *merging.layouts();
        let partial = self.attend(executor, &tensors)?;
        let merged = merge(executor, &merging, &partial)?;
        let mut outputs = Outputs::unwritten(&self.whole)?;
        for (b, s, h) in outputs.o.rows() {
            let at = outputs.o.offset(b, s, h);
            outputs.o.storage.inner_mut()[at..][..o.shape[3] as usize].copy_from_slice(row(&merged.o, &o, [b, s, h]));
        }
        for (bits, lse) in outputs.lse.inner_mut().iter_mut().zip(&merged.lse) {
            *bits = lse.to_bits();
        }
        // O of a part is rounded before it is merged.
        let mut expected = Reference::of(&self.whole, &tensors, &Row::all(&self.whole));
        for expected in &mut expected.rows {
            let Row { batch, head, row: s } = expected.row;
            let entries = (0..merging.parts()).map(|part| part * self.whole.batch + batch);
            let values = entries.flat_map(|entry| row(&partial.o, &parts, [entry, s, head]));
            let largest =
                values.map(|bits| number::decode(self.whole.dtype, (*bits).into()).abs()).fold(0f32, f32::max);
            expected.averages_rounded(number::ulp(self.whole.dtype, largest.into()) / 2.0);
        }
        judge(&case, &expected, &outputs)?;
        Ok(())
    }
}

/// Fills a tensor with rows of another from one of them on.
fn copy_rows(to: &mut Tensor, from: &Tensor, first: u32) {
    for (b, s, h) in to.rows() {
        let values: Vec<_> = from.values(b, first + s, h).collect();
        to.set_row(b, s, h, &values);
    }
}

/// O of all parts as it lies in memory, and their LSE.
#[derive(Clone, Debug)]
struct Partial {
    o: Vec<u16>,
    lse: Vec<f32>,
}

impl Partial {
    /// Parts that have seen nothing.
    fn empty(layouts: &MergeLayouts) -> Self {
        let [o, lse] = [layouts.parts, layouts.parts_lse].map(|layout| layout.extent().expect("a tensor"));
        Self { o: vec![STRAY; o], lse: vec![f32::NEG_INFINITY; lse] }
    }

    fn put(&mut self, layouts: &MergeLayouts, part: u32, outputs: &Outputs) {
        let [batch, .., head_dim] = outputs.o.shape();
        for (b, s, h) in outputs.o.rows() {
            let at = place(&layouts.parts, [part * batch + b, s, h]);
            self.o[at..][..head_dim as usize].copy_from_slice(outputs.o.row(b, s, h));
        }
        let lse: Vec<_> = outputs.lse.inner().iter().map(|bits| f32::from_bits(*bits)).collect();
        self.lse[part as usize * lse.len()..][..lse.len()].copy_from_slice(&lse);
    }
}

/// What a merge writes.
#[derive(Clone, Debug, PartialEq)]
struct Merged {
    o: Vec<u16>,
    lse: Vec<f32>,
}

/// Where a row of a tensor begins.
fn place(layout: &Layout, [b, s, h]: [u32; 3]) -> usize {
    let strides = layout.strides;
    (i64::from(b) * strides.batch + i64::from(s) * strides.seq + i64::from(h) * strides.head) as usize
}

fn row<'a>(memory: &'a [u16], layout: &Layout, at: [u32; 3]) -> &'a [u16] {
    &memory[place(layout, at)..][..layout.shape[3] as usize]
}

/// An executor that is held to the oracle.
struct Judged<'a>(&'a mut dyn Executor);

impl Executor for Judged<'_> {
    fn run(&mut self, problem: &Problem, tensors: &Tensors) -> Result<Outputs, Failure> {
        let outputs = self.0.run(problem, tensors)?;
        let case = Case::new(problem.to_string(), *problem, Distribution::BrokenValues, 0);
        judge(&case, &Reference::of(problem, tensors, &Row::all(problem)), &outputs)?;
        Ok(outputs)
    }
}

/// Does what a plan's launches do.
fn merge(executor: &mut dyn Executor, merging: &Merging, partial: &Partial) -> Result<Merged, Failure> {
    let MergeLayouts { o, lse, .. } = merging.layouts();
    let (problem, count) = (merging.problem(), merging.parts() as usize);
    let [elements, rows] = [o, lse].map(|layout| layout.extent().expect("a tensor"));
    // What the copies make of the parts' LSE: those of a row lie side by side.
    let logits: Vec<_> = (0..rows * count).map(|i| partial.lse[i % count * rows + i / count]).collect();
    let mut merged = Merged { o: vec![STRAY; elements], lse: vec![f32::NAN; rows] };
    for offsets in merging.launches() {
        let first = offsets.lse as usize;
        let rows = (problem.batch * problem.heads_q) as usize;
        let bias = logits[first * count..][..rows * count].iter().flat_map(|logit| logit.to_ne_bytes());
        let mut tensors = Tensors::unset(problem)?;
        tensors.extras = Extras::default().with(Extra::Bias, &bias.collect::<Vec<_>>())?;
        tensors.q.storage.inner_mut().fill(0);
        tensors.k.storage.inner_mut().fill(0);
        let (from, columns) = (Layouts::of(problem).v, problem.head_dim_v as usize);
        for (b, s, h) in tensors.v.rows() {
            let at = tensors.v.offset(b, s, h);
            let values = row(&partial.o[offsets.parts as usize..], &from, [b, s, h]);
            tensors.v.storage.inner_mut()[at..][..columns].copy_from_slice(values);
        }
        let outputs = executor.run(problem, &tensors)?;
        let to = Layouts::of(problem).o;
        for (b, s, h) in outputs.o.rows() {
            let at = offsets.o as usize + place(&to, [b, s, h]);
            merged.o[at..][..columns].copy_from_slice(outputs.o.row(b, s, h));
        }
        for (lse, bits) in merged.lse[first..].iter_mut().zip(outputs.lse.inner()) {
            *lse = f32::from_bits(*bits);
        }
    }
    Ok(merged)
}

fn on_cpu_machine<T>(run: impl FnOnce(&mut dyn Executor) -> T) -> T {
    let code = code();
    run(&mut Judged(&mut Simt::new(LIMITS).executor(variant(), &code)))
}

#[test]
fn kernels_ship_for_the_head_dims_of_models() -> Outcome {
    let catalog = host::shipped::catalog()?;
    for (head_dim, dtype) in
        [64, 80, 96, 128, 256].into_iter().flat_map(|head_dim| [Dtype::F16, Dtype::Bf16].map(|dtype| (head_dim, dtype)))
    {
        let merging = Cut::new(Problem::new(1, 1, 1, head_dim, dtype), &[1, 1]).merging();
        for sm in Sm::ALL {
            catalog.find(&variant().kernel(merging.problem()), sm)?;
        }
    }
    Ok(())
}

/// Attention over parts of which some are empty; of the others, rows may see nothing.
fn check_random(executor: &mut dyn Executor, count: u64) -> Outcome {
    let mut seen = [false; 5];
    for seed in 0..count {
        let cut = Cut::random(KINDS[seed as usize % KINDS.len()], seed);
        let Problem { batch, seqlen_q, .. } = cut.whole;
        let launches = cut.merging().launches().len();
        let sinks = cut.whole.features.sinks;
        let kinds = [launches == 1, launches > 1, cut.lengths.len() == 1, cut.lengths.contains(&0), sinks];
        seen.iter_mut().zip(kinds).for_each(|(seen, is)| *seen |= is);
        assert!(launches == 1 || (launches == batch as usize && seqlen_q > 1), "{cut}");
        cut.check(executor, seed).map_err(|failure| format!("seed {seed}: {failure}"))?;
    }
    assert_eq!(seen, [true; 5]);
    Ok(())
}

#[test]
fn random_parts_merge_on_the_oracle() -> Outcome {
    check_random(&mut Judged(&mut SamePrecision), RANDOM_ON_ORACLE)
}

#[test]
fn random_parts_merge_on_the_cpu_machine() -> Outcome {
    on_cpu_machine(|executor| check_random(executor, RANDOM_ON_CPU))
}

#[test]
fn more_parts_than_a_tile_has_keys() -> Outcome {
    let problem = Problem::new(2, 4, 3, 40, Dtype::Bf16).with_heads_kv(2);
    Ok(on_cpu_machine(|executor| Cut::new(problem, &[3; 37]).check(executor, 1))?)
}

/// Parts of two rows whose LSE is given: what is in them does not matter where they are empty.
fn two_rows(logits: &[[f32; 2]]) -> (Merging, Partial) {
    let cut = Cut::new(Problem::new(1, 2, 1, 8, Dtype::F16), &vec![1; logits.len()]);
    let merging = cut.merging();
    let mut partial = Partial::empty(merging.layouts());
    for (part, logits) in logits.iter().enumerate() {
        for (head, logit) in logits.iter().enumerate().filter(|(_, logit)| **logit != f32::NEG_INFINITY) {
            let at = place(&merging.layouts().parts, [part as u32, 0, head as u32]);
            partial.o[at..][..8].fill(number::encode(Dtype::F16, (part + 1) as f32) as u16);
            partial.lse[part * 2 + head] = *logit;
        }
    }
    (merging, partial)
}

/// O of the two rows, one column of each, and their LSE.
fn merge_two_rows(logits: &[[f32; 2]]) -> Result<[(f32, f32); 2], Failure> {
    let (merging, partial) = two_rows(logits);
    let merged = on_cpu_machine(|executor| merge(executor, &merging, &partial))?;
    let of = |head: u32| {
        let o = row(&merged.o, &merging.layouts().o, [0, 0, head]);
        assert!(o.iter().all(|bits| *bits == o[0]), "{o:?}");
        (number::decode(Dtype::F16, o[0].into()), merged.lse[head as usize])
    };
    Ok([of(0), of(1)])
}

#[test]
fn an_empty_part_is_the_neutral_element() -> Outcome {
    const NONE: f32 = f32::NEG_INFINITY;
    assert_eq!(merge_two_rows(&[[NONE; 2]])?, [(0.0, NONE); 2]);
    assert_eq!(merge_two_rows(&[[NONE; 2]; 5])?, [(0.0, NONE); 2]);
    assert_eq!(merge_two_rows(&[[NONE, 0.0], [NONE; 2]])?, [(0.0, NONE), (1.0, 0.0)]);
    assert_eq!(merge_two_rows(&[[NONE; 2], [0.0, NONE], [NONE, 0.0]])?, [(2.0, 0.0), (3.0, 0.0)]);
    Ok(())
}

#[test]
fn parts_of_equal_weight_are_averaged() -> Outcome {
    let two = 2f32.ln();
    let [(o, lse), (other, other_lse)] = merge_two_rows(&[[0.0, 300.0], [0.0, 300.0]])?;
    assert_eq!((o, other), (1.5, 1.5));
    assert!((lse - two).abs() < 1e-6 && (other_lse - 300.0 - two).abs() < 1e-4, "{lse} {other_lse}");
    Ok(())
}

#[test]
fn a_part_far_above_the_others_is_all() -> Outcome {
    let [(low, lse), (high, other)] = merge_two_rows(&[[-2e4, 2e4], [-1e4, 1e4], [-3e4, 3e4]])?;
    assert_eq!((low, high), (2.0, 3.0));
    assert!((lse / -1e4 - 1.0).abs() < 1e-6 && (other / 3e4 - 1.0).abs() < 1e-6, "{lse} {other}");
    Ok(())
}

#[test]
fn nan_in_the_lse_stays_with_its_row() -> Outcome {
    let (merging, partial) = two_rows(&[[f32::NAN, 0.0], [0.0, f32::NEG_INFINITY]]);
    // Not held to the oracle, which knows no logits that are NaN.
    let Merged { o, lse } = merge(&mut Simt::new(LIMITS).executor(variant(), &code()), &merging, &partial)?;
    let [spoilt, other] = [0, 1].map(|head| {
        row(&o, &merging.layouts().o, [0, 0, head]).iter().map(|bits| number::decode(Dtype::F16, (*bits).into()))
    });
    assert!(spoilt.into_iter().all(f32::is_nan) && lse[0].is_nan());
    assert!(other.into_iter().all(|value| value == 1.0) && lse[1] == 0.0);
    Ok(())
}

#[test]
fn what_an_empty_part_holds_changes_no_bit() -> Outcome {
    on_cpu_machine(|executor| {
        for (seed, (head_dim, dtype)) in KINDS.into_iter().enumerate() {
            // The first two rows of each head see nothing of the last part, the second part is empty throughout.
            let problem = Problem::new(2, 2, 4, head_dim, dtype).with_mask(Mask::Causal(Align::BottomRight));
            let cut = Cut::new(problem, &[7, 0, 3]);
            let tensors = Inputs::new(Distribution::Normal, seed as u64).generate(&cut.whole)?;
            let merging = cut.merging();
            let layouts = merging.layouts();
            let partial = cut.attend(executor, &tensors)?;
            let with = |value: f32| {
                let mut partial = partial.clone();
                let [stacked, rows, heads, columns] = layouts.parts.shape;
                for at in (0..stacked).flat_map(|b| (0..rows).flat_map(move |s| (0..heads).map(move |h| [b, s, h]))) {
                    if partial.lse[place(&layouts.parts_lse, at)] == f32::NEG_INFINITY {
                        let from = place(&layouts.parts, at);
                        partial.o[from..][..columns as usize].fill(number::encode(dtype, value) as u16);
                    }
                }
                partial
            };
            let zeros = merge(executor, &merging, &with(0.0))?;
            assert!(zeros.lse.iter().all(|lse| lse.is_finite()));
            for value in [f32::NAN, f32::INFINITY, 7.0] {
                assert_eq!(merge(executor, &merging, &with(value))?, zeros, "{value} in empty parts");
            }
        }
        Ok(())
    })
}

#[test]
fn a_row_has_the_same_bits_in_any_batch() -> Outcome {
    on_cpu_machine(|executor| {
        for order in [Order::Bshd, Order::Bhsd] {
            let problem = Problem::new(3, 4, 2, 40, Dtype::F16);
            let cut = Cut { parts: order, o: order, ..Cut::new(problem, &[5, 9, 4]) };
            let tensors = Inputs::new(Distribution::Normal, 2).generate(&cut.whole)?;
            let merging = cut.merging();
            let partial = cut.attend(executor, &tensors)?;
            let together = merge(executor, &merging, &partial)?;
            for entry in 0..3 {
                let alone = Cut { parts: order, o: order, ..Cut::new(Problem { batch: 1, ..problem }, &[5, 9, 4]) };
                let of_one = alone.merging();
                let (many, one) = (merging.layouts(), of_one.layouts());
                let mut some = Partial::empty(one);
                for at in (0..3).flat_map(|p| (0..2).flat_map(move |s| (0..4).map(move |h| [p, s, h]))) {
                    let [part, s, h] = at;
                    let from = [part * 3 + entry, s, h];
                    let to = place(&one.parts, at);
                    some.o[to..][..40].copy_from_slice(row(&partial.o, &many.parts, from));
                    some.lse[place(&one.parts_lse, at)] = partial.lse[place(&many.parts_lse, from)];
                }
                let found = merge(executor, &of_one, &some)?;
                for (s, h) in (0..2).flat_map(|s| (0..4).map(move |h| (s, h))) {
                    let [alone, among] = [[0, s, h], [entry, s, h]];
                    assert_eq!(row(&found.o, &one.o, alone), row(&together.o, &many.o, among), "{order:?} {among:?}");
                    assert_eq!(found.lse[place(&one.lse, alone)], together.lse[place(&many.lse, among)]);
                }
            }
        }
        Ok(())
    })
}

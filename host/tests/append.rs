//! Appending to a K/V cache: on the CPU machine, and on a GPU where there is one, against plain Rust; then attention over the
//! cache against attention over the concatenation.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use builder::{BuildError, Library};
use host::attention::{Appender, Attention, Extras};
use host::cases::{self, Distribution, Guarded, Inputs, Tensors};
use host::device::Code;
use host::device::simt::Simt;
use host::driver::{Buffer, Gpu, Graph, Stream};
use host::oracle::Outputs;
use host::oracle::metamorphic::Executor;
use host::tensor::Tensor;
use libtest_mimic::{Arguments, Failed, Trial};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use simt::{Entry, Launch, address_of};
use spec::{
    APPEND_THREADS, Append, AppendAddresses, AppendArgs, DeviceLimits, Dtype, Extra, Features, Kernel, Pages, Problem,
    Strides, Variant, defaults,
};

/// Random appends that are tried.
const RANDOM: u64 = 400;

/// What memory holds where no element lies.
const STRAY: u16 = 0x7fff;

/// What kernels are compiled and run for.
const MACHINE: DeviceLimits = DeviceLimits::H100;

type Outcome = Result<(), Failed>;
type Test<On> = fn(&On) -> Outcome;

fn main() {
    let code = Arc::new(Mutex::new(None));
    let mut trials = vec![];
    let on_cpu: [(&str, Test<Code>); 2] =
        [("simt/random", random_on_cpu), ("simt/then-attention", then_attention_on_cpu)];
    for (name, test) in on_cpu {
        let code = Arc::clone(&code);
        trials.push(Trial::test(name, move || test(&built(&code)?)));
    }
    let gpu = Gpu::open(0);
    let on_gpu: [(&str, Test<Gpu>); 2] =
        [("cuda/random", random_on_gpu), ("cuda/then-attention-in-a-graph", then_attention_in_a_graph)];
    for (name, test) in on_gpu {
        trials.push(match gpu.clone() {
            Ok(gpu) => Trial::test(name, move || test(&gpu)),
            Err(reason) => {
                let kind = reason.to_string();
                Trial::test(name, move || Err(reason.into())).with_ignored_flag(true).with_kind(kind)
            }
        });
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(otherwise().into()) }
}

/// A tensor's memory between guard zones, its first element some way behind the first zone.
#[derive(Clone, PartialEq)]
struct Memory {
    /// Shape and strides count these, of which an element of fp32 takes two, and two of e4m3 share one.
    words: Guarded<u16>,
    lead: usize,
    shape: [u32; 4],
    strides: Strides,
}

impl Memory {
    /// Of a tensor of elements of this type. Each word of a row is random; the first is at some multiple of `unit` elements.
    fn random(
        [batch, seq, heads, columns]: [u32; 4],
        Strides { batch: b, seq: s, head: h }: Strides,
        dtype: Dtype,
        unit: i64,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, Failed> {
        let words = |elements: i64| elements * i64::from(dtype.bytes()) / size_of::<u16>() as i64;
        let shape = [batch, seq, heads, words(columns.into()) as u32];
        let (strides, unit) = (Strides { batch: words(b), seq: words(s), head: words(h) }, words(unit));
        let lead = unit as usize * rng.random_range(0..3);
        let steps = [(shape[0], strides.batch), (shape[1], strides.seq), (shape[2], strides.head)];
        let last: i64 = steps.into_iter().map(|(extent, stride)| i64::from(extent - 1) * stride).sum();
        let words = lead + last as usize + shape[3] as usize;
        let words = Guarded::poisoned(words, STRAY).ok_or("there is not the memory")?;
        let mut memory = Self { words, lead, shape, strides };
        for place in memory.rows() {
            memory.row_mut(place).fill_with(|| rng.random());
        }
        Ok(memory)
    }

    fn rows(&self) -> Vec<[u32; 3]> {
        let [batch, seq, heads, _] = self.shape;
        let places = (0..batch).flat_map(|b| (0..seq).flat_map(move |s| (0..heads).map(move |h| [b, s, h])));
        places.collect()
    }

    fn row_mut(&mut self, [batch, seq, head]: [u32; 3]) -> &mut [u16] {
        let Strides { batch: b, seq: s, head: h } = self.strides;
        let start = self.lead + (i64::from(batch) * b + i64::from(seq) * s + i64::from(head) * h) as usize;
        &mut self.words.inner_mut()[start..start + self.shape[3] as usize]
    }

    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self.words.whole())
    }

    /// The first element, where the guard zone before it is at `start`.
    fn address(&self, start: u64) -> u64 {
        start + ((cases::GUARD + self.lead) * size_of::<u16>()) as u64
    }
}

/// Something to append, and what there is before.
struct Case {
    append: Append,
    /// New K and V, K and V of the cache.
    memory: [Memory; 4],
    used: Vec<u32>,
    table: Vec<u32>,
}

/// Strides of a tensor whose dimensions follow each other in any order, with gaps of multiples of `unit` elements.
fn strides([batch, seq, heads, columns]: [u32; 4], unit: i64, rng: &mut ChaCha8Rng) -> Strides {
    let mut order = [(0, batch), (1, seq), (2, heads)];
    order.shuffle(rng);
    let mut strides = [0; 3];
    let mut span = i64::from(columns);
    for (dimension, extent) in order {
        let stride = span + unit * rng.random_range(0..3);
        strides[dimension] = stride;
        span = stride * i64::from(extent);
    }
    let [batch, seq, head] = strides;
    Strides { batch, seq, head }
}

impl Case {
    fn random(seed: u64) -> Result<Self, Failed> {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut head_dim = || [8, 40, 64, 72, 128, 256][rng.random_range(0..6)];
        let [qk, v] = [head_dim(), head_dim()];
        let (batch, heads) = (rng.random_range(1..5), rng.random_range(1..5));
        let seqlen_kv = rng.random_range(1..60);
        let rows = rng.random_range(1..=seqlen_kv.min(20));
        let dtype = Dtype::ALL[rng.random_range(0..Dtype::ALL.len())];
        let pages = rng.random_ratio(1, 2).then(|| {
            let size = rng.random_range(1..20);
            let columns = u32::div_ceil(seqlen_kv, size) + rng.random_range(0..2);
            Pages { count: batch * columns + rng.random_range(0..3), size, columns }
        });
        let features = Features { pages, ..Features::NONE };
        let mut problem =
            Problem { head_dim_v: v, features, ..Problem::new(batch, heads, 1, qk, dtype) }.with_seqlens(1, seqlen_kv);
        // Elements of the access that is to be the widest.
        let unit = 1 << rng.random_range(i32::from(dtype == Dtype::E4m3)..4);
        let shapes = Append::to(&problem, rows).shapes();
        let [new_k, new_v, k, v] = shapes.map(|shape| strides(shape, unit, rng));
        (problem.strides.k, problem.strides.v) = (k, v);
        let append = Append::to(&problem, rows).with_strides(new_k, new_v);
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| Memory::random(shapes[i], append.strides()[i], dtype, unit, rng));
        // All that there is room for; or often more, and sometimes no length at all.
        let fits = rng.random_ratio(1, 2);
        let used = (0..batch).map(|_| match rng.random_range(0..8) {
            _ if fits => rng.random_range(0..=seqlen_kv - rows),
            0 => u32::MAX - rng.random_range(0..2),
            1 => seqlen_kv + rng.random_range(0..3),
            2..5 => seqlen_kv - rng.random_range(0..=rows),
            _ => rng.random_range(0..=seqlen_kv),
        });
        let used = used.collect();
        let mut table = vec![];
        if let Some(Pages { count, columns, .. }) = pages {
            // Each page once, or none of the cache's.
            let mut names: Vec<u32> = (0..count).collect();
            names.shuffle(rng);
            table.extend(names.into_iter().take((batch * columns) as usize));
            for name in &mut table {
                match rng.random_range(0..12) {
                    0 if !fits => *name = u32::MAX,
                    1 if !fits => *name = count,
                    _ => {}
                }
            }
        }
        Ok(Self { append, memory: [a?, b?, c?, d?], used, table })
    }

    /// Where a key of a batch entry is in the cache.
    fn place(&self, entry: u32, key: u64) -> Option<[u32; 2]> {
        let cache = self.append.cache();
        if key >= cache.seqlen_kv.into() {
            return None;
        }
        let key = key as u32;
        let Some(Pages { count, size, columns }) = cache.features.pages else { return Some([entry, key]) };
        let page = self.table[(entry * columns + key / size) as usize];
        (page < count).then_some([page, key % size])
    }

    /// The cache's K and V afterwards, the lengths, and how many rows had no place.
    fn expected(&self) -> ([Memory; 2], Vec<u32>, usize) {
        let [mut new_k, mut new_v, mut k, mut v] = self.memory.clone();
        let mut dropped = 0;
        for [entry, new, head] in new_k.rows() {
            match self.place(entry, u64::from(self.used[entry as usize]) + u64::from(new)) {
                Some([place, position]) => {
                    k.row_mut([place, position, head]).copy_from_slice(new_k.row_mut([entry, new, head]));
                    v.row_mut([place, position, head]).copy_from_slice(new_v.row_mut([entry, new, head]));
                }
                None => dropped += 1,
            }
        }
        let (rows, seqlen_kv) = (u64::from(self.append.rows()), u64::from(self.append.cache().seqlen_kv));
        let raised = self.used.iter().map(|used| (u64::from(*used) + rows).min(seqlen_kv) as u32).collect();
        ([k, v], raised, dropped)
    }

    /// Addresses, where these are those of the memory, guard zones included, and of the arrays.
    fn addresses(&self, memory: [u64; 4], used: u64, table: u64, raised: u64) -> AppendAddresses {
        let [new_k, new_v, k, v] = [0, 1, 2, 3].map(|i| self.memory[i].address(memory[i]));
        let pages = if self.table.is_empty() { 0 } else { table };
        AppendAddresses { new_k, new_v, k, v, used, pages, raised }
    }
}

/// What a launch left.
struct After {
    memory: [Memory; 4],
    raised: Vec<u32>,
    /// Of the launch.
    access_bytes: u32,
}

/// Holds what `run` leaves of random cases against what plain Rust does.
fn random(run: &mut dyn FnMut(&Case) -> Result<After, Failed>) -> Outcome {
    let (mut widths, mut all, mut none) = ([0; 17], 0, 0);
    for seed in 0..RANDOM {
        let case = Case::random(seed)?;
        let After { memory: [new_k, new_v, k, v], raised, access_bytes } = run(&case)?;
        let (expected, lengths, dropped) = case.expected();
        let said = || format!("seed {seed}: {}", case.append);
        ensure(raised == lengths, || format!("{}: raised to {raised:?} instead of {lengths:?}", said()))?;
        let [of_k, of_v] = expected;
        let same = [new_k, new_v] == case.memory[..2] && k == of_k && v == of_v;
        ensure(same, || format!("{}: other bytes than expected", said()))?;
        widths[access_bytes as usize] += 1;
        all += usize::from(dropped == 0);
        none += usize::from(dropped > 0);
    }
    // The cases are of every kind.
    ensure([2, 4, 8, 16].iter().all(|width| widths[*width] > 10), || format!("accesses: {widths:?}"))?;
    ensure(all > 50 && none > 50, || format!("{all} of whole rows, {none} with dropped ones"))
}

fn built(code: &Mutex<Option<Result<Code, BuildError>>>) -> Result<Code, Failed> {
    let build = || {
        let kernels: Vec<Kernel> = attended()
            .iter()
            .flat_map(|(problem, variants)| variants.iter().map(|variant| variant.kernel(problem)))
            .chain([Kernel::Append])
            .collect();
        Ok(Code::Library { path: Library::open()?.simt(&kernels)? })
    };
    let mut code = code.lock().map_err(|error| error.to_string())?;
    Ok(code.get_or_insert_with(build).clone()?)
}

/// The kernel in a library for the CPU machine, which stays open as long as this.
struct OnCpu {
    entry: Entry,
    _library: libloading::Library,
}

impl OnCpu {
    fn open(code: &Code) -> Result<Self, Failed> {
        let Code::Library { path } = code else { return Err("the CPU machine runs libraries".into()) };
        // SAFETY: what the builder makes has no initialisers that could do harm.
        let library = unsafe { libloading::Library::new(path) }?;
        // SAFETY: only the symbol's address is taken.
        let address = unsafe { library.get::<*const c_void>(Kernel::Append.symbol().to_string()) }?;
        // SAFETY: the builder exports kernels under their symbols as entries of the CPU machine.
        Ok(Self { entry: unsafe { Entry::new(*address) }, _library: library })
    }

    /// Appends in the memory of the last two tensors.
    fn run(
        &self,
        append: &Append,
        tensors: [&mut [u8]; 4],
        arrays: [&[u32]; 2],
        addresses: impl FnOnce([u64; 4], u64, u64, u64) -> AppendAddresses,
        seed: u64,
    ) -> Result<(Vec<u32>, u32), Failed> {
        let ([new_k, new_v, k, v], [used, table]) = (tensors, arrays);
        let mut raised = vec![u32::MAX; used.len()];
        let args = append.args(&addresses([0, 1, 2, 3].map(address_of), address_of(4), address_of(5), address_of(6)));
        let mut buffers = [
            simt::Buffer::read("new K", new_k),
            simt::Buffer::read("new V", new_v),
            simt::Buffer::write("K", k),
            simt::Buffer::write("V", v),
            simt::Buffer::read("used", bytemuck::cast_slice(used)),
            simt::Buffer::read("table", bytemuck::cast_slice(table)),
            simt::Buffer::write("raised", bytemuck::cast_slice_mut(&mut raised)),
        ];
        let launch = Launch { seed, ..Launch::new("append", append.blocks()?, APPEND_THREADS) };
        self.entry.call(&launch, &mut buffers, bytes_of(&args))?;
        Ok((raised, args.access_bytes))
    }
}

fn bytes_of(args: &AppendArgs) -> &[u8] {
    // SAFETY: it is made of numbers, without gaps: 8 bytes each first, then an even number of 4 bytes each.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(args).cast(), size_of::<AppendArgs>()) }
}

fn random_on_cpu(code: &Code) -> Outcome {
    let kernel = OnCpu::open(code)?;
    let mut seed = 0;
    random(&mut |case| {
        seed += 1;
        let mut memory = case.memory.clone();
        let tensors = memory.each_mut().map(|memory| bytemuck::cast_slice_mut(memory.words.whole_mut()));
        let addresses = |memory, used, table, raised| case.addresses(memory, used, table, raised);
        let (raised, access_bytes) = kernel.run(&case.append, tensors, [&case.used, &case.table], addresses, seed)?;
        Ok(After { memory, raised, access_bytes })
    })
}

fn random_on_gpu(gpu: &Gpu) -> Outcome {
    let (library, stream) = (Library::open()?, Stream::new(gpu)?);
    random(&mut |case| {
        let plan = Appender::new(gpu, &library, &case.append)?;
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| Buffer::of(gpu, case.memory[i].bytes()));
        let buffers = [a?, b?, c?, d?];
        let (used, table) = (Buffer::of(gpu, &case.used)?, Buffer::of(gpu, &case.table)?);
        let raised = Buffer::of(gpu, &vec![u32::MAX; case.used.len()])?;
        let starts = buffers.each_ref().map(Buffer::address);
        let addresses = case.addresses(starts, used.address(), table.address(), raised.address());
        // SAFETY: all outlive the wait, and are laid out as the case says.
        unsafe { plan.launch_at(&stream, &addresses) }?;
        stream.synchronize()?;
        let mut memory = case.memory.clone();
        for (memory, buffer) in memory.iter_mut().zip(&buffers) {
            let words = memory.words.whole_mut();
            words.copy_from_slice(&buffer.download(0, words.len())?);
        }
        let access_bytes = plan.arguments(&addresses)?.access_bytes;
        Ok(After { memory, raised: raised.download(0, case.used.len())?, access_bytes })
    })
}

/// Problems of a few new rows, whose keys are appended first: over a contiguous cache and over pages; each with kernels of two
/// families.
fn attended() -> Vec<(Problem, Vec<Variant>)> {
    let pages = Pages { count: 40, size: 16, columns: 7 };
    let problem = |pages, dtype| {
        let features = Features { used_kv: true, pages, ..Features::NONE };
        let mask = spec::Mask::Causal(spec::Align::BottomRight);
        Problem { features, ..Problem::new(3, 4, NEW, 64, dtype) }
            .with_mask(mask)
            .with_heads_kv(2)
            .with_seqlens(NEW, 100)
    };
    let variants = |problem: &Problem| {
        let all: Vec<_> = defaults(problem, &MACHINE).collect();
        all.first().into_iter().chain(all.last()).copied().collect()
    };
    let problems = [problem(None, Dtype::F16), problem(Some(pages), Dtype::Bf16)];
    problems.map(|problem| (problem, variants(&problem))).into()
}

/// New keys of each entry in [`attended`] problems.
const NEW: u32 = 5;

/// A cache before new keys come, those keys, and all of them together.
struct Step {
    append: Append,
    before: Tensors,
    /// New K and V, contiguous.
    new: [Vec<u16>; 2],
    used: Vec<u32>,
    /// The same keys as those of the cache afterwards, in a contiguous cache of their own.
    whole: (Problem, Tensors),
}

fn bytes(words: &[u32]) -> &[u8] {
    bytemuck::cast_slice(words)
}

impl Step {
    fn of(problem: &Problem, seed: u64) -> Result<Self, Failed> {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let append = Append::to(problem, NEW);
        let most = problem.seqlen_kv - NEW;
        // Nothing yet, all that there is room for, and some.
        let used = vec![0, most, rng.random_range(1..most)];
        let lengths: Vec<u32> = used.iter().map(|used| used + NEW).collect();

        let contiguous = Features { pages: None, ..problem.features };
        let contiguous = Problem { features: contiguous, ..*problem }.in_bshd();
        // Normal numbers everywhere, of which what is not used is forgotten.
        let full = Problem { features: Features::NONE, ..contiguous };
        let numbers = Inputs::new(Distribution::Normal, seed).generate(&full)?;
        let mut whole = Tensors::unset(&contiguous)?;
        let mut before = Tensors::unset(problem)?;
        whole.extras = cases::Extras::default().with(Extra::UsedKv, bytes(&lengths))?;
        before.extras = whole.extras.clone();
        let mut table = vec![];
        if let Some(Pages { count, columns, .. }) = problem.features.pages {
            let mut names: Vec<u32> = (0..count).collect();
            names.shuffle(rng);
            table.extend(names.into_iter().take((problem.batch * columns) as usize));
            before.extras = before.extras.with(Extra::Pages, bytes(&table))?;
        }
        let (mut new_k, mut new_v) = (vec![], vec![]);
        for (entry, length) in (0..).zip(&lengths) {
            for (row, head) in (0..NEW).flat_map(|row| (0..problem.heads_q).map(move |head| (row, head))) {
                let values: Vec<f32> = numbers.q.values(entry, row, head).collect();
                whole.q.set_row(entry, row, head, &values);
                before.q.set_row(entry, row, head, &values);
            }
            for (key, head) in (0..*length).flat_map(|key| (0..problem.heads_kv).map(move |head| (key, head))) {
                let place = match problem.features.pages {
                    Some(Pages { size, columns, .. }) => (table[(entry * columns + key / size) as usize], key % size),
                    None => (entry, key),
                };
                let tensors = [
                    (&numbers.k, &mut whole.k, &mut before.k, &mut new_k),
                    (&numbers.v, &mut whole.v, &mut before.v, &mut new_v),
                ];
                for (numbers, whole, before, new) in tensors {
                    let values: Vec<f32> = numbers.values(entry, key, head).collect();
                    whole.set_row(entry, key, head, &values);
                    if key < length - NEW {
                        before.set_row(place.0, place.1, head, &values);
                    } else {
                        new.extend(numbers.row(entry, key, head));
                    }
                }
            }
        }
        Ok(Self { append, before, new: [new_k, new_v], used, whole: (contiguous, whole) })
    }

    fn table(&self) -> &[u32] {
        self.before.extras.get(Extra::Pages).map_or(&[], |table| bytemuck::cast_slice(table.elements()))
    }
}

fn then_attention_on_cpu(code: &Code) -> Outcome {
    let kernel = OnCpu::open(code)?;
    for (problem, variants) in attended() {
        for (variant, seed) in variants.into_iter().zip(0..) {
            let mut step = Step::of(&problem, seed)?;
            let paged = !step.table().is_empty();
            let table = step.table().to_vec();
            let [new_k, new_v] = &mut step.new;
            let Tensors { k, v, .. } = &mut step.before;
            let words = [new_k.as_mut_slice(), new_v.as_mut_slice(), k.storage.inner_mut(), v.storage.inner_mut()];
            let addresses = |[new_k, new_v, k, v]: [u64; 4], used, table, raised| AppendAddresses {
                new_k,
                new_v,
                k,
                v,
                used,
                pages: if paged { table } else { 0 },
                raised,
            };
            let words = words.map(bytemuck::cast_slice_mut);
            let (raised, _) = kernel.run(&step.append, words, [&step.used, &table], addresses, seed)?;
            step.before.extras = step.before.extras.with(Extra::UsedKv, bytes(&raised))?;
            let mut device = Simt::new(MACHINE);
            let mut executor = device.executor(variant, code);
            let appended = executor.run(&problem, &step.before)?;
            let (whole, tensors) = &step.whole;
            let concatenated = executor.run(whole, tensors)?;
            same(&appended, &concatenated).map_err(|error| format!("{problem} by {variant}: {error}"))?;
        }
    }
    Ok(())
}

fn same(appended: &Outputs, concatenated: &Outputs) -> Result<(), String> {
    let o = appended.o.storage.inner() == concatenated.o.storage.inner();
    let lse = appended.lse.inner() == concatenated.lse.inner();
    if o && lse { Ok(()) } else { Err(format!("other bits than over the concatenation: O {o}, LSE {lse}")) }
}

/// A step of decoding, captured once: append, then attend over the raised lengths. It is replayed over another cache.
fn then_attention_in_a_graph(gpu: &Gpu) -> Outcome {
    let (library, stream) = (Library::open()?, Stream::new(gpu)?);
    for (problem, _) in attended() {
        let steps = [Step::of(&problem, 1)?, Step::of(&problem, 2)?];
        let [first, _] = &steps;
        let appender = Appender::new(gpu, &library, &first.append)?;
        let plan = Attention::new(gpu, &library, None, &problem)?;
        let (layouts, [new_k, new_v, ..]) = (plan.layouts(), appender.layouts());
        let mut q = Tensor::new(gpu, layouts.q)?;
        let (mut k, mut v, mut o) =
            (Tensor::new(gpu, layouts.k)?, Tensor::new(gpu, layouts.v)?, Tensor::new(gpu, layouts.o)?);
        let (mut new_k, mut new_v) = (Tensor::new(gpu, *new_k)?, Tensor::new(gpu, *new_v)?);
        let used = Buffer::of(gpu, &first.used)?;
        let table = Buffer::of(gpu, &vec![0u32; first.table().len()])?;
        let mut raised = Buffer::of(gpu, &vec![0u32; first.used.len()])?;
        let graph = Graph::capture(gpu, |stream| {
            let (mut lengths, mut after) = (Extras::default().with(Extra::UsedKv, &used), Extras::default());
            if problem.features.pages.is_some() {
                lengths = lengths.with(Extra::Pages, &table);
                after = after.with(Extra::Pages, &table);
            }
            appender.launch(stream, [&new_k, &new_v], [&mut k, &mut v], &lengths, Some(&mut raised))?;
            plan.launch_with(stream, [&q, &k, &v], &mut o, None, &after.with(Extra::UsedKv, &raised))
        })?;
        for step in &steps {
            q.set(step.before.q.storage.inner())?;
            k.set(step.before.k.storage.inner())?;
            v.set(step.before.v.storage.inner())?;
            new_k.set(&step.new[0])?;
            new_v.set(&step.new[1])?;
            used.upload(0, &step.used)?;
            if !step.table().is_empty() {
                table.upload(0, step.table())?;
            }
            // SAFETY: all tensors outlive the wait.
            unsafe { graph.launch(&stream) }?;
            stream.synchronize()?;
            let appended = o.values::<u16>()?;

            let (whole, tensors) = &step.whole;
            let alone = Attention::with_variant(gpu, &library, whole, plan.variant())?;
            let [k, v] = [&tensors.k, &tensors.v].map(|tensor| tensor.storage.inner());
            let (k, v) = (Tensor::of(gpu, alone.layouts().k, k)?, Tensor::of(gpu, alone.layouts().v, v)?);
            let lengths: Vec<u32> = step.used.iter().map(|used| used + NEW).collect();
            let lengths = Buffer::of(gpu, &lengths)?;
            let extras = Extras::default().with(Extra::UsedKv, &lengths);
            alone.launch_with(&stream, [&q, &k, &v], &mut o, None, &extras)?;
            stream.synchronize()?;
            ensure(appended == o.values::<u16>()?, || format!("{problem}: other bits than over the concatenation"))?;
        }
    }
    Ok(())
}

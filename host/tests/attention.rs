//! The table of cases on kernels of every family, on every executor that is here.
//!
//! `cargo test -p host --test attention -- simt/mma` runs a part; `--list` shows all.

use std::sync::{Arc, Mutex};

use builder::{BuildError, Catalog, Library, Project, space};
use host::attention::{Attention, Kernels};
use host::cases::{Case, Distribution, Extent, Inputs, Tensors, odd_addresses, odd_strides, random, suite};
use host::device::cuda::Cuda;
use host::device::remote::{Patience, Remote};
use host::device::simt::Simt;
use host::device::{Code, Device, Failure, Pace, Samples, Subject, TimingPlan, worker};
use host::dispatch::{choose, choose_for_any_batch};
use host::driver::Gpu;
use host::oracle::metamorphic::{Executor, RELATIONS, Relation};
use host::oracle::{Expected, Outputs, Reference, Row};
use libtest_mimic::{Arguments, Failed, Trial};
use spec::{DeviceLimits, Dtype, Family, Features, Gene, Kernel, Problem, Sm, Variant, Window, defaults, legal};

/// The argument with which this program serves a GPU to itself.
const SERVE: &str = "--serve-gpu";

/// Kernels by name. Among them most values of each gene occur, and head_dims that fill tensor-core steps, leave some
/// empty, and are the smallest and the largest.
const KERNELS: [(&str, &str, u32, Dtype); 29] = [
    (
        "tiled-64",
        "tiled:tile_q=64,tile_kv=64,warps=8,row_lanes=8,load_bytes=16,shared_pad=1,exp_poly=0,blocks_per_sm=1,block_order=0",
        64,
        Dtype::F16,
    ),
    (
        "tiled-40-bf16",
        "tiled:tile_q=32,tile_kv=32,warps=4,row_lanes=8,load_bytes=8,shared_pad=0,exp_poly=1,blocks_per_sm=1,block_order=1",
        40,
        Dtype::Bf16,
    ),
    (
        "tiled-128",
        "tiled:tile_q=16,tile_kv=32,warps=2,row_lanes=16,load_bytes=2,shared_pad=0,exp_poly=0,blocks_per_sm=2,block_order=2",
        128,
        Dtype::F16,
    ),
    (
        "tiled-64-f32",
        "tiled:tile_q=64,tile_kv=32,warps=8,row_lanes=8,load_bytes=16,shared_pad=1,exp_poly=0,blocks_per_sm=1,block_order=0",
        64,
        Dtype::F32,
    ),
    (
        "tiled-40-f32",
        "tiled:tile_q=32,tile_kv=32,warps=4,row_lanes=8,load_bytes=4,shared_pad=0,exp_poly=0,blocks_per_sm=1,block_order=1",
        40,
        Dtype::F32,
    ),
    (
        "mma-64",
        "mma:tile_q=64,tile_kv=64,warps=4,kv_split=1,stages=2,q_in_registers=1,shared_pad=0,exp_poly=0,lazy_rescale=0,blocks_per_sm=1,cache_hint=0,block_order=1",
        64,
        Dtype::F16,
    ),
    (
        "mma-64-bf16",
        "mma:tile_q=128,tile_kv=32,warps=4,kv_split=1,stages=3,q_in_registers=0,shared_pad=1,exp_poly=2,lazy_rescale=1,blocks_per_sm=1,cache_hint=1,block_order=2,l2_window=1",
        64,
        Dtype::Bf16,
    ),
    (
        "mma-64-split",
        "mma:tile_q=16,tile_kv=32,warps=4,kv_split=4,stages=1,q_in_registers=0,shared_pad=0,exp_poly=4,lazy_rescale=1,blocks_per_sm=2,cache_hint=2,block_order=0,early_launch=1",
        64,
        Dtype::F16,
    ),
    (
        "mma-40",
        "mma:tile_q=32,tile_kv=96,warps=2,kv_split=1,stages=4,q_in_registers=1,shared_pad=1,exp_poly=0,lazy_rescale=0,blocks_per_sm=1,cache_hint=0,block_order=0",
        40,
        Dtype::F16,
    ),
    (
        "mma-128-bf16",
        "mma:tile_q=64,tile_kv=64,warps=4,kv_split=2,stages=2,q_in_registers=0,shared_pad=0,exp_poly=0,lazy_rescale=1,blocks_per_sm=1,cache_hint=0,block_order=1",
        128,
        Dtype::Bf16,
    ),
    (
        "mma-64-copied",
        "mma:tile_q=16,tile_kv=32,warps=2,kv_split=2,stages=2,q_in_registers=1,shared_pad=0,exp_poly=0,lazy_rescale=0,blocks_per_sm=1,cache_hint=0,copy_engine=1,block_order=0,early_launch=1",
        64,
        Dtype::F16,
    ),
    (
        "mma-128-copied-bf16",
        "mma:tile_q=32,tile_kv=32,warps=8,kv_split=4,stages=1,q_in_registers=0,shared_pad=0,exp_poly=2,lazy_rescale=1,blocks_per_sm=1,cache_hint=0,copy_engine=1,block_order=2",
        128,
        Dtype::Bf16,
    ),
    (
        "mma-8",
        "mma:tile_q=16,tile_kv=16,warps=1,kv_split=1,stages=2,q_in_registers=1,shared_pad=1,exp_poly=0,lazy_rescale=0,blocks_per_sm=4,cache_hint=0,block_order=0",
        8,
        Dtype::F16,
    ),
    (
        "tiled-256",
        "tiled:tile_q=16,tile_kv=16,warps=2,row_lanes=16,load_bytes=16,shared_pad=1,exp_poly=0,blocks_per_sm=1,block_order=0",
        256,
        Dtype::Bf16,
    ),
    (
        "wgmma-64",
        "wgmma:tile_q=64,tile_kv=64,kv_split=1,cluster=1,stages=2,exp_poly=0,overlap=0,ping_pong=0,lazy_rescale=2,block_order=3",
        64,
        Dtype::F16,
    ),
    (
        "wgmma-64-bf16",
        "wgmma:tile_q=128,tile_kv=96,kv_split=1,cluster=1,stages=3,exp_poly=4,overlap=1,ping_pong=1,lazy_rescale=1,block_order=4,persistent=1,early_launch=1",
        64,
        Dtype::Bf16,
    ),
    (
        "wgmma-128",
        "wgmma:tile_q=192,tile_kv=80,kv_split=1,cluster=1,stages=1,exp_poly=0,overlap=0,ping_pong=0,lazy_rescale=1,block_order=4,persistent=1",
        128,
        Dtype::F16,
    ),
    (
        "wgmma-128-bf16",
        "wgmma:tile_q=128,tile_kv=64,kv_split=1,cluster=1,stages=4,exp_poly=0,overlap=1,ping_pong=1,lazy_rescale=2,block_order=4,persistent=1,l2_window=1",
        128,
        Dtype::Bf16,
    ),
    (
        "wgmma-256-bf16",
        "wgmma:tile_q=128,tile_kv=64,kv_split=1,cluster=1,stages=2,exp_poly=0,overlap=1,ping_pong=0,lazy_rescale=2,block_order=2,persistent=1",
        256,
        Dtype::Bf16,
    ),
    (
        "wgmma-64-tall",
        "wgmma:tile_q=256,tile_kv=64,kv_split=1,cluster=1,stages=4,exp_poly=0,overlap=1,ping_pong=0,lazy_rescale=2,block_order=4,persistent=1",
        64,
        Dtype::F16,
    ),
    (
        "wgmma-128-e4m3",
        "wgmma:tile_q=64,tile_kv=64,kv_split=1,cluster=1,stages=1,exp_poly=0,overlap=0,ping_pong=0,lazy_rescale=0,block_order=0",
        128,
        Dtype::E4m3,
    ),
    (
        "wgmma-128-e4m3-overlapped",
        "wgmma:tile_q=192,tile_kv=96,kv_split=1,cluster=1,stages=2,exp_poly=0,overlap=1,ping_pong=0,lazy_rescale=1,block_order=4,persistent=1",
        128,
        Dtype::E4m3,
    ),
    (
        "wgmma-128-e4m3-turns",
        "wgmma:tile_q=128,tile_kv=160,kv_split=1,cluster=1,stages=2,exp_poly=4,overlap=1,ping_pong=1,lazy_rescale=0,block_order=2,persistent=1,early_launch=1",
        128,
        Dtype::E4m3,
    ),
    (
        "wgmma-64-split",
        "wgmma:tile_q=64,tile_kv=64,kv_split=2,cluster=1,stages=1,exp_poly=0,overlap=0,ping_pong=0,lazy_rescale=0,block_order=0,early_launch=1",
        64,
        Dtype::Bf16,
    ),
    (
        "wgmma-64-cluster",
        "wgmma:tile_q=64,tile_kv=64,kv_split=2,cluster=2,stages=2,exp_poly=3,overlap=0,ping_pong=0,lazy_rescale=1,block_order=1,early_launch=1",
        64,
        Dtype::F16,
    ),
    (
        "decode-128-bf16",
        "decode:tile_q=16,tile_kv=16,warps=4,cluster=4,stages=2,q_in_registers=0,blocks_per_sm=1,copy_engine=1,early_launch=1",
        128,
        Dtype::Bf16,
    ),
    (
        "decode-64",
        "decode:tile_q=32,tile_kv=32,warps=2,cluster=1,stages=1,q_in_registers=1,blocks_per_sm=1,copy_engine=1",
        64,
        Dtype::F16,
    ),
    (
        "decode-64-cluster-bf16",
        "decode:tile_q=16,tile_kv=16,warps=8,cluster=8,stages=1,q_in_registers=1,blocks_per_sm=1,copy_engine=0,early_launch=1",
        64,
        Dtype::Bf16,
    ),
    (
        "decode-40",
        "decode:tile_q=32,tile_kv=64,warps=2,cluster=2,stages=3,q_in_registers=1,blocks_per_sm=2,copy_engine=0",
        40,
        Dtype::F16,
    ),
];

/// head_dims beside those of the table that the CPU machine runs the fallbacks of: no two in the same steps of a tensor
/// core, columns of a warp and chunks of a row. A GPU runs them all.
const SAMPLED_HEAD_DIMS: [u32; 3] = [72, 96, 168];

/// The head_dim of which kernels elsewhere left parts of packed outputs unwritten: its fallbacks with features are run too.
const VARLEN_HEAD_DIM: u32 = 192;

/// Some feature, by which kernels with features are asked for.
const FEATURES: Features = Features { window: Window { left: Some(40), right: Some(30) }, ..Features::NONE };

/// What the CPU machine is: few multiprocessors, so that persistent blocks have several query tiles.
const MACHINE: DeviceLimits = DeviceLimits { multiprocessors: 3, ..DeviceLimits::H100 };

/// The environment variable that says how many random problems each kernel with features gets.
const RANDOM: &str = "EVOATTN_RANDOM_PROBLEMS";

/// How many it is on the CPU machine otherwise, and on a GPU.
const RANDOM_ON_CPU: u64 = 30;
const RANDOM_ON_GPU: u64 = 1000;

/// A kernel that keeps data in local memory, which the builder refuses: it is run on the CPU machine only.
const LOCAL_MEMORY: &str = "mma-128-bf16+features";

/// A kernel under test.
#[derive(Clone)]
struct Tested {
    name: String,
    problem: Problem,
    variant: Variant,
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(SERVE) {
        let open = || match Cuda::open(0) {
            Ok(device) => Ok(Box::new(device) as Box<dyn Device>),
            Err(error) => Err(Failure::Device(error.to_string())),
        };
        return worker::run(open).expect("pipes to the test");
    }
    let shipped = Trial::test("catalog/has-the-kernels-of-the-table", the_catalog_has_them);
    let trials = simt().into_iter().chain(cuda()).chain([shipped]).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn kernels() -> Vec<Tested> {
    let plain = KERNELS.map(|(name, variant, head_dim, dtype)| {
        let variant: Variant = variant.parse().expect("a variant of the table");
        let rows = if variant.family() == Family::Decode { 7 } else { 100 };
        let problem = Problem::new(1, 2, 100, head_dim, dtype).with_seqlens(rows, 100);
        Tested { name: name.to_owned(), problem, variant }
    });
    let featured = plain.clone().into_iter().filter_map(|Tested { name, problem, variant }| {
        let problem = Problem { features: FEATURES, ..problem };
        // Families without features are left out, and genes that do not go with them are off.
        let variant = variant.with(Gene::EarlyLaunch, 0).unwrap_or(variant);
        legal(&problem, &variant, &MACHINE).ok()?;
        Some(Tested { name: format!("{name}+features"), problem, variant })
    });
    plain.into_iter().chain(featured).collect()
}

/// A machine with a GPU and no compiler runs the table too.
fn the_catalog_has_them() -> Result<(), Failed> {
    let catalog = Catalog::open(&Project::find()?.catalog())?.ok_or("there is no catalog")?;
    for Tested { problem, variant, .. } in on_gpu() {
        catalog.find(&variant.kernel(&problem), Sm::Sm90a)?;
    }
    Ok(())
}

/// Kernels of the table that can be built.
fn on_gpu() -> impl Iterator<Item = Tested> {
    kernels().into_iter().filter(|tested| tested.name != LOCAL_MEMORY)
}

/// What problems of this head_dim get while nobody has tuned them: one row, a few, many, and what runs anywhere.
fn fallbacks(head_dim: u32, dtype: Dtype, features: Features) -> Vec<Tested> {
    let few = Problem { features, ..Problem::new(1, 2, 100, head_dim, dtype) };
    let first = |problem: &Problem| defaults(problem, &DeviceLimits::H100).next();
    let one = few.with_seqlens(1, 300);
    let any = defaults(&few, &DeviceLimits::H100).last();
    let variants =
        [(one, first(&one)), (few, first(&few)), (few, first(&few.with_seqlens(16_384, 16_384))), (few, any)];
    let featured = if few.needs_features() { "+features" } else { "" };
    let tested = |(problem, variant): (Problem, Option<Variant>)| {
        let variant = variant?;
        let name = format!("{}-{head_dim}-{}{featured}", variant.family(), dtype.name());
        Some(Tested { name, problem, variant })
    };
    let mut tested: Vec<_> = variants.into_iter().filter_map(tested).collect();
    // With features one row has what a few rows have.
    tested.dedup_by(|a, b| a.variant == b.variant);
    tested
}

/// Each case on each kernel on the CPU machine; the library is built by the first that needs it.
fn simt() -> Vec<Trial> {
    let code = Arc::new(Mutex::new(None));
    let mut trials = vec![];
    for tested in fallback_sample() {
        let code = Arc::clone(&code);
        trials.push(Trial::test(format!("simt/fallback/{}", tested.name), move || {
            let subject = subject(&tested, built(&code)?, &MACHINE)?;
            Simt::new(MACHINE).check(&subject, &cases(&tested, Extent::Small))?;
            Ok(())
        }));
    }
    for tested in kernels() {
        for case in cases(&tested, Extent::Small) {
            let (tested, code) = (tested.clone(), Arc::clone(&code));
            let name = format!("simt/{}/{}", tested.name, case.name);
            trials.push(Trial::test(name, move || {
                let subject = subject(&tested, built(&code)?, &MACHINE)?;
                Simt::new(MACHINE).check(&subject, &[case])?;
                Ok(())
            }));
        }
        if tested.problem.needs_features() {
            let (tested, code) = (tested.clone(), Arc::clone(&code));
            trials.push(Trial::test(format!("simt/{}/random", tested.name), move || {
                let subject = subject(&tested, built(&code)?, &MACHINE)?;
                Simt::new(MACHINE).check(&subject, &random_cases(&tested, RANDOM_ON_CPU)?)?;
                Ok(())
            }));
        }
        if tested.problem.needs_features() {
            let (tested, code) = (tested.clone(), Arc::clone(&code));
            trials.push(Trial::test(format!("simt/{}/what-is-hidden-changes-no-bit", tested.name), move || {
                what_is_hidden_changes_no_bit(&tested, &built(&code)?)
            }));
        }
        for (relation, check) in relations(&tested) {
            let (tested, code) = (tested.clone(), Arc::clone(&code));
            let name = format!("simt/{}/metamorphic/{relation}", tested.name);
            trials.push(Trial::test(name, move || {
                let code = built(&code)?;
                let mut device = Simt::new(MACHINE);
                Ok(check(&mut device.executor(tested.variant, &code), &related(&tested))?)
            }));
        }
    }
    let of_batches = Arc::clone(&code);
    trials.push(Trial::test("simt/modelled-times", move || modelled_times(built(&code)?)));
    for features in [Features::NONE, FEATURES] {
        let code = Arc::clone(&of_batches);
        let name = if features == FEATURES { "+features" } else { "" };
        trials.push(Trial::test(format!("simt/any-batch{name}"), move || {
            let code = built(&code)?;
            let many = entries(features);
            let ordinary =
                |batch| Ok::<_, Failed>(choose(&Every, "untuned", &MACHINE, None, &Problem { batch, ..many })?.variant);
            if ordinary(1)? == ordinary(many.batch)? {
                return Err("the ordinary choice does not depend on the batch here, so that this proves nothing".into());
            }
            any_batch(&many, &for_any_batch, &mut |problem, variant, tensors| {
                Ok(Simt::new(MACHINE).executor(variant, &code).run(problem, tensors)?)
            })
        }));
    }
    trials
}

/// A problem for which the CPU machine's defaults depend on the batch: one entry leaves multiprocessors idle, three do not.
fn entries(features: Features) -> Problem {
    Problem { features, ..Problem::new(3, 1, 64, 64, Dtype::F16) }.with_seqlens(64, 150)
}

/// A source that has every kernel: what the CPU machine runs is built elsewhere.
struct Every;

impl Kernels for Every {
    type Artifact = Kernel;

    fn find(&self, kernel: &Kernel, _: Sm) -> Result<Kernel, BuildError> {
        Ok(*kernel)
    }

    fn sha256<'a>(&self, _: &'a Kernel) -> &'a str {
        ""
    }

    fn ptx(&self, kernel: &Kernel) -> Result<String, BuildError> {
        let reason = "the CPU machine runs no PTX".to_owned();
        Err(BuildError::Unavailable { kernel: Box::new(*kernel), sm: MACHINE.sm, reason })
    }
}

/// The variant for a problem in any batch.
fn for_any_batch(problem: &Problem) -> Result<Variant, Failed> {
    Ok(choose_for_any_batch(&Every, "untuned", &MACHINE, None, problem)?.variant)
}

/// Runs a problem.
type Run<'a> = &'a mut dyn FnMut(&Problem, Variant, &Tensors) -> Result<Outputs, Failed>;

/// Each batch entry has the bits that it has alone.
fn any_batch(
    many: &Problem,
    variant: &dyn Fn(&Problem) -> Result<Variant, Failed>,
    run: Run<'_>,
) -> Result<(), Failed> {
    let one = Problem { batch: 1, ..*many };
    let [of_one, of_many] = [variant(&one)?, variant(many)?];
    if of_one != of_many {
        return Err(format!("{of_one} for one batch entry, {of_many} for {}", many.batch).into());
    }
    let tensors = Inputs::new(Distribution::Normal, 5).generate(many)?;
    let together = run(many, of_many, &tensors)?;
    let rows = (many.heads_q * many.seqlen_q) as usize;
    for entry in 0..many.batch {
        let mut alone = Tensors::unset(&one)?;
        for (to, from) in [(&mut alone.q, &tensors.q), (&mut alone.k, &tensors.k), (&mut alone.v, &tensors.v)] {
            for (_, seq, head) in to.rows() {
                let values: Vec<_> = from.values(entry, seq, head).collect();
                to.set_row(0, seq, head, &values);
            }
        }
        let alone = run(&one, of_one, &alone)?;
        let same = alone.o.rows().all(|(_, seq, head)| alone.o.row(0, seq, head) == together.o.row(entry, seq, head))
            && *alone.lse.inner() == together.lse.inner()[entry as usize * rows..][..rows];
        if !same {
            return Err(format!("batch entry {entry} has other bits alone than among {}", many.batch).into());
        }
    }
    Ok(())
}

/// What must hold between runs of a kernel: relations are of problems without features.
fn relations(tested: &Tested) -> &'static [(&'static str, Relation)] {
    if tested.problem.needs_features() { &[] } else { &RELATIONS }
}

/// A problem to run a relation's kernels on.
fn related(tested: &Tested) -> Problem {
    Problem { heads_q: 4, ..tested.problem }.with_heads_kv(2).with_seqlens(20, 70)
}

/// Where no value that a row sees is NaN or infinity, its output is, bit for bit, what it is with a number in the place of all.
fn what_is_hidden_changes_no_bit(tested: &Tested, code: &Code) -> Result<(), Failed> {
    let mut device = Simt::new(MACHINE);
    let mut executor = device.executor(tested.variant, code);
    let broken = |case: &Case| case.name.starts_with("broken-values/");
    let mut compared = 0;
    for Case { name, problem, inputs } in cases(tested, Extent::Small).into_iter().filter(broken) {
        let mut tensors = inputs.generate(&problem)?;
        let outputs = executor.run(&problem, &tensors)?;
        let reference = Reference::of(&problem, &tensors, &Row::all(&problem));
        for tensor in [&mut tensors.k, &mut tensors.v] {
            for (b, s, h) in tensor.rows() {
                let numbers = tensor.values(b, s, h).map(|x| if x.is_finite() { x } else { 7.0 });
                let numbers: Vec<_> = numbers.collect();
                tensor.set_row(b, s, h, &numbers);
            }
        }
        let whole = executor.run(&problem, &tensors)?;
        for Expected { row: Row { batch, head, row }, beyond, .. } in &reference.rows {
            let [found, expected] = [&outputs, &whole].map(|outputs| outputs.o.bits(*batch, *row, *head));
            let finite = beyond.iter().map(|beyond| *beyond == 0.0);
            if finite.zip(found).zip(expected).any(|((finite, found), expected)| finite && found != expected) {
                return Err(format!("{name}: batch {batch}, head {head}, row {row} differs").into());
            }
        }
        compared += 1;
    }
    if compared == 0 { Err("there are no such cases".into()) } else { Ok(()) }
}

/// The fallbacks that the CPU machine runs, in both dtypes by turns.
fn fallback_sample() -> Vec<Tested> {
    let dtypes = [Dtype::F16, Dtype::Bf16].into_iter().cycle();
    let plain = SAMPLED_HEAD_DIMS.into_iter().zip(dtypes);
    let plain = plain.flat_map(|(head_dim, dtype)| fallbacks(head_dim, dtype, Features::NONE));
    plain.chain(fallbacks(VARLEN_HEAD_DIM, Dtype::Bf16, FEATURES)).collect()
}

/// Tensor cores are faster than none by the model too, and a modelled time has no noise.
fn modelled_times(code: Code) -> Result<(), Failed> {
    let of_seed_shape =
        |tested: Tested| subject(&Tested { problem: Problem::SEED, ..tested }, code.clone(), &DeviceLimits::H100);
    let named = |name| kernels().into_iter().find(|tested| tested.name == name).ok_or("no such kernel");
    let subjects = [of_seed_shape(named("tiled-64")?)?, of_seed_shape(named("mma-64")?)?];
    let plan = TimingPlan { rounds: 2, cold: true, seed: 0, pace: Pace::Sustained };
    let samples = Simt::new(DeviceLimits::H100).time(&subjects, &plan)?;
    let [tiled, mma] = &samples[..] else { return Err(format!("{samples:?}").into()) };
    let steady = |samples: &Samples| samples.hot_us.len() == 2 && samples.hot_us[0] == samples.hot_us[1];
    let plausible = steady(tiled) && steady(mma) && mma.hot_us < tiled.hot_us && mma.hot_us < mma.cold_us;
    if plausible { Ok(()) } else { Err(format!("{samples:?}").into()) }
}

/// All cases on each kernel of the table on the GPU, and the small ones on the fallbacks of every head_dim. Each trial has a
/// process of its own.
fn cuda() -> Vec<Trial> {
    let gpu = Gpu::open(0).map(|gpu| *gpu.limits());
    let trial = |name: String, kernels: Vec<Tested>, extent: Extent| {
        let limits = match &gpu {
            Ok(limits) => *limits,
            Err(reason) => {
                let reason = reason.to_string();
                let kind = reason.clone();
                return Trial::test(name, move || Err(reason.into())).with_ignored_flag(true).with_kind(kind);
            }
        };
        Trial::test(name, move || {
            let wanted: Vec<Kernel> = kernels.iter().map(|tested| tested.variant.kernel(&tested.problem)).collect();
            let mut device = Remote::start(std::env::current_exe()?, [SERVE], Patience::default())?;
            for (tested, built) in kernels.iter().zip(Library::open()?.ptx(&wanted, limits.sm)) {
                let built = built?;
                let subject = subject(tested, Code::Ptx { sha256: built.sha256, path: built.path }, &limits)?;
                device
                    .check(&subject, &cases(tested, extent))
                    .map_err(|failure| format!("{}: {failure}", tested.name))?;
                if tested.problem.needs_features() {
                    // In parts, since an answer has to come in time.
                    for part in random_cases(tested, RANDOM_ON_GPU)?.chunks(50) {
                        device.check(&subject, part).map_err(|failure| format!("{}: {failure}", tested.name))?;
                    }
                }
                if extent == Extent::Large {
                    // In this process: a kernel that has come so far breaks no context.
                    let mut device = Cuda::open(0)?;
                    for (relation, check) in relations(tested) {
                        check(&mut device.executor(&subject), &related(tested))
                            .map_err(|failure| format!("{}: {relation}: {failure}", tested.name))?;
                    }
                }
            }
            Ok(())
        })
    };
    let table = on_gpu().map(|tested| (format!("cuda/{}", tested.name), vec![tested], Extent::Large));
    let every_head_dim = (8..=256).step_by(8).map(|head_dim| {
        // The catalog has fp32 for some head_dims only.
        let shipped = move |dtype: &Dtype| *dtype != Dtype::F32 || space::USUAL.contains(&head_dim);
        let each = move |features| {
            let dtypes = Dtype::ALL.into_iter().filter(shipped);
            dtypes.flat_map(move |dtype| fallbacks(head_dim, dtype, features))
        };
        let featured = (head_dim == VARLEN_HEAD_DIM).then(|| each(FEATURES));
        let kernels = each(Features::NONE).chain(featured.into_iter().flatten()).collect();
        (format!("cuda/fallbacks-of-head-dim-{head_dim}"), kernels, Extent::Small)
    });
    let any_batch = Trial::test("cuda/any-batch", any_batch_on_gpu);
    let any_batch = match &gpu {
        Ok(_) => any_batch,
        Err(reason) => any_batch.with_ignored_flag(true).with_kind(reason.to_string()),
    };
    let trials = table.chain(every_head_dim).map(|(name, kernels, extent)| trial(name, kernels, extent));
    trials.chain([any_batch]).collect()
}

/// The public API's plans for one batch entry and for many are of one variant, and give a row the same bits.
fn any_batch_on_gpu() -> Result<(), Failed> {
    let (gpu, library, mut device) = (Gpu::open(0)?, Library::open()?, Cuda::open(0)?);
    for features in [Features::NONE, FEATURES] {
        let many = Problem { features, ..Problem::new(64, 8, 512, 64, Dtype::F16) };
        let variant = |problem: &Problem| Ok(*Attention::batch_invariant(&gpu, &library, None, problem)?.variant());
        any_batch(&many, &variant, &mut |problem, variant, tensors| {
            let built = library.ptx(&[variant.kernel(problem)], gpu.limits().sm).swap_remove(0)?;
            let code = Code::Ptx { sha256: built.sha256, path: built.path };
            let subject =
                Subject { problem: *problem, variant, geometry: legal(problem, &variant, gpu.limits())?, code };
            Ok(device.executor(&subject).run(problem, tensors)?)
        })?;
    }
    Ok(())
}

/// As many problems drawn at random as asked for by [`RANDOM`], or so many. A failure names the seed and the problem.
fn random_cases(tested: &Tested, count: u64) -> Result<Vec<Case>, Failed> {
    let count = match std::env::var(RANDOM) {
        Ok(count) => count.parse().map_err(|_| format!("{RANDOM} is `{count}`; a number of problems is needed"))?,
        Err(_) => count,
    };
    let mut cases: Vec<_> = (0..count).map(|seed| random(&tested.problem, seed)).collect();
    cases.retain(|case| legal(&case.problem, &tested.variant, &DeviceLimits::H100).is_ok());
    // For the log of the run, which has names of tests only.
    println!("{}: {} problems drawn by seeds from 0 to {}", tested.name, cases.len(), count.saturating_sub(1));
    Ok(cases)
}

fn cases(tested: &Tested, extent: Extent) -> Vec<Case> {
    let mut cases = suite(&tested.problem, extent);
    cases.extend(odd_strides(&tested.problem));
    cases.extend(odd_addresses(&tested.problem, tested.variant.get(Gene::LoadBytes).map_or(16, u32::from)));
    cases.retain(|case| legal(&case.problem, &tested.variant, &DeviceLimits::H100).is_ok());
    cases
}

/// The library of all kernels, built by whoever asks first.
fn built(code: &Mutex<Option<Result<Code, BuildError>>>) -> Result<Code, Failed> {
    let of_batches =
        [Features::NONE, FEATURES].map(entries).map(|problem| Ok(for_any_batch(&problem)?.kernel(&problem)));
    let of_batches = of_batches.into_iter().collect::<Result<Vec<_>, Failed>>()?;
    let build = || {
        let tested = kernels().into_iter().chain(fallback_sample());
        let tested = tested.map(|tested| tested.variant.kernel(&tested.problem));
        let kernels: Vec<Kernel> = tested.chain(of_batches.iter().copied()).collect();
        Ok(Code::Library { path: Library::open()?.simt(&kernels)? })
    };
    let mut code = code.lock().map_err(|error| error.to_string())?;
    Ok(code.get_or_insert_with(build).clone()?)
}

fn subject(tested: &Tested, code: Code, limits: &DeviceLimits) -> Result<Subject, Failed> {
    let Tested { problem, variant, .. } = *tested;
    let geometry = legal(&problem, &variant, limits)?;
    Ok(Subject { problem, variant, geometry, code })
}

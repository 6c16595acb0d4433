//! Plans and launches beside a driver that only records: what a launch allocates, passes and leaves behind, on two GPUs, on any
//! machine. What kernels compute is tested elsewhere.
//!
//! A process can load only one driver, so this program starts itself again with the recording one.

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;

use host::attention::{Addresses, Appender, Attention, AttentionError, Extras, Layouts, Merge, MergeAddresses};
use host::driver::{Buffer, DriverError, Gpu, Stream};
use host::shipped;
use host::tensor::{Element, Layout, Tensor};
use libloading::Library;
use libtest_mimic::{Arguments, Failed, Trial};
use spec::{
    Append, AppendAddresses, AppendArgs, AttentionArgs, Dtype, Extra, Family, Features, Pages, Problem, Strides,
    Variant,
};

/// Set where the recording driver is the driver.
const WITH_DRIVER: &str = "EVOATTN_TEST_RECORDER";

/// Long enough to fill every GPU: its default uses the copy engine.
const LONG: Problem = Problem::new(1, 32, 8192, 128, Dtype::Bf16);

const ADDRESSES: Addresses = Addresses { q: 0x10000, k: 0x20000, v: 0x30000, o: 0x40000, lse: 0x50000 };

unsafe extern "C" {
    fn cuCtxGetCurrent(context: *mut *mut c_void) -> c_int;
    fn cuCtxSetCurrent(context: *mut c_void) -> c_int;
}

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
struct Counting;

// SAFETY: everything is passed on.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller vouches for.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, address: *mut u8, memory: Memory) {
        // SAFETY: as the caller vouches for.
        unsafe { System.dealloc(address, memory) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Outcome = Result<(), Failed>;

type Test = fn() -> Outcome;

const TESTS: &[(&str, Test)] = &[
    ("a_launch_allocates_nothing", a_launch_allocates_nothing),
    ("a_launch_passes_what_the_problem_says", a_launch_passes_what_the_problem_says),
    ("the_callers_context_stays_current", the_callers_context_stays_current),
    ("threads_share_a_plan", threads_share_a_plan),
    ("what_belongs_to_another_gpu_is_refused", what_belongs_to_another_gpu_is_refused),
    ("a_bad_request_launches_nothing", a_bad_request_launches_nothing),
    ("what_features_read_is_asked_for", what_features_read_is_asked_for),
    ("appending_allocates_nothing", appending_allocates_nothing),
    ("what_does_not_fit_is_not_appended", what_does_not_fit_is_not_appended),
    ("a_failed_launch_is_told", a_failed_launch_is_told),
    ("a_plan_explains_itself", a_plan_explains_itself),
    ("a_merge_allocates_nothing", a_merge_allocates_nothing),
    ("a_merge_passes_what_its_parts_say", a_merge_passes_what_its_parts_say),
    ("a_bad_merge_launches_nothing", a_bad_merge_launches_nothing),
];

fn main() -> ExitCode {
    if std::env::var_os(WITH_DRIVER).is_none() {
        return with_recorder();
    }
    let mut arguments = Arguments::from_args();
    // The driver counts for all of them.
    arguments.test_threads = Some(1);
    let trials = TESTS.iter().map(|(name, test)| Trial::test(*name, test)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs this program again with the recording driver.
fn with_recorder() -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recording_driver.rs");
    let mut compiler = Command::new("rustc");
    compiler.args(["--edition=2024", "--crate-type=cdylib", "--crate-name=recording_driver", "-o"]);
    compiler.arg(folder.path().join("libcuda.so.1")).arg(source);
    assert!(compiler.status().expect("rustc").success());
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program);
    child.args(std::env::args_os().skip(1)).env(WITH_DRIVER, "1").env("LD_LIBRARY_PATH", folder.path());
    ExitCode::from(if child.status().expect("this program").success() { 0 } else { 101 })
}

fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(otherwise().into()) }
}

/// Launches, encoded tensor maps, live allocations and copies so far.
fn recorded() -> [u64; 4] {
    let mut counts = [0; 4];
    // SAFETY: the recording driver's own function, which fills the array.
    unsafe { driver().get::<unsafe extern "C" fn(*mut [u64; 4])>("recorded").expect("recorded")(&mut counts) };
    counts
}

fn driver() -> Library {
    // SAFETY: the recording driver, which is loaded already.
    unsafe { Library::new("libcuda.so.1") }.expect("the recording driver")
}

fn current_context() -> usize {
    let mut context = std::ptr::null_mut();
    // SAFETY: `context` outlives the call.
    unsafe { cuCtxGetCurrent(&mut context) };
    context as usize
}

fn make_current(context: usize) {
    // SAFETY: the recording driver takes any number.
    unsafe { cuCtxSetCurrent(std::ptr::without_provenance_mut(context)) };
}

fn plan(gpu: &Gpu, problem: &Problem) -> Result<Attention, Failed> {
    Ok(Attention::new(gpu, &shipped::catalog()?, shipped::dispatch(gpu.name())?.as_ref(), problem)?)
}

/// Lets the driver keep the first argument of launches, which is an [`AttentionArgs`].
fn keep_argument() -> Outcome {
    // SAFETY: the recording driver's own function.
    unsafe { driver().get::<unsafe extern "C" fn(usize)>("keep_argument")?(size_of::<AttentionArgs>()) };
    Ok(())
}

/// That of the last launch.
fn last_argument() -> Result<AttentionArgs, Failed> {
    let mut bytes = [0u8; size_of::<AttentionArgs>()];
    // SAFETY: the recording driver writes as many bytes as it was told to keep.
    unsafe { driver().get::<unsafe extern "C" fn(*mut u8)>("last_argument")?(bytes.as_mut_ptr()) };
    // SAFETY: it is made of numbers.
    Ok(unsafe { bytes.as_ptr().cast::<AttentionArgs>().read_unaligned() })
}

fn a_launch_allocates_nothing() -> Outcome {
    let gpu = Gpu::open(0)?;
    let stream = Stream::new(&gpu)?;
    for problem in [Problem::SEED, LONG] {
        let plan = plan(&gpu, &problem)?;
        let other = Addresses { q: ADDRESSES.q + 0x1000, ..ADDRESSES };
        let before = recorded();
        let allocations = ALLOCATIONS.get();
        for _ in 0..500 {
            // SAFETY: the driver reads no tensor.
            unsafe {
                plan.launch_at(&stream, &ADDRESSES)?;
                plan.launch_at(&stream, &other)?;
                plan.launch_at(&stream, &other)?;
            }
        }
        let allocations = ALLOCATIONS.get() - allocations;
        let after = recorded();
        ensure(allocations == 0, || format!("{allocations} allocations by {}", plan.explain()))?;
        ensure(after[0] - before[0] == 1500, || format!("{before:?} {after:?}"))?;
        // Encoded anew only where the addresses changed: two of the three times.
        let maps = if plan.geometry().boxes.is_some() { 3 * 1000 } else { 0 };
        ensure(after[1] - before[1] == maps, || format!("{before:?} {after:?} by {}", plan.explain()))?;
        ensure(after[2] == before[2], || "memory of the GPU was allocated".into())?;
    }
    Ok(())
}

fn a_launch_passes_what_the_problem_says() -> Outcome {
    let gpu = Gpu::open(0)?;
    let problem = Problem { scale: Some(-0.25), ..Problem::SEED.with_heads_kv(2).with_seqlens(7, 300).in_bhsd() };
    let plan = plan(&gpu, &problem)?;
    keep_argument()?;
    // SAFETY: the default stream, and the driver reads no tensor.
    unsafe { plan.launch_at(&Stream::borrow(&gpu, std::ptr::null_mut())?, &ADDRESSES) }?;
    let passed = last_argument()?;
    let Addresses { q, k, v, o, lse } = ADDRESSES;
    ensure(passed == plan.geometry().args(&problem, [q, k, v, o, lse]), || format!("{passed:?}"))?;
    ensure(passed.scale_log2 == -0.25 * std::f32::consts::LOG2_E, || format!("{passed:?}"))
}

fn the_callers_context_stays_current() -> Outcome {
    const CALLERS: usize = 0x77;
    thread::spawn(|| -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        for before in [CALLERS, 0] {
            make_current(before);
            let check = |what: &str, expected: usize| match current_context() {
                now if now == expected => Ok(()),
                now => Err(format!("{what} left context {now:#x} current instead of {expected:#x}")),
            };
            let gpus = [Gpu::open(0), Gpu::open(1)].map(|gpu| gpu.map_err(|e| text(&e)));
            // A thread without a context gets that of the first GPU it opens.
            let expected = if before == 0 { 1 } else { before };
            check("opening", expected)?;
            for gpu in gpus {
                let gpu = gpu?;
                let plan = plan(&gpu, &Problem::SEED).map_err(|e| format!("{e:?}"))?;
                check("planning", expected)?;
                let stream = Stream::new(&gpu).map_err(|e| text(&e))?;
                let tensor = Tensor::new(&gpu, plan.layouts().q).map_err(|e| text(&e))?;
                check("allocating", expected)?;
                // SAFETY: the driver reads no tensor.
                unsafe { plan.launch_at(&stream, &ADDRESSES) }.map_err(|e| text(&e))?;
                check("launching", expected)?;
                drop((tensor, stream, plan));
                check("dropping", expected)?;
            }
        }
        Ok(())
    })
    .join()
    .expect("no panic")
    .map_err(Failed::from)
}

fn threads_share_a_plan() -> Outcome {
    let gpu = Gpu::open(1)?;
    let (plan, stream) = (plan(&gpu, &LONG)?, Stream::new(&gpu)?);
    let before = recorded();
    thread::scope(|scope| {
        for i in 0..8 {
            let (plan, stream) = (&plan, &stream);
            scope.spawn(move || {
                let addresses = Addresses { o: ADDRESSES.o + 0x1000 * i, ..ADDRESSES };
                for _ in 0..100 {
                    // SAFETY: the driver reads no tensor.
                    unsafe { plan.launch_at(stream, &addresses) }.expect("a launch");
                }
            });
        }
    });
    let launches = recorded()[0] - before[0];
    ensure(launches == 800, || format!("{launches} launches"))
}

fn what_belongs_to_another_gpu_is_refused() -> Outcome {
    let (here, there) = (Gpu::open(0)?, Gpu::open(1)?);
    let plan = plan(&here, &Problem::SEED)?;
    let stream = Stream::new(&there)?;
    let before = recorded()[0];
    // SAFETY: nothing is launched.
    let refused = unsafe { plan.launch_at(&stream, &ADDRESSES) };
    ensure(matches!(refused, Err(AttentionError::OtherGpu { what: "the stream", .. })), || format!("{refused:?}"))?;
    // The handle of a stream on the second GPU, as the recording driver numbers them.
    // SAFETY: the driver does not look behind it.
    let refused = unsafe { Stream::borrow(&here, std::ptr::without_provenance_mut(0x3002)) };
    ensure(matches!(refused, Err(DriverError::ForeignStream { .. })), || format!("{refused:?}"))?;
    // SAFETY: as above.
    unsafe { Stream::borrow(&here, std::ptr::without_provenance_mut(0x3001)) }?;

    let layouts = plan.layouts();
    let (q, k, v) = (Tensor::new(&here, layouts.q)?, Tensor::new(&there, layouts.k)?, Tensor::new(&here, layouts.v)?);
    let mut o = Tensor::new(&here, layouts.o)?;
    let refused = plan.launch(&Stream::new(&here)?, [&q, &k, &v], &mut o, None);
    ensure(matches!(refused, Err(AttentionError::OtherGpu { what: "K", .. })), || format!("{refused:?}"))?;
    ensure(recorded()[0] == before, || "something was launched".into())
}

fn a_bad_request_launches_nothing() -> Outcome {
    let gpu = Gpu::open(0)?;
    let before = recorded();
    let mut overlapping = Problem::SEED;
    overlapping.strides.o = Strides { head: 0, ..overlapping.strides.o };
    let mut negative = Problem::SEED;
    negative.strides.v.seq *= -1;
    // flash-attention #1116: a window of -3 is no window without limit.
    let negative_window = "b1-h1-s8-d64-f16-window-3/0".parse::<Problem>();
    ensure(negative_window.is_err(), || format!("{negative_window:?}"))?;
    // pytorch #110630, #127523, triton #621: head_dims that kernels elsewhere cut or padded unasked.
    let head_dims = [0, 1, 4, 20, 63, 65, 257, 264].map(|head_dim| {
        let refusal = format!("head_dim_qk is {head_dim}; multiples of 8 from 8 to 256 are allowed");
        (Problem::new(1, 1, 1, head_dim, Dtype::F16), refusal)
    });
    // flash-linear-attention #1029: query heads that do not divide.
    let heads = [(8, 3), (33, 2), (3, 2), (2, 3)].map(|(heads_q, heads_kv)| {
        let refusal = format!("heads_q is {heads_q}; it must be a multiple of heads_kv, {heads_kv}");
        (Problem { heads_q, ..Problem::SEED }.with_heads_kv(heads_kv), refusal)
    });
    let others = [
        (Problem { batch: 0, ..Problem::SEED }, "batch is 0; at least 1 is needed"),
        // flash-attention #2470, #2568: lengths of nothing; batch entries may be empty by lengths of their own.
        (Problem::SEED.with_seqlens(512, 0), "seqlen_kv is 0; at least 1 is needed"),
        (Problem::SEED.with_seqlens(0, 512), "seqlen_q is 0; at least 1 is needed"),
        (Problem { head_dim_v: 20, ..Problem::SEED }, "head_dim_v is 20; multiples of 8 from 8 to 256 are allowed"),
        (Problem { scale: Some(f32::NAN), ..Problem::SEED }, "the softmax scale must be finite"),
        (overlapping, "rows of O overlap"),
        (negative, "V cannot lie in memory so"),
    ];
    let others = others.map(|(problem, refusal)| (problem, refusal.to_owned()));
    for (problem, expected) in head_dims.into_iter().chain(heads).chain(others) {
        let line = match plan(&gpu, &problem) {
            Ok(plan) => return Err(format!("planned: {}", plan.explain()).into()),
            Err(error) => error.message().unwrap_or_default().to_owned(),
        };
        ensure(line.contains(&expected) && !line.contains('\n'), || line)?;
    }
    let plan = plan(&gpu, &Problem::SEED)?;
    let stream = Stream::new(&gpu)?;
    for (tensor, address) in [("Q", 0), ("K", 2), ("V", 8), ("O", 4), ("LSE", 2)] {
        let mut addresses = ADDRESSES;
        let of = match tensor {
            "Q" => &mut addresses.q,
            "K" => &mut addresses.k,
            "V" => &mut addresses.v,
            "O" => &mut addresses.o,
            _ => &mut addresses.lse,
        };
        *of = if address == 0 { 0 } else { *of + address };
        // SAFETY: nothing is launched.
        let refused = unsafe { plan.launch_at(&stream, &addresses) };
        let named = matches!(refused, Err(AttentionError::Misaligned { tensor: name, .. }) if name == tensor);
        ensure(named, || format!("{tensor}: {refused:?}"))?;
    }
    // Loads of one element take any place where an element may lie, but outputs are stored in pairs.
    let variant = Variant::smallest(Family::Tiled);
    let narrow = Attention::with_variant(&gpu, &shipped::catalog()?, &Problem::SEED, &variant)?;
    let mut addresses = Addresses { q: ADDRESSES.q + 2, k: ADDRESSES.k + 6, v: ADDRESSES.v + 10, ..ADDRESSES };
    narrow.arguments(&addresses)?;
    addresses.o += 2;
    let refused = narrow.arguments(&addresses);
    ensure(matches!(refused, Err(AttentionError::Misaligned { tensor: "O", needed: 4, .. })), || {
        format!("{refused:?}")
    })?;

    let layouts = plan.layouts();
    let (q, k, v) = (Tensor::new(&gpu, layouts.q)?, Tensor::new(&gpu, layouts.k)?, Tensor::new(&gpu, layouts.v)?);
    let mut short = Tensor::new(&gpu, Layout::bshd([1, 256, 8, 64], Element::F16))?;
    let refused = plan.launch(&stream, [&q, &k, &v], &mut short, None);
    ensure(matches!(refused, Err(AttentionError::Layout { tensor: "O", .. })), || format!("{refused:?}"))?;
    ensure(recorded()[0] == before[0], || "something was launched".into())
}

fn what_features_read_is_asked_for() -> Outcome {
    let gpu = Gpu::open(0)?;
    let features = Features { sinks: true, ..Features::NONE };
    let problem = Problem { features, ..Problem::new(2, 32, 1024, 64, Dtype::F16) };
    let (plan, stream) = (plan(&gpu, &problem)?, Stream::new(&gpu)?);
    let layouts = plan.layouts();
    let [q, k, v, o] = [layouts.q, layouts.k, layouts.v, layouts.o].map(|layout| Tensor::new(&gpu, layout));
    let (q, k, v, mut o) = (q?, k?, v?, o?);
    let [sinks, few, slopes] = [32, 31, 32].map(|heads| Buffer::new(&gpu, heads * size_of::<f32>()));
    let (sinks, few, slopes, elsewhere) = (sinks?, few?, slopes?, Buffer::new(&Gpu::open(1)?, 128)?);
    let before = recorded()[0];
    let none = Extras::default();
    for (extras, expected) in [
        (none, "the sinks are missing"),
        (none.with(Extra::Sinks, &few), "the sinks have 124 B; at least 128 B are needed"),
        (none.with(Extra::Sinks, &sinks).with(Extra::Slopes, &slopes), "the slopes were given, but"),
        (none.with(Extra::Sinks, &elsewhere), "of another GPU than the plan: the sinks"),
    ] {
        let refused = plan.launch_with(&stream, [&q, &k, &v], &mut o, None, &extras);
        let line = refused.err().map(|error| error.to_string()).unwrap_or_default();
        ensure(line.contains(expected) && !line.contains('\n'), || line)?;
    }
    ensure(plan.launch(&stream, [&q, &k, &v], &mut o, None).is_err(), || "launched without its sinks".into())?;
    ensure(recorded()[0] == before, || "something was launched".into())?;
    plan.launch_with(&stream, [&q, &k, &v], &mut o, None, &none.with(Extra::Sinks, &sinks))?;
    ensure(recorded()[0] == before + 1, || "nothing was launched".into())
}

const MERGED: MergeAddresses =
    MergeAddresses { parts: 0x100002, parts_lse: 0x200004, o: 0x300004, lse: 0x400004, scratch: 0x500004 };

/// A plan to merge so many parts of a problem.
fn merge(gpu: &Gpu, problem: &Problem, parts: u32) -> Result<Merge, Failed> {
    let stacked = Problem { batch: problem.batch * parts, ..*problem };
    let [parts, o] = [stacked, *problem].map(|problem| Layouts::of(&problem).o);
    Ok(Merge::new(gpu, &shipped::catalog()?, &parts, &o)?)
}

fn a_merge_allocates_nothing() -> Outcome {
    let gpu = Gpu::open(0)?;
    let stream = Stream::new(&gpu)?;
    let of_rows = Problem::new(3, 8, 5, 64, Dtype::F16);
    for (problem, launches) in [(of_rows, 3), (of_rows.in_bhsd(), 1), (of_rows.with_seqlens(1, 1), 1)] {
        let merge = merge(&gpu, &problem, 4)?;
        let before = recorded();
        let allocations = ALLOCATIONS.get();
        for _ in 0..100 {
            // SAFETY: the driver reads no memory.
            unsafe { merge.launch_at(&stream, &MERGED) }?;
        }
        let allocations = ALLOCATIONS.get() - allocations;
        let after = recorded();
        ensure(allocations == 0 && after[2] == before[2], || {
            format!("{allocations} allocations, {before:?} {after:?}")
        })?;
        let done = [after[0] - before[0], after[3] - before[3]];
        ensure(done == [launches * 100, 400], || format!("{done:?} by {}", merge.attention().explain()))?;
    }
    Ok(())
}

fn a_merge_passes_what_its_parts_say() -> Outcome {
    let gpu = Gpu::open(0)?;
    let problem = Problem::new(3, 8, 5, 64, Dtype::Bf16);
    let merge = merge(&gpu, &problem, 4)?;
    keep_argument()?;
    // SAFETY: the driver reads no memory.
    unsafe { merge.launch_at(&Stream::new(&gpu)?, &MERGED) }?;
    let mut copy = [0u64; 6];
    // SAFETY: the recording driver's own function, which fills the array.
    unsafe { driver().get::<unsafe extern "C" fn(*mut [u64; 6])>("last_copy")?(&mut copy) };
    // The last of four parts' LSE, of 3 x 8 x 5 rows.
    ensure(copy == [0x200004 + 3 * 120 * 4, 4, 0x500004 + 3 * 4, 16, 4, 120], || format!("{copy:x?}"))?;
    let passed = last_argument()?;
    // The last of three batch entries, of 5 x 8 rows.
    let (entry, lse) = (5 * 8 * 64, 0x400004 + 2 * 40 * 4);
    ensure((passed.v, passed.o, passed.lse) == (0x100002 + 4 * entry, 0x300004 + 4 * entry, lse), || {
        format!("{passed:x?}")
    })?;
    ensure(passed.q == passed.k && passed.q != 0 && passed.seqlen_kv == 4, || format!("{passed:x?}"))?;
    let strides = Strides { batch: 64, seq: 3 * entry as i64, head: 8 * 64 };
    ensure(passed.v_strides == strides && (passed.heads_q.value, passed.tiles_total) == (5, 40), || {
        format!("{passed:?}")
    })?;
    ensure(merge.scratch_bytes() == 4 * 120 * 4, || merge.scratch_bytes().to_string())
}

fn a_bad_merge_launches_nothing() -> Outcome {
    let gpu = Gpu::open(0)?;
    let problem = Problem::new(3, 8, 5, 64, Dtype::F16);
    let (plan, stream) = (merge(&gpu, &problem, 4)?, Stream::new(&gpu)?);
    let layouts = *plan.layouts();
    let tensor = |layout| Tensor::new(&gpu, layout);
    let (parts, parts_lse) = (tensor(layouts.parts)?, tensor(layouts.parts_lse)?);
    let (mut o, mut lse) = (tensor(layouts.o)?, tensor(layouts.lse)?);
    let (mut scratch, mut small) = (plan.scratch()?, Buffer::new(&gpu, 1916)?);
    let (mut other, mut elsewhere) = (plan.scratch()?, Buffer::new(&Gpu::open(1)?, 1920)?);
    let before = recorded();
    for (inputs, scratch, expected) in [
        ([&parts_lse, &parts_lse], &mut scratch, "the parts is Layout"),
        ([&parts, &parts], &mut other, "the LSE of the parts is Layout"),
        ([&parts, &parts_lse], &mut small, "the scratch bytes have 1916 B; at least 1920 B are needed"),
        ([&parts, &parts_lse], &mut elsewhere, "of another GPU than the plan: the scratch"),
    ] {
        let refused = plan.launch(&stream, inputs, &mut o, Some(&mut lse), scratch);
        let line = refused.err().map(|error| error.to_string()).unwrap_or_default();
        ensure(line.starts_with(expected) && !line.contains('\n'), || line)?;
    }
    for (addresses, expected) in [
        (
            MergeAddresses { parts: 0x100001, ..MERGED },
            "the parts is at address 0x100001; a multiple of 2 is needed, and not 0",
        ),
        (MergeAddresses { parts_lse: 0, ..MERGED }, "the LSE of the parts is at address 0x0; a multiple of 4"),
        (MergeAddresses { o: 0x300002, ..MERGED }, "O is at address 0x300002; a multiple of 4"),
        (MergeAddresses { lse: 0x400002, ..MERGED }, "LSE is at address 0x400002; a multiple of 4"),
        (MergeAddresses { scratch: 0, ..MERGED }, "the scratch is at address 0x0; a multiple of 4"),
    ] {
        // SAFETY: the driver reads no memory.
        let refused = unsafe { plan.launch_at(&stream, &addresses) };
        let line = refused.err().map(|error| error.to_string()).unwrap_or_default();
        ensure(line.starts_with(expected), || line)?;
    }
    // SAFETY: as above.
    let refused = unsafe { plan.launch_at(&Stream::new(&Gpu::open(1)?)?, &MERGED) };
    ensure(matches!(refused, Err(AttentionError::OtherGpu { what: "the stream", .. })), || format!("{refused:?}"))?;
    // Elements of O are stored in pairs.
    let mut odd = problem;
    (odd.strides.o.seq, odd.strides.o.batch) = (513, 513 * 5);
    let refused = merge(&gpu, &odd, 4).err().map(|error| error.message().unwrap_or_default().to_owned());
    let needs = "4-byte accesses need every stride of O to be a multiple of 4 bytes";
    ensure(refused.as_ref().is_some_and(|line| line.ends_with(needs)), || format!("{refused:?}"))?;
    ensure(recorded()[0] == before[0] && recorded()[3] == before[3], || "something was launched".into())?;
    plan.launch(&stream, [&parts, &parts_lse], &mut o, Some(&mut lse), &mut scratch)?;
    ensure(recorded()[0] == before[0] + 3, || "nothing was launched".into())
}

/// A cache in pages.
const CACHE: Problem = Problem {
    features: Features { pages: Some(Pages { count: 64, size: 16, columns: 8 }), ..Features::NONE },
    ..Problem::new(4, 8, 1, 64, Dtype::F16)
}
.with_heads_kv(2)
.with_seqlens(1, 128);

const APPENDED: AppendAddresses = AppendAddresses {
    new_k: 0x10000,
    new_v: 0x20000,
    k: 0x30000,
    v: 0x40000,
    used: 0x50000,
    pages: 0x60000,
    raised: 0x70000,
};

/// A plan that appends. The recording driver takes any text; of it only what the kernel takes is looked at.
fn appender(gpu: &Gpu, append: &Append) -> Result<Appender, AttentionError> {
    let bytes = size_of::<AppendArgs>();
    Appender::from_ptx(
        gpu,
        &format!(".entry attention(\n.param .align 8 .b8 attention_param_0[{bytes}]\n)\n{{\n}}"),
        append,
    )
}

fn appending_allocates_nothing() -> Outcome {
    let gpu = Gpu::open(0)?;
    let (plan, stream) = (appender(&gpu, &Append::to(&CACHE, 3))?, Stream::new(&gpu)?);
    let before = recorded();
    let allocations = ALLOCATIONS.get();
    for _ in 0..500 {
        // SAFETY: the driver reads nothing.
        unsafe { plan.launch_at(&stream, &APPENDED) }?;
    }
    let allocations = ALLOCATIONS.get() - allocations;
    let after = recorded();
    ensure(allocations == 0, || format!("{allocations} allocations"))?;
    ensure(after == [before[0] + 500, before[1], before[2], before[3]], || format!("{before:?} {after:?}"))
}

fn what_does_not_fit_is_not_appended() -> Outcome {
    let gpu = Gpu::open(0)?;
    let append = Append::to(&CACHE, 3);
    let before = recorded()[0];
    let line = |error: AttentionError| error.to_string();
    let refused = |refused: Result<(), AttentionError>, expected: &str| {
        let line = refused.err().map(line).unwrap_or_default();
        ensure(line.contains(expected) && !line.contains('\n'), || format!("{line:?} instead of {expected:?}"))
    };
    let planned = |append: &Append| appender(&gpu, append).map(|_| ());
    refused(
        planned(&Append::to(&CACHE, 129)),
        "129 new keys of each batch entry; 1 to 128 are allowed, as seqlen_kv is",
    )?;
    let mut shared = CACHE;
    shared.strides.v.batch = 0;
    refused(planned(&Append::to(&shared, 3)), "rows of the cache's V overlap")?;
    let [k, v, ..] = append.strides();
    refused(planned(&append.with_strides(k, Strides { seq: -1, ..v })), "the new V cannot lie in memory so")?;
    let of_attention = ".entry attention(\n.param .align 8 .b8 attention_param_0[176]\n)\n{\n}";
    let older = Appender::from_ptx(&gpu, of_attention, &append).map(|_| ());
    refused(older, "the kernel append takes arguments of [176] B, this library passes [192] B")?;

    let plan = appender(&gpu, &append)?;
    let stream = Stream::new(&gpu)?;
    let contiguous = appender(&gpu, &Append::to(&Problem { features: Features::NONE, ..CACHE }.in_bshd(), 3))?;
    for (plan, addresses, expected) in [
        (&plan, AppendAddresses { new_k: 0, ..APPENDED }, "the new K is at address 0x0; a multiple of 2 is needed"),
        (&plan, AppendAddresses { v: 0x40001, ..APPENDED }, "the cache's V is at address 0x40001"),
        (&plan, AppendAddresses { used: 0x50002, ..APPENDED }, "the numbers of keys is at address 0x50002"),
        (&plan, AppendAddresses { pages: 0, ..APPENDED }, "the table of pages is at address 0x0"),
        (&plan, AppendAddresses { raised: APPENDED.used + 12, ..APPENDED }, "the raised numbers of keys overlap"),
        (&contiguous, APPENDED, "the table of pages were given, but"),
    ] {
        // SAFETY: nothing is launched.
        refused(unsafe { plan.launch_at(&stream, &addresses) }, expected)?;
    }

    let [new_k, new_v, k, v] = plan.layouts().map(|layout| Tensor::new(&gpu, layout));
    let (new_k, new_v, mut k, mut v) = (new_k?, new_v?, k?, v?);
    let (lengths, table) = (Buffer::new(&gpu, 16)?, Buffer::new(&gpu, 128)?);
    let (mut raised, mut few, mut elsewhere) =
        (Buffer::new(&gpu, 16)?, Buffer::new(&gpu, 12)?, Buffer::new(&Gpu::open(1)?, 16)?);
    let extras = Extras::default().with(Extra::UsedKv, &lengths);
    let launch = |extras: &Extras<'_>, raised: &mut Buffer, k: &mut Tensor, v: &mut Tensor| {
        plan.launch(&stream, [&new_k, &new_v], [k, v], extras, Some(raised))
    };
    refused(launch(&extras, &mut raised, &mut k, &mut v), "the table of pages are missing: ")?;
    let extras = extras.with(Extra::Pages, &table);
    refused(
        launch(&extras, &mut few, &mut k, &mut v),
        "the raised numbers of keys have 12 B; at least 16 B are needed",
    )?;
    refused(
        launch(&extras, &mut elsewhere, &mut k, &mut v),
        "of another GPU than the plan: the raised numbers of keys",
    )?;
    let mut other = Tensor::new(&gpu, Layout::bshd([64, 16, 2, 72], Element::F16))?;
    refused(launch(&extras, &mut raised, &mut other, &mut v), "the cache's K is ")?;
    ensure(recorded()[0] == before, || "something was launched".into())?;
    launch(&extras, &mut raised, &mut k, &mut v)?;
    plan.launch(&stream, [&new_k, &new_v], [&mut k, &mut v], &extras, None)?;
    ensure(recorded()[0] == before + 2, || "nothing was launched".into())
}

fn a_failed_launch_is_told() -> Outcome {
    let gpu = Gpu::open(0)?;
    let (plan, stream) = (plan(&gpu, &Problem::SEED)?, Stream::new(&gpu)?);
    let driver = driver();
    // SAFETY: the recording driver's own function.
    let let_launches_return = unsafe { driver.get::<extern "C" fn(c_int)>("let_launches_return") }?;
    let_launches_return(719);
    // SAFETY: the driver reads no tensor.
    let failed = unsafe { plan.launch_at(&stream, &ADDRESSES) };
    let_launches_return(0);
    let Err(AttentionError::Driver(error)) = failed else { return Err(format!("{failed:?}").into()) };
    let line = error.to_string();
    ensure(error.code() == Some(719) && error.breaks_context() && line.starts_with("cuLaunchKernelEx: "), || line)
}

fn a_plan_explains_itself() -> Outcome {
    let line = plan(&Gpu::open(0)?, &Problem::SEED)?.explain().to_string();
    let parts = [
        "b1-hq8-hk8-sq512-sk512-dqk64-dv64-f16-full-bshd: mma:tile_q=32,",
        "; a default: no dispatch records were given; ",
        " blocks of 256 threads, ",
    ];
    ensure(parts.iter().all(|part| line.contains(part)) && !line.contains('\n'), || line)
}

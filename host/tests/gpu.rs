//! The driver, the timer and the public API on a real GPU; ignored with the reason where there is none.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use builder::Library;
use host::attention::{Addresses, Arguments, Attention, AttentionError, Layouts, Merge};
use host::cases::{self, Case, Distribution, gate};
use host::device::{Pace, Samples, TimingPlan};
use host::driver::{Buffer, DriverError, Event, Gpu, Graph, Module, Monitor, Stream};
use host::measure::timing::{Timer, Work};
use host::oracle::{Answer, Answers, Outputs, judge};
use host::tensor::{Element, Layout, Tensor};
use libtest_mimic::{Failed, Trial};
use spec::{Align, Dtype, Gene, Mask, Problem, Variant};

/// Fills every GPU with query tiles, so that its default is made for that; the last tiles are ragged.
const FILLING: Problem =
    Problem::new(2, 16, 1100, 128, Dtype::Bf16).with_heads_kv(4).with_mask(Mask::Causal(Align::BottomRight));

/// A kernel that the catalog has, launched so that L2 keeps K and V.
const WINDOWED: &str = "mma:tile_q=64,tile_kv=64,warps=4,kv_split=1,stages=2,q_in_registers=1,shared_pad=0,exp_poly=0,lazy_rescale=0,blocks_per_sm=1,cache_hint=0,block_order=1,l2_window=1";

type Outcome = Result<(), Failed>;
type Test = fn(&Gpu) -> Outcome;

const TESTS: &[(&str, Test)] = &[
    ("limits_are_plausible", limits_are_plausible),
    ("buffers_hold_what_they_are_given", buffers_hold_what_they_are_given),
    ("copies_beyond_a_buffer_are_refused", copies_beyond_a_buffer_are_refused),
    ("events_hold_the_time", events_hold_the_time),
    ("graphs_run_when_launched", graphs_run_when_launched),
    ("a_failed_capture_can_be_tried_again", a_failed_capture_can_be_tried_again),
    ("other_threads_copy_while_a_graph_is_recorded", other_threads_copy_while_a_graph_is_recorded),
    ("bad_ptx_is_refused_in_one_line", bad_ptx_is_refused_in_one_line),
    ("the_timer_tells_work_apart", the_timer_tells_work_apart),
    ("a_window_left_behind_helps_no_other", a_window_left_behind_helps_no_other),
    ("files_round_trip_through_the_gpu", files_round_trip_through_the_gpu),
    ("the_public_api_is_right", the_public_api_is_right),
    ("a_recorded_launch_keeps_its_tensors", a_recorded_launch_keeps_its_tensors),
    ("a_recorded_launch_reads_what_is_there_when_it_runs", a_recorded_launch_reads_what_is_there_when_it_runs),
    ("a_thousand_launches_leave_memory_flat", a_thousand_launches_leave_memory_flat),
    ("many_launches_give_the_same_bits", many_launches_give_the_same_bits),
    ("misuse_of_the_public_api_is_refused", misuse_of_the_public_api_is_refused),
    ("partial_results_merge", partial_results_merge),
    ("empty_parts_merge_past_65535_rows", empty_parts_merge_past_65535_rows),
];

fn main() {
    let gpu = Gpu::open(0);
    let trial = |(name, test): &(&str, Test)| match gpu.clone() {
        Ok(gpu) => {
            let test = *test;
            Trial::test(*name, move || test(&gpu))
        }
        Err(reason) => {
            let kind = reason.to_string();
            Trial::test(*name, move || Err(reason.into())).with_ignored_flag(true).with_kind(kind)
        }
    };
    let mut arguments = libtest_mimic::Arguments::from_args();
    // Timing needs the GPU for itself.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, TESTS.iter().map(trial).collect()).exit();
}

fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(otherwise().into()) }
}

fn limits_are_plausible(gpu: &Gpu) -> Outcome {
    let (limits, rates) = (gpu.limits(), gpu.rates());
    ensure(limits.shared_bytes_per_block > 48 << 10, || format!("{limits:?}"))?;
    ensure(limits.shared_bytes_per_block < limits.shared_bytes_per_sm, || format!("{limits:?}"))?;
    ensure(limits.registers_per_sm == 65_536 && limits.l2_bytes > 1 << 20, || format!("{limits:?}"))?;
    ensure(rates.clock_hz > 5e8 && rates.memory_bytes_per_s > 1e11, || format!("{rates:?}"))?;
    ensure(gpu.uuid().len() == 40, || gpu.uuid().to_owned())?;
    // The management library may be absent; where it is there it must know the GPU.
    match Monitor::open(gpu.uuid()) {
        Some(monitor) => ensure(monitor.clocks().is_some_and(|c| c.sm_mhz > 0), || format!("{:?}", monitor.clocks())),
        None => Ok(()),
    }
}

fn buffers_hold_what_they_are_given(gpu: &Gpu) -> Outcome {
    let stream = Stream::new(gpu)?;
    let buffer = Buffer::of(gpu, &[1u32, 2, 3, 4])?;
    buffer.upload(4, &[7u32])?;
    ensure(buffer.download::<u32>(0, 4)? == [1, 7, 3, 4], || "an upload with an offset".into())?;
    buffer.fill(&stream, 0xab)?;
    stream.synchronize()?;
    ensure(buffer.download::<u8>(0, 16)? == [0xab; 16], || "a fill".into())?;
    ensure(buffer.address().is_multiple_of(256), || format!("{:#x}", buffer.address()))
}

fn copies_beyond_a_buffer_are_refused(gpu: &Gpu) -> Outcome {
    let buffer = Buffer::new(gpu, 16)?;
    let refused = DriverError::CopySize { bytes: 8, allowed: 4 };
    ensure(buffer.upload(12, &[0u32; 2]) == Err(refused.clone()), || "upload".into())?;
    ensure(buffer.download::<u32>(12, 2) == Err(refused), || "download".into())?;
    ensure(buffer.download::<u32>(usize::MAX, 1).is_err(), || "offset".into())?;
    ensure(buffer.download::<u32>(0, usize::MAX).is_err(), || "count".into())
}

fn events_hold_the_time(gpu: &Gpu) -> Outcome {
    let (stream, start, end) = (Stream::new(gpu)?, Event::new(gpu)?, Event::new(gpu)?);
    let buffer = Buffer::new(gpu, 256 << 20)?;
    stream.record(&start)?;
    buffer.fill(&stream, 1)?;
    stream.record(&end)?;
    end.synchronize()?;
    ensure(start.passed()? && end.passed()?, || "waited for, but not passed".into())?;
    let us = end.microseconds_since(&start)?;
    let least = f64::from(256 << 20) / (2.0 * gpu.rates().memory_bytes_per_s) * 1e6;
    ensure(us > least && us < 1e6, || format!("256 MiB were filled in {us} us"))
}

fn graphs_run_when_launched(gpu: &Gpu) -> Outcome {
    let stream = Stream::new(gpu)?;
    let buffer = Buffer::of(gpu, &[0u8; 64])?;
    let graph = Graph::capture(gpu, |stream| buffer.fill(stream, 5))?;
    stream.synchronize()?;
    ensure(buffer.download::<u8>(0, 64)? == [0; 64], || "recording ran the work".into())?;
    graph.upload(&stream)?;
    // SAFETY: the buffer outlives the replay.
    unsafe { graph.launch(&stream) }?;
    stream.synchronize()?;
    ensure(buffer.download::<u8>(0, 64)? == [5; 64], || "the replay did not run".into())
}

fn a_failed_capture_can_be_tried_again(gpu: &Gpu) -> Outcome {
    let refused = DriverError::Nul { what: "nothing" };
    let captured = Graph::capture(gpu, |_| Err(refused.clone()));
    ensure(captured.err() == Some(refused), || "the work's own error is lost".into())?;
    let buffer = Buffer::new(gpu, 4)?;
    Graph::capture(gpu, |stream| buffer.fill(stream, 0))?;
    buffer.fill(&Stream::new(gpu)?, 0)?;
    buffer.download::<u8>(0, 4)?;
    Ok(())
}

fn other_threads_copy_while_a_graph_is_recorded(gpu: &Gpu) -> Outcome {
    let (buffer, copies, done) = (Buffer::new(gpu, 64)?, AtomicU32::new(0), AtomicBool::new(false));
    let copy = || -> Result<(), DriverError> {
        while !done.load(Ordering::Relaxed) {
            if Buffer::of(gpu, &[7u8; 64])?.download::<u8>(0, 64)? == [7; 64] {
                copies.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    // Each recording lasts until the other thread has copied in its midst.
    let record = || -> Result<(), DriverError> {
        for _ in 0..20 {
            Graph::capture(gpu, |stream| {
                let (before, begun) = (copies.load(Ordering::Relaxed), Instant::now());
                while copies.load(Ordering::Relaxed) < before + 2 && begun.elapsed() < Duration::from_secs(1) {
                    buffer.fill(stream, 1)?;
                }
                Ok::<_, DriverError>(())
            })?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let copying = scope.spawn(copy);
        let recorded = record();
        done.store(true, Ordering::Relaxed);
        let copied = copying.join().map_err(|_| "the thread that copies panicked")?;
        recorded?;
        copied?;
        ensure(copies.load(Ordering::Relaxed) >= 40, || format!("{copies:?} copies"))
    })
}

fn bad_ptx_is_refused_in_one_line(gpu: &Gpu) -> Outcome {
    let ptx = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry attention() { bogus.u32 %r1; }\n";
    let Err(error) = Module::load(gpu, ptx) else { return Err("it was accepted".into()) };
    let line = error.to_string();
    ensure(matches!(error, DriverError::Ptx { .. }) && !line.contains('\n'), || line.clone())?;
    ensure(line.contains("error") && !error.breaks_context(), || line)
}

fn the_timer_tells_work_apart(gpu: &Gpu) -> Outcome {
    let timer = Timer::new(gpu)?;
    let (small, large) = (Buffer::new(gpu, 1 << 20)?, Buffer::new(gpu, 256 << 20)?);
    let fill_small = |stream: &Stream| small.fill(stream, 1);
    let fill_large = |stream: &Stream| large.fill(stream, 1);
    let works: [&dyn Work; 2] = [&fill_small, &fill_large];
    let samples = timer.time(&works, &TimingPlan { rounds: 6, cold: true, seed: 1, pace: Pace::Sustained })?;
    for Samples { hot_us, cold_us, throttled } in &samples {
        let complete = hot_us.len() == 6 || *throttled == 6;
        ensure(complete && cold_us.len() == hot_us.len(), || format!("{samples:?}"))?;
    }
    let least = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    let [small, large] = [0, 1].map(|i| [least(&samples[i].hot_us), least(&samples[i].cold_us)]);
    ensure(large[0] > 10.0 * small[0] && large[1] > 5.0 * small[1], || format!("{samples:?}"))?;
    let plan = TimingPlan { rounds: 6, cold: true, seed: 1, pace: Pace::Burst };
    for Samples { hot_us, cold_us, .. } in timer.time(&works, &plan)? {
        ensure((5..=6).contains(&hot_us.len()) && cold_us.len() == 6, || format!("{hot_us:?} {cold_us:?}"))?;
    }
    let overhead = timer.launch_overhead_us()?;
    ensure((0.2..50.0).contains(&overhead), || format!("a launch costs {overhead} us"))
}

/// One plan's launches.
struct Launches<'a>(&'a Attention, Arguments);

impl Work for Launches<'_> {
    fn queue(&self, stream: &Stream) -> Result<(), DriverError> {
        // SAFETY: the tensors outlive the tests' waits for the stream.
        unsafe { self.0.queue(stream, &self.1) }
    }

    fn l2_bytes(&self) -> u64 {
        self.0.l2_bytes()
    }
}

/// K and V that one candidate made L2 keep are there for the next, flush or not, until they are reset; so the timer does.
fn a_window_left_behind_helps_no_other(gpu: &Gpu) -> Outcome {
    if gpu.l2().set_aside_bytes == 0 {
        return Ok(());
    }
    // Enough blocks, with so little to compute, that the time is that of reading 16 MB of K and V.
    let problem = Problem::new(1, 256, 256, 64, Dtype::F16).with_seqlens(64, 256);
    let variant: Variant = WINDOWED.parse()?;
    let plain = variant.with(Gene::L2Window, 0).ok_or("the gene has no 0")?;
    let library = Library::open()?;
    let plan = |variant| Attention::with_variant(gpu, &library, &problem, variant);
    let (keeping, plain) = (plan(&variant)?, plan(&plain)?);
    // All of K and V, where so much can be set aside.
    let wanted = (16 << 20).min(gpu.l2().set_aside_bytes);
    ensure(keeping.l2_bytes() == wanted && plain.l2_bytes() == 0, || format!("{:?}", gpu.l2()))?;
    ensure(gpu.l2_set_aside()? >= keeping.l2_bytes(), || "nothing was set aside".into())?;
    let layouts = plain.layouts();
    let [q, k, v, o] = [layouts.q, layouts.k, layouts.v, layouts.o].map(|layout| Tensor::new(gpu, layout));
    let (q, k, v, o) = (q?, k?, v?, o?);
    let addresses = Addresses { q: q.address(), k: k.address(), v: v.address(), o: o.address(), lse: 0 };
    let [keeping, plain] =
        [&keeping, &plain].map(|plan| plan.arguments(&addresses).map(|arguments| Launches(plan, arguments)));
    let (keeping, plain) = (keeping?, plain?);

    let (timer, flush) = (Timer::new(gpu)?, Buffer::new(gpu, 256 << 20)?);
    let (stream, start, end) = (timer.stream(), Event::new(gpu)?, Event::new(gpu)?);
    let after_the_other = |reset: bool| -> Result<f64, DriverError> {
        gpu.set_aside_l2(keeping.l2_bytes())?;
        (0..3).try_for_each(|_| keeping.queue(stream))?;
        stream.synchronize()?;
        if reset {
            gpu.reset_persisting_l2()?;
        }
        (0..4).try_for_each(|_| flush.fill(stream, 0))?;
        stream.record(&start)?;
        plain.queue(stream)?;
        stream.record(&end)?;
        stream.synchronize()?;
        end.microseconds_since(&start)
    };
    let cold_after = |before: &dyn Work, work: &dyn Work| -> Result<f64, DriverError> {
        gpu.set_aside_l2(before.l2_bytes())?;
        (0..3).try_for_each(|_| before.queue(stream))?;
        timer.cold_us(work)
    };
    let median = |sample: &dyn Fn() -> Result<f64, DriverError>| -> Result<f64, DriverError> {
        let mut samples = (0..21).map(|_| sample()).collect::<Result<Vec<_>, _>>()?;
        samples.sort_by(f64::total_cmp);
        Ok(samples[10])
    };
    // While no window has been set yet.
    let alone = median(&|| cold_after(&plain, &plain))?;
    let left = median(&|| after_the_other(false))?;
    let reset = median(&|| after_the_other(true))?;
    let (after, own) = (median(&|| cold_after(&keeping, &plain))?, median(&|| cold_after(&keeping, &keeping))?);
    let all = || format!("left {left}, reset {reset}; timed cold: alone {alone}, after {after}, its own {own} us");
    ensure(left < 0.9 * reset, all)?;
    ensure([after, own].iter().all(|us| (0.95..1.15).contains(&(us / alone))), all)?;

    timer.time(&[&keeping, &plain], &TimingPlan { rounds: 2, cold: true, seed: 0, pace: Pace::Sustained })?;
    ensure(gpu.l2_set_aside()? == 0, || "L2 is still set aside".into())
}

fn files_round_trip_through_the_gpu(gpu: &Gpu) -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.safetensors");
    let layout = Layout::bshd([2, 3, 4, 8], Element::Bf16);
    let values: Vec<u16> = (0..192).collect();
    Tensor::write(&path, &[("x", &Tensor::of(gpu, layout, &values)?)])?;
    let read = Tensor::read(gpu, &path, "x")?;
    ensure(*read.layout() == layout && read.values::<u16>()? == values, || "other values came back".into())?;
    ensure(fs::read_dir(folder.path())?.count() == 1, || "a temporary file was left".into())
}

/// A plan's tensors on the GPU.
struct Tensors {
    inputs: [Tensor; 3],
    o: Tensor,
    lse: Tensor,
}

impl Tensors {
    /// Of the inputs of a case.
    fn of(
        gpu: &Gpu,
        layouts: &Layouts,
        Answer { tensors: cases::Tensors { q, k, v, .. }, .. }: &Answer,
    ) -> Result<Self, Failed> {
        let input = |layout, tensor: &cases::Tensor| Tensor::of(gpu, layout, tensor.storage.inner());
        let inputs = [input(layouts.q, q)?, input(layouts.k, k)?, input(layouts.v, v)?];
        Ok(Self { inputs, o: Tensor::new(gpu, layouts.o)?, lse: Tensor::new(gpu, layouts.lse)? })
    }

    /// Puts the inputs of another case in the place of these, and NaN in that of the outputs.
    fn set(&mut self, Answer { tensors: cases::Tensors { q, k, v, .. }, .. }: &Answer) -> Outcome {
        for (tensor, values) in self.inputs.iter_mut().zip([q, k, v]) {
            tensor.set(values.storage.inner())?;
        }
        self.o.set(&vec![0xffffu16; self.o.layout().extent()?])?;
        Ok(self.lse.set(&vec![f32::NAN; self.lse.layout().extent()?])?)
    }

    fn launch(&mut self, plan: &Attention, stream: &Stream) -> Result<(), AttentionError> {
        let [q, k, v] = &self.inputs;
        plan.launch(stream, [q, k, v], &mut self.o, Some(&mut self.lse))
    }

    /// Holds the outputs against the oracle.
    fn judge(&self, case: &Case, answer: &Answer) -> Outcome {
        let mut outputs = Outputs::unwritten(&case.problem)?;
        outputs.o.storage.inner_mut().copy_from_slice(&self.o.values()?);
        outputs.lse.inner_mut().copy_from_slice(&self.lse.values()?);
        judge(case, &answer.reference, &outputs)?;
        Ok(())
    }
}

fn the_public_api_is_right(gpu: &Gpu) -> Outcome {
    let library = Library::open()?;
    let stream = Stream::new(gpu)?;
    for case in [Problem::SEED, FILLING].iter().flat_map(gate) {
        let plan = Attention::new(gpu, &library, None, &case.problem)?;
        ensure(plan.function().local_bytes()? == 0, || "the default kernel spills registers".into())?;
        let answer = Answers::default().to(&case)?;
        let mut tensors = Tensors::of(gpu, plan.layouts(), &answer)?;
        tensors.launch(&plan, &stream)?;
        stream.synchronize()?;
        tensors.judge(&case, &answer)?;
    }
    Ok(())
}

/// A graph recorded in a stream that another library owns, and replayed after its inputs have changed where they lie.
fn a_recorded_launch_reads_what_is_there_when_it_runs(gpu: &Gpu) -> Outcome {
    let owner = Stream::new(gpu)?;
    // SAFETY: the owner outlives the borrower.
    let stream = unsafe { Stream::borrow(gpu, owner.handle()) }?;
    for problem in [Problem::SEED, FILLING] {
        let plan = Attention::new(gpu, &Library::open()?, None, &problem)?;
        let cases = [(Distribution::Normal, 1), (Distribution::Outliers, 2), (Distribution::LargeLogits, 3)];
        let cases = cases.map(|(distribution, seed)| Case::new("replayed", problem, distribution, seed));
        let mut answers = Answers::default();
        let mut tensors = Tensors::of(gpu, plan.layouts(), &*answers.to(&cases[0])?)?;
        let graph = Graph::capture(gpu, |stream| tensors.launch(&plan, stream))?;
        for case in &cases {
            let answer = answers.to(case)?;
            tensors.set(&answer)?;
            // SAFETY: the tensors outlive the replay.
            unsafe { graph.launch(&stream) }?;
            owner.synchronize()?;
            tensors.judge(case, &answer)?;
        }
    }
    Ok(())
}

fn a_thousand_launches_leave_memory_flat(gpu: &Gpu) -> Outcome {
    let stream = Stream::new(gpu)?;
    for problem in [Problem::SEED, FILLING] {
        let plan = Attention::new(gpu, &Library::open()?, None, &problem)?;
        let case = Case::new("often", problem, Distribution::Normal, 1);
        let answer = Answers::default().to(&case)?;
        let mut tensors = Tensors::of(gpu, plan.layouts(), &answer)?;
        let mut thousand = || -> Result<u64, Failed> {
            for _ in 0..1000 {
                tensors.launch(&plan, &stream)?;
            }
            stream.synchronize()?;
            Ok(gpu.free_bytes()?)
        };
        // The driver makes room for launches under way once.
        let before = thousand()?;
        let after = thousand()?;
        ensure(before == after, || format!("{before} B were free, then {after} B, by {}", plan.explain()))?;
        tensors.judge(&case, &answer)?;
    }
    Ok(())
}

/// ROCm/triton #953, flashinfer #1046: a race shows now and then, in a large batch more than in a small one.
fn many_launches_give_the_same_bits(gpu: &Gpu) -> Outcome {
    let stream = Stream::new(gpu)?;
    let short = Problem::new(60, 8, 200, 64, Dtype::F16).with_mask(Mask::Causal(Align::BottomRight));
    for problem in [short, Problem { batch: 60, ..short }.with_seqlens(1, 777), FILLING] {
        let plan = Attention::new(gpu, &Library::open()?, None, &problem)?;
        let answer = Answers::default().to(&Case::new("often", problem, Distribution::Normal, 1))?;
        let mut tensors = Tensors::of(gpu, plan.layouts(), &answer)?;
        let mut first = None;
        for launch in 0..250 {
            tensors.set(&answer)?;
            tensors.launch(&plan, &stream)?;
            stream.synchronize()?;
            let bits = (tensors.o.values::<u16>()?, tensors.lse.values::<u32>()?);
            let same = *first.get_or_insert_with(|| bits.clone()) == bits;
            ensure(same, || format!("launch {launch} gave other bits than the first, by {}", plan.explain()))?;
        }
    }
    Ok(())
}

fn a_recorded_launch_keeps_its_tensors(gpu: &Gpu) -> Outcome {
    let stream = Stream::new(gpu)?;
    for problem in [Problem::SEED, FILLING] {
        let plan = Attention::new(gpu, &Library::open()?, None, &problem)?;
        let layouts = plan.layouts();
        let one = cases::number::encode(problem.dtype, 1.0) as u16;
        let filled = |layout: Layout, value| Ok::<_, Failed>(Tensor::of(gpu, layout, &vec![value; layout.extent()?])?);
        let (q, k) = (filled(layouts.q, one)?, filled(layouts.k, one)?);
        let (ones, zeros) = (filled(layouts.v, one)?, filled(layouts.v, 0)?);
        let mut o = Tensor::new(gpu, layouts.o)?;
        let recorded = Graph::capture(gpu, |stream| plan.launch(stream, [&q, &k, &ones], &mut o, None))?;
        plan.launch(&stream, [&q, &k, &zeros], &mut o, None)?;
        stream.synchronize()?;
        ensure(o.values::<u16>()?.iter().all(|word| *word == 0), || format!("{problem}: zeros by {}", plan.variant()))?;
        // SAFETY: the tensors outlive the replay.
        unsafe { recorded.launch(&stream) }?;
        stream.synchronize()?;
        ensure(o.values::<u16>()?.iter().all(|word| *word == one), || {
            format!("{problem}: ones by {}", plan.variant())
        })?;
    }
    Ok(())
}

/// Plans over two parts of the keys, one after the other, and a plan that merges them, in one graph, replayed over new inputs.
fn partial_results_merge(gpu: &Gpu) -> Outcome {
    let (library, stream) = (Library::open()?, Stream::new(gpu)?);
    let rows = Problem::new(3, 8, 100, 64, Dtype::F16).with_heads_kv(2).with_mask(Mask::Causal(Align::BottomRight));
    let keys = |problem: Problem, keys| problem.with_seqlens(problem.seqlen_q, keys);
    for whole in [keys(rows, 700), keys(rows, 700).in_bhsd(), rows.with_seqlens(1, 333).with_dtype(Dtype::Bf16)] {
        // The first row of those that are many sees nothing of the last part.
        let last = whole.seqlen_q.max(2) - 1;
        let cut = |keys, mask| {
            let part = whole.with_seqlens(whole.seqlen_q, keys).with_mask(mask);
            // K and V of a part are rows of those of the whole.
            Problem { strides: whole.strides, ..part }
        };
        let parts = [cut(whole.seqlen_kv - last, Mask::Full), cut(last, whole.mask)];
        let stacked = Layouts::of(&Problem { batch: 2 * whole.batch, ..whole }).o;
        let merge = Merge::new(gpu, &library, &stacked, &Layouts::of(&whole).o)?;
        let plans = [Attention::new(gpu, &library, None, &parts[0])?, Attention::new(gpu, &library, None, &parts[1])?];

        let case = |seed| Case::new("merged", whole, Distribution::Normal, seed);
        let (first, second) = (case(1), case(2));
        let [answer, other] = [Answers::default().to(&first)?, Answers::default().to(&second)?];
        let mut tensors = Tensors::of(gpu, &Layouts::of(&whole), &answer)?;
        let layouts = *merge.layouts();
        // Whatever is not written stays NaN.
        let partial = Tensor::of(gpu, layouts.parts, &vec![0xffffu16; layouts.parts.extent()?])?;
        let partial_lse = Tensor::of(gpu, layouts.parts_lse, &vec![f32::NAN; layouts.parts_lse.extent()?])?;
        let mut scratch = merge.scratch()?;
        let (part, part_lse) = (layouts.o.extent()? as u64 * 2, layouts.lse.extent()? as u64 * 4);
        let skipped = u64::from(parts[0].seqlen_kv) * 2;
        let mut launch = |stream: &Stream, tensors: &mut Tensors| -> Result<(), AttentionError> {
            let [q, k, v] = tensors.inputs.each_ref().map(Tensor::address);
            for (i, plan) in plans.iter().enumerate() {
                let (i, strides) = (i as u64, whole.strides);
                let addresses = Addresses {
                    q,
                    k: k + i * skipped * strides.k.seq.unsigned_abs(),
                    v: v + i * skipped * strides.v.seq.unsigned_abs(),
                    o: partial.address() + i * part,
                    lse: partial_lse.address() + i * part_lse,
                };
                // SAFETY: rows of tensors that outlive the waits for the stream.
                unsafe { plan.launch_at(stream, &addresses) }?;
            }
            merge.launch(stream, [&partial, &partial_lse], &mut tensors.o, Some(&mut tensors.lse), &mut scratch)
        };
        let graph = Graph::capture(gpu, |stream| launch(stream, &mut tensors))?;
        for (case, answer) in [(&first, &answer), (&second, &other)] {
            tensors.set(answer)?;
            // SAFETY: the tensors outlive the wait.
            unsafe { graph.launch(&stream) }?;
            stream.synchronize()?;
            let rounded = rounded_parts(&whole, answer, &partial)?;
            tensors.judge(case, &rounded)?;
        }
    }
    Ok(())
}

/// What is expected where O of two parts was rounded before they were merged.
fn rounded_parts(whole: &Problem, answer: &Answer, parts: &Tensor) -> Result<Answer, Failed> {
    let (words, layout) = (parts.values::<u16>()?, parts.layout());
    let mut answer = answer.clone();
    for expected in &mut answer.reference.rows {
        let row = expected.row;
        let rounding = [row.batch, whole.batch + row.batch].map(|entry| {
            let strides = layout.strides;
            let steps = [(entry, strides.batch), (row.row, strides.seq), (row.head, strides.head)];
            let at: i64 = steps.iter().map(|(index, stride)| i64::from(*index) * stride).sum();
            let values = words[at as usize..][..whole.head_dim_v as usize].iter();
            let largest =
                values.map(|word| cases::number::decode(whole.dtype, (*word).into()).abs()).fold(0f32, f32::max);
            cases::number::ulp(whole.dtype, largest.into()) / 2.0
        });
        expected.averages_rounded(rounding[0].max(rounding[1]));
    }
    Ok(answer)
}

fn empty_parts_merge_past_65535_rows(gpu: &Gpu) -> Outcome {
    const ROWS: u32 = 65_537;
    let (library, stream) = (Library::open()?, Stream::new(gpu)?);
    let [parts, o] = [2 * ROWS, ROWS].map(|batch| Layouts::of(&Problem::new(batch, 3, 1, 64, Dtype::F16)).o);
    let merge = Merge::new(gpu, &library, &parts, &o)?;
    let layouts = *merge.layouts();
    let rows = (ROWS * 3) as usize;
    // Of every three rows, the first sees only the first part, the second only the second, the third nothing.
    let mut words = vec![0xffffu16; layouts.parts.extent()?];
    let mut logits = vec![f32::NEG_INFINITY; layouts.parts_lse.extent()?];
    for part in 0..2 {
        for row in (part..rows).step_by(3) {
            let at = part * rows + row;
            words[at * 64..][..64].fill(cases::number::encode(Dtype::F16, (row % 1000) as f32) as u16);
            logits[at] = row as f32;
        }
    }
    let (parts, parts_lse) = (Tensor::of(gpu, layouts.parts, &words)?, Tensor::of(gpu, layouts.parts_lse, &logits)?);
    let (mut o, mut lse) = (Tensor::new(gpu, layouts.o)?, Tensor::new(gpu, layouts.lse)?);
    merge.launch(&stream, [&parts, &parts_lse], &mut o, Some(&mut lse), &mut merge.scratch()?)?;
    stream.synchronize()?;
    let (words, lse) = (o.values::<u16>()?, lse.values::<f32>()?);
    for (row, (values, lse)) in words.chunks(64).zip(lse).enumerate() {
        let (value, right) = match row % 3 {
            2 => (0.0, lse == f32::NEG_INFINITY),
            _ => ((row % 1000) as f32, (lse - row as f32).abs() <= row as f32 * 1e-6),
        };
        let value = cases::number::encode(Dtype::F16, value) as u16;
        ensure(right && values.iter().all(|word| *word == value), || format!("row {row}: {lse}, {values:?}"))?;
    }
    Ok(())
}

fn misuse_of_the_public_api_is_refused(gpu: &Gpu) -> Outcome {
    let plan = Attention::new(gpu, &Library::open()?, None, &Problem::SEED)?;
    let stream = Stream::new(gpu)?;
    let layouts = plan.layouts();
    let [q, k, v, mut o] = [
        Tensor::new(gpu, layouts.q)?,
        Tensor::new(gpu, layouts.k)?,
        Tensor::new(gpu, layouts.v)?,
        Tensor::new(gpu, layouts.o)?,
    ];
    let mut short = Tensor::new(gpu, Layout::bshd([1, 256, 8, 64], Element::F16))?;
    let refused = plan.launch(&stream, [&q, &k, &v], &mut short, None);
    ensure(matches!(refused, Err(AttentionError::Layout { tensor: "O", .. })), || format!("{refused:?}"))?;
    let odd = Addresses { q: q.address(), k: k.address() + 2, v: v.address(), o: o.address(), lse: 0 };
    let refused = plan.arguments(&odd);
    ensure(matches!(refused, Err(AttentionError::Misaligned { tensor: "K", .. })), || format!("{refused:?}"))?;
    plan.launch(&stream, [&q, &k, &v], &mut o, None)?;
    Ok(stream.synchronize()?)
}

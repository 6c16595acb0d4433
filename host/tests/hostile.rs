//! Hostile kernels, really run by workers of the `host` program, on every executor that is here: each is refused for the
//! right reason, and whoever runs it goes on.
//!
//! `cargo test -p host --test hostile -- simt/` runs a part; `--list` shows all.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use builder::{Fixture, Library};
use host::cases::{Case, Distribution, Inputs};
use host::device::remote::{Patience, Remote};
use host::device::worker::Request;
use host::device::{Code, Device, Failure, Pace, Subject, TimingPlan};
use host::driver::Gpu;
use host::evolve::budget::Reason;
use host::evolve::earlier::Earlier;
use host::evolve::engine::{Run, evolve};
use host::evolve::journal::Journal;
use host::evolve::outcome::Outcome;
use host::evolve::settings::{Cases, Lab, Peers, Settings};
use host::evolve::source::{Compiled, Source};
use host::evolve::space::Space;
use host::evolve::strategy;
use host::oracle::{Reference, Row};
use libtest_mimic::{Arguments, Failed, Trial};
use spec::{DeviceLimits, Dtype, Kernel, Problem, Variant, legal};

/// Small enough that the CPU machine runs all of it.
const SMALL: Problem = Problem::new(1, 2, 96, 64, Dtype::F16);

/// Kernels without a fault.
const HONEST: [&str; 2] = [
    "mma:tile_q=64,tile_kv=64,warps=4,kv_split=1,stages=2,q_in_registers=1,shared_pad=0,exp_poly=0,lazy_rescale=0,blocks_per_sm=1,cache_hint=0,block_order=1",
    "tiled:tile_q=64,tile_kv=64,warps=8,row_lanes=8,load_bytes=16,shared_pad=1,exp_poly=0,blocks_per_sm=1,block_order=0",
];

/// How long a worker may take for an answer.
const ANSWER: Duration = Duration::from_secs(12);
/// How long it may take in addition to be ended, and to be replaced.
const LATE: Duration = Duration::from_secs(20);

type Outcomes = Result<(), Failed>;

fn main() {
    let mut arguments = Arguments::from_args();
    let mut trials = tests(&Arc::new(Place::new("simt", "simt", DeviceLimits::H100)));
    match Gpu::open(0) {
        Ok(gpu) => {
            // Timing needs the GPU for itself.
            arguments.test_threads = Some(1);
            trials.extend(tests_of_gpu(*gpu.limits()));
        }
        Err(reason) => {
            eprintln!("the GPU's half is ignored: {reason}");
            let ignored = |trial: Trial| trial.with_ignored_flag(true).with_kind("ignored: no GPU");
            trials.extend(tests_of_gpu(DeviceLimits::H100).into_iter().map(ignored));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn tests_of_gpu(limits: DeviceLimits) -> Vec<Trial> {
    let place = Arc::new(Place::new("cuda", "cuda:0", limits));
    let mut trials = tests(&place);
    trials.push(trial(&place, "halves_share_no_output".into(), halves_share_no_output));
    trials.push(trial(&place, "an_impossible_time_is_refused".into(), an_impossible_time_is_refused));
    trials
}

/// The tests of every place.
fn tests(place: &Arc<Place>) -> Vec<Trial> {
    let mut trials: Vec<_> = Fixture::ALL
        .into_iter()
        .map(|fixture| trial(place, format!("refused/{fixture}"), move |place| is_refused(place, fixture)))
        .collect();
    for seqlen in [512, 32_768] {
        trials.push(trial(place, format!("zeros/{seqlen}"), move |place| zeros_are_refused(place, seqlen)));
    }
    trials.push(trial(place, "the_run_goes_on".into(), the_run_goes_on));
    trials.push(trial(place, "a_time_limit_ends_a_hanging_trial".into(), a_time_limit_ends_a_hanging_trial));
    for fixture in [Fixture::Spin, Fixture::Deadlock] {
        let name = format!("a_worker_ends_with_its_parent/{fixture}");
        trials.push(trial(place, name, move |place| a_worker_ends_with_its_parent(place, fixture)));
    }
    trials
}

fn trial(place: &Arc<Place>, name: String, test: impl Fn(&Place) -> Outcomes + Send + 'static) -> Trial {
    let place = Arc::clone(place);
    Trial::test(format!("{}/{name}", place.name), move || test(&place))
}

/// An executor and the code for it.
struct Place {
    name: &'static str,
    /// As `host worker` takes it.
    device: &'static str,
    limits: DeviceLimits,
    codes: Mutex<Option<HashMap<Variant, Code>>>,
}

impl Place {
    fn new(name: &'static str, device: &'static str, limits: DeviceLimits) -> Self {
        Self { name, device, limits, codes: Mutex::new(None) }
    }

    fn is_gpu(&self) -> bool {
        self.name == "cuda"
    }

    /// The code of each fixture, under the variant it stands in for, and of the honest kernels; built by whoever asks first.
    fn codes(&self) -> Result<HashMap<Variant, Code>, Failed> {
        let mut codes = self.codes.lock().map_err(|error| error.to_string())?;
        if codes.is_none() {
            *codes = Some(self.build()?);
        }
        codes.clone().ok_or_else(|| "they were just built".into())
    }

    fn build(&self) -> Result<HashMap<Variant, Code>, Failed> {
        let library = Library::open()?;
        let honest = honest()?;
        let kernels: Vec<Kernel> = honest.iter().map(|variant| variant.kernel(&SMALL)).collect();
        let variants = Fixture::ALL.map(Fixture::variant).into_iter().chain(honest);
        let codes: Vec<Code> = if self.is_gpu() {
            let sm = self.limits.sm;
            let honest = library.ptx(&kernels, sm).into_iter().collect::<Result<Vec<_>, _>>()?;
            let all = library.fixtures_ptx(sm)?.into_iter().chain(honest);
            all.map(|built| Code::Ptx { sha256: built.sha256, path: built.path }).collect()
        } else {
            let honest = vec![library.simt(&kernels)?; kernels.len()];
            library.fixtures_simt()?.into_iter().chain(honest).map(|path| Code::Library { path }).collect()
        };
        Ok(variants.zip(codes).collect())
    }

    fn subject(&self, variant: Variant, problem: Problem) -> Result<Subject, Failed> {
        let code = self.codes()?.remove(&variant).ok_or("no code for it")?;
        Ok(Subject { problem, variant, geometry: legal(&problem, &variant, &self.limits)?, code })
    }

    /// A worker of the `host` program.
    fn start(&self, answer: Duration) -> Result<Remote, Failure> {
        let patience = Patience { answer, per_case: Duration::ZERO, per_round: Duration::ZERO, ..Patience::default() };
        Remote::start(program(), ["worker", "--device", self.device], patience)
    }
}

/// The `host` program: beside this one where both were carried, else where cargo put it.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|this| Some(this.parent()?.join("host")));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| env!("CARGO_BIN_EXE_host").into())
}

fn honest() -> Result<Vec<Variant>, Failed> {
    Ok(HONEST.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
}

fn case(problem: Problem) -> Case {
    Case::new("here", problem, Distribution::Normal, 1)
}

fn ensure(condition: bool, otherwise: &dyn Debug) -> Outcomes {
    if condition { Ok(()) } else { Err(format!("{otherwise:?}").into()) }
}

/// Why a fixture is refused, and what the reason says.
fn expected(fixture: Fixture, on_gpu: bool) -> (Reason, &'static str) {
    match (fixture, on_gpu) {
        (Fixture::Spin, _) | (Fixture::Deadlock, true) => (Reason::Hang, "still running after "),
        (Fixture::Deadlock, false) => (Reason::Fault, "deadlock"),
        (Fixture::OutOfBounds, true) => (Reason::Fault, "CUDA_ERROR_ILLEGAL_ADDRESS"),
        (Fixture::OutOfBounds, false) => (Reason::Fault, "4-byte load at "),
        (Fixture::EditsInputs, true) => (Reason::Wrong, "it changed its input Q"),
        (Fixture::EditsInputs, false) => (Reason::Fault, "of buffer Q, which is read-only"),
        (Fixture::EvenTiles | Fixture::OddTiles, _) => (Reason::Wrong, "elements of O were not written, the first at "),
        (Fixture::Zeros, _) => (Reason::Wrong, "is 0.000000e0, expected "),
        (Fixture::Stale, _) => (Reason::Wrong, "were not written where an earlier launch had left a number"),
    }
}

/// A fixture gets its reason, in time, and the next candidate on the same device is none the worse for it.
fn is_refused(place: &Place, fixture: Fixture) -> Outcomes {
    let mut worker = place.start(ANSWER)?;
    let begun = Instant::now();
    let refused = worker.check(&place.subject(fixture.variant(), SMALL)?, &[case(SMALL)]);
    let (reason, text) = expected(fixture, place.is_gpu());
    let Err(failure) = refused else { return Err(format!("it passed: {refused:?}").into()) };
    ensure(Reason::of(&failure) == reason && failure.to_string().contains(text), &failure)?;
    ensure(begun.elapsed() < ANSWER + LATE, &begun.elapsed())?;
    // What broke its process is replaced; what was only wrong is not.
    ensure(worker.pid().is_some() == (reason == Reason::Wrong), &worker)?;
    for variant in honest()? {
        worker.check(&place.subject(variant, SMALL)?, &[case(SMALL)])?;
    }
    Ok(())
}

/// Also where an absolute tolerance, the same for all lengths, would let them pass.
fn zeros_are_refused(place: &Place, seqlen: u32) -> Outcomes {
    let problem = Problem::new(1, 1, seqlen, 64, Dtype::F16);
    let refused = place.start(ANSWER)?.check(&place.subject(Fixture::Zeros.variant(), problem)?, &[case(problem)]);
    let named = |reason: &str| reason.starts_with("O at ") && reason.contains(" is 0.000000e0, expected ");
    ensure(matches!(&refused, Err(Failure::Wrong { reason, .. }) if named(reason)), &refused)?;
    if seqlen == 32_768 {
        let tensors = Inputs::new(Distribution::Normal, 1).generate(&problem)?;
        let rows = Reference::of(&problem, &tensors, &[0, 1, 2, 3].map(|row| Row { batch: 0, head: 0, row })).rows;
        let largest = rows.iter().flat_map(|row| &row.exact).fold(0f64, |largest, x| largest.max(x.abs()));
        ensure(largest < 5e-2, &largest)?;
    }
    Ok(())
}

/// Two kernels that write half the rows each, timed in turns, do not complete each other's output.
fn halves_share_no_output(place: &Place) -> Outcomes {
    let halves = [Fixture::EvenTiles, Fixture::OddTiles].map(|half| place.subject(half.variant(), SMALL));
    let halves = halves.into_iter().collect::<Result<Vec<_>, _>>()?;
    let timed =
        place.start(ANSWER)?.time(&halves, &TimingPlan { rounds: 2, cold: false, seed: 0, pace: Pace::Sustained });
    ensure(matches!(&timed, Err(Failure::Wrong { reason, .. }) if reason.contains("were not written")), &timed)
}

/// Launches that find their work done take no time: less than a long problem can take. A short one could; there it shows
/// when something else is found.
fn an_impossible_time_is_refused(place: &Place) -> Outcomes {
    let plan = TimingPlan { rounds: 3, cold: false, seed: 0, pace: Pace::Sustained };
    let mut worker = place.start(Duration::from_secs(60))?;
    let long = place.subject(Fixture::Stale.variant(), Problem::new(1, 8, 8192, 64, Dtype::F16))?;
    let timed = worker.time(&[long], &plan);
    let impossible = |measured_us: f64, floor_us: f64| measured_us < floor_us && floor_us > 50.0;
    ensure(
        matches!(timed, Err(Failure::Impossible { measured_us, floor_us }) if impossible(measured_us, floor_us)),
        &timed,
    )?;
    let timed = worker.time(&[place.subject(Fixture::Stale.variant(), SMALL)?], &plan);
    let (_, text) = expected(Fixture::Stale, true);
    ensure(matches!(&timed, Err(Failure::Wrong { reason, .. }) if reason.contains(text)), &timed)
}

/// Opens a place for runs, and gives its code.
struct Bench<'a> {
    place: &'a Place,
    answer: Duration,
}

impl Lab for Bench<'_> {
    fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
        Ok(Box::new(self.place.start(self.answer)?))
    }

    fn peers(&mut self, _: &Problem) -> Peers {
        Peers::default()
    }
}

struct Shelf(HashMap<Variant, Code>);

impl Source for Shelf {
    fn toolchain(&self) -> String {
        "test".into()
    }

    fn compile(&mut self, variants: &[Variant]) -> Vec<Result<Compiled, Failure>> {
        let compiled = |variant: &Variant| {
            let code = self.0.get(variant).cloned().ok_or_else(|| Failure::Build("not on the shelf".into()))?;
            let sha256 = match &code {
                Code::Ptx { sha256, .. } => sha256.clone(),
                code => builder::sha256(format!("{code:?} {variant}").as_bytes()),
            };
            Ok(Compiled { code, sha256, facts: None })
        };
        variants.iter().map(compiled).collect()
    }
}

/// Runs an evolution of these variants to its end, each of them once.
fn run(place: &Place, answer: Duration, limit: Option<Duration>, variants: Vec<Variant>) -> Result<Outcome, Failed> {
    let cases = Cases { gate: vec![case(SMALL)], suite: vec![case(SMALL)] };
    let settings = Settings {
        strategy: strategy::Kind::Exhaustive,
        trials: 1 + variants.len() as u32,
        rounds: 6,
        // The fewest that give an interval.
        sittings: 6,
        sitting_rounds: 4,
        ..Settings::default()
    };
    let run = Run {
        settings: &settings,
        space: &Space::listed(SMALL, place.limits, variants),
        source: &mut Shelf(place.codes()?),
        lab: &mut Bench { place, answer },
        cases: &cases,
        earlier: &Earlier::default(),
        deadline: limit.map(|limit| Instant::now() + limit),
        progress: &mut |_| (),
    };
    Ok(evolve(run, |_| Ok(Journal::unkept()))?)
}

fn the_run_goes_on(place: &Place) -> Outcomes {
    let honest = honest()?;
    let variants = Fixture::ALL.map(Fixture::variant).into_iter().chain(honest.clone()).collect();
    let outcome = run(place, ANSWER, None, variants)?;
    for fixture in Fixture::ALL {
        let refusal = outcome.refusals.iter().find(|refusal| refusal.variant == Some(fixture.variant().into()));
        let refusal = refusal.ok_or_else(|| format!("{fixture} was not refused: {:?}", outcome.trials))?;
        let (reason, text) = expected(fixture, place.is_gpu());
        ensure(refusal.reason == reason && refusal.why.contains(text), refusal)?;
    }
    ensure(outcome.refusals.len() == Fixture::ALL.len(), &outcome.refusals)?;
    let measured: Vec<_> = outcome.trials.iter().map(|trial| trial.variant).collect();
    ensure(measured.len() == honest.len() && honest.iter().all(|variant| measured.contains(variant)), &measured)
}

fn a_time_limit_ends_a_hanging_trial(place: &Place) -> Outcomes {
    let [honest, _] = honest()?[..] else { return Err("two honest kernels".into()) };
    // Built before the time runs.
    place.codes()?;
    let (begun, limit) = (Instant::now(), Duration::from_secs(40));
    let patience = Duration::from_secs(600);
    let outcome = run(place, patience, Some(limit), vec![honest, Fixture::Spin.variant()])?;
    ensure(begun.elapsed() > limit && begun.elapsed() < limit + 2 * LATE, &begun.elapsed())?;
    ensure(outcome.notes == ["stopped after 1 trials: the time was up"], &outcome.notes)?;
    ensure(outcome.refusals.is_empty(), &outcome.refusals)
}

/// A worker that waits for a kernel, and whose parent goes away, does not stay behind.
fn a_worker_ends_with_its_parent(place: &Place, fixture: Fixture) -> Outcomes {
    let request =
        Request::Check { subject: Box::new(place.subject(fixture.variant(), SMALL)?), cases: vec![case(SMALL)] };
    let mut worker = Command::new(program())
        .args(["worker", "--device", place.device])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (Some(mut input), Some(output)) = (worker.stdin.take(), worker.stdout.take()) else {
        return Err("no pipes".into());
    };
    let mut greeting = String::new();
    BufReader::new(output).read_line(&mut greeting)?;
    ensure(greeting.starts_with(r#"{"device":{"Ok""#), &greeting)?;
    input.write_all(&serde_json::to_vec(&request)?)?;
    input.write_all(b"\n")?;
    sleep(Duration::from_secs(1));
    drop(input);
    let deadline = Instant::now() + LATE;
    while Instant::now() < deadline {
        if worker.try_wait()?.is_some() {
            return Ok(());
        }
        sleep(Duration::from_millis(50));
    }
    worker.kill()?;
    Err("it was still there".into())
}

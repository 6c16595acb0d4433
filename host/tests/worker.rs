//! Workers that behave and workers that do not, each a process: this program, started again with a part to play.

use std::io::{Write, stdout};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use host::cases::{Case, Distribution};
use host::device::remote::{Patience, Remote};
use host::device::{Code, Correctness, Description, Device, Failure, Kind, Pace, Samples, Subject, TimingPlan, worker};
use libtest_mimic::{Arguments, Failed, Trial};
use spec::{BlockOrder, DeviceLimits, LaunchGeometry, Problem, Variant};

/// First argument of a worker; the part is the second.
const PLAY: &str = "--play";

const PATIENCE: Patience = Patience {
    start: Duration::from_secs(20),
    answer: Duration::from_millis(1500),
    per_case: Duration::ZERO,
    per_round: Duration::ZERO,
    end: Duration::from_millis(500),
};

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, first, part] = &arguments[..]
        && first == PLAY
    {
        return play(part);
    }
    type Test = fn() -> Result<(), Failed>;
    let tests: [(&'static str, Test); 13] = [
        ("answers_come_back", answers_come_back),
        ("a_failure_is_an_answer", a_failure_is_an_answer),
        ("a_hang_is_ended", a_hang_is_ended),
        ("a_late_answer_is_no_answer_to_the_next", a_late_answer_is_no_answer_to_the_next),
        ("an_abort_is_a_fault_with_its_last_words", an_abort_is_a_fault_with_its_last_words),
        ("a_fault_gets_a_fresh_worker", a_fault_gets_a_fresh_worker),
        ("garbage_is_the_devices_failure", garbage_is_the_devices_failure),
        ("half_an_answer_is_a_fault", half_an_answer_is_a_fault),
        ("times_that_are_no_numbers_are_refused", times_that_are_no_numbers_are_refused),
        ("no_device_is_said_so", no_device_is_said_so),
        ("no_program_is_said_so", no_program_is_said_so),
        ("a_request_that_is_not_read_does_not_block", a_request_that_is_not_read_does_not_block),
        ("shutdown_does_not_wait_for_ever", shutdown_does_not_wait_for_ever),
    ];
    let trials = tests.into_iter().map(|(name, test)| Trial::test(name, test)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// The worker's side.
fn play(part: &str) {
    let part = part.to_owned();
    if part == "stubborn" {
        // Deaf to the end of its input.
        let greeting = worker::Greeting { device: Ok(description()) };
        println!("{}", serde_json::to_string(&greeting).expect("plain data"));
        sleep(Duration::from_secs(600));
    }
    let open = || match part.as_str() {
        "absent" => Err(Failure::Device("no such GPU".into())),
        _ => Ok(Box::new(Actor { part, description: description(), checks: 0 }) as Box<dyn Device>),
    };
    worker::run(open).expect("pipes to the test");
}

fn description() -> Description {
    Description {
        kind: Kind::Simt,
        name: "actor".into(),
        uuid: String::new(),
        driver: String::new(),
        limits: DeviceLimits::H100,
    }
}

struct Actor {
    part: String,
    description: Description,
    checks: u32,
}

impl Device for Actor {
    fn description(&self) -> &Description {
        &self.description
    }

    /// The parts that misbehave do so on the case with seed 1 only.
    fn check(&mut self, _: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
        self.checks += 1;
        let correctness = Correctness { cases: self.checks, max_abs_error: 0.25, budget_used: 0.5 };
        if cases[0].inputs.seed != 1 {
            return Ok(correctness);
        }
        match self.part.as_str() {
            "hanging" => loop {
                sleep(Duration::from_secs(1));
            },
            "late" => {
                sleep(PATIENCE.answer + Duration::from_millis(300));
                Ok(Correctness { cases: 99, ..correctness })
            }
            "aborting" => {
                eprintln!("CUDA_ERROR_ILLEGAL_ADDRESS in kernel attention");
                std::process::abort();
            }
            "faulting" => Err(Failure::Fault("illegal address".into())),
            "wrong" => Err(Failure::Wrong { case: "here".into(), reason: "zeros".into() }),
            "babbling" => {
                println!("speaking of something else");
                Ok(correctness)
            }
            "breaking-off" => {
                print!("{{\"check\":{{\"Ok\":");
                stdout().flush().expect("a pipe to the test");
                std::process::exit(0);
            }
            _ => Ok(correctness),
        }
    }

    fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
        let time = if self.part == "nan" { f64::NAN } else { 12.5 };
        let samples = Samples { hot_us: vec![time; plan.rounds as usize], ..Samples::default() };
        Ok(vec![samples; subjects.len()])
    }
}

fn start(part: &str) -> Result<Remote, Failed> {
    Ok(Remote::start(std::env::current_exe()?, [PLAY, part], PATIENCE)?)
}

fn subject() -> Subject {
    Subject {
        problem: Problem::SEED,
        variant: Variant::smallest(spec::Family::Tiled),
        geometry: LaunchGeometry {
            blocks: 1,
            threads: 32,
            shared_bytes: 0,
            asked_shared_bytes: 0,
            tiles_q: 1,
            packs_heads: false,
            walk: BlockOrder::TilesFirst.walk(1, 1),
            early_launch: false,
            l2_window: false,
            boxes: None,
        },
        code: Code::Recorded,
    }
}

fn check(remote: &mut Remote, seed: u64) -> Result<Correctness, Failure> {
    remote.check(&subject(), &[Case::new("here", Problem::SEED, Distribution::Normal, seed)])
}

/// What a worker that counts says to its `n`th check.
fn passed(n: u32) -> Result<Correctness, Failure> {
    Ok(Correctness { cases: n, max_abs_error: 0.25, budget_used: 0.5 })
}

fn expect<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Result<(), Failed> {
    if got == expected { Ok(()) } else { Err(format!("got {got:?}, expected {expected:?}").into()) }
}

/// Expects a failure whose text begins and ends so.
fn expect_text<T: std::fmt::Debug>(got: Result<T, Failure>, start: &str, end: &str) -> Result<(), Failed> {
    match got {
        Err(failure) if failure.to_string().starts_with(start) && failure.to_string().ends_with(end) => Ok(()),
        other => Err(format!("got {other:?}, expected {start:?} ... {end:?}").into()),
    }
}

fn answers_come_back() -> Result<(), Failed> {
    let mut remote = start("honest")?;
    expect(remote.description(), &description())?;
    expect(check(&mut remote, 0), passed(1))?;
    expect(check(&mut remote, 1), passed(2))?;
    let plan = TimingPlan { rounds: 3, cold: false, seed: u64::MAX, pace: Pace::Sustained };
    let samples = remote.time(&[subject(), subject()], &plan)?;
    expect(samples.len(), 2)?;
    expect(&samples[1].hot_us[..], &[12.5; 3])
}

fn a_failure_is_an_answer() -> Result<(), Failed> {
    let mut remote = start("wrong")?;
    expect(check(&mut remote, 1), Err(Failure::Wrong { case: "here".into(), reason: "zeros".into() }))?;
    // The same worker goes on.
    expect(check(&mut remote, 0), passed(2))
}

fn a_hang_is_ended() -> Result<(), Failed> {
    let mut remote = start("hanging")?;
    let begin = Instant::now();
    expect(check(&mut remote, 1), Err(Failure::Hang { seconds: PATIENCE.answer.as_secs_f64() }))?;
    expect(begin.elapsed() < PATIENCE.answer + PATIENCE.end + Duration::from_secs(2), true)?;
    // A fresh worker starts to count again.
    expect(check(&mut remote, 0), passed(1))
}

fn a_late_answer_is_no_answer_to_the_next() -> Result<(), Failed> {
    let mut remote = start("late")?;
    expect_text(check(&mut remote, 1), "still running after 1.5 s", "")?;
    sleep(Duration::from_millis(500));
    expect(check(&mut remote, 0), passed(1))
}

fn an_abort_is_a_fault_with_its_last_words() -> Result<(), Failed> {
    let mut remote = start("aborting")?;
    let end = ": CUDA_ERROR_ILLEGAL_ADDRESS in kernel attention";
    expect_text(check(&mut remote, 1), "faulted: the worker ended with signal: 6", end)?;
    expect(check(&mut remote, 0), passed(1))
}

fn a_fault_gets_a_fresh_worker() -> Result<(), Failed> {
    let mut remote = start("faulting")?;
    expect(check(&mut remote, 0), passed(1))?;
    expect(check(&mut remote, 1), Err(Failure::Fault("illegal address".into())))?;
    expect(check(&mut remote, 0), passed(1))
}

fn garbage_is_the_devices_failure() -> Result<(), Failed> {
    let mut remote = start("babbling")?;
    expect_text(check(&mut remote, 1), "device failed: worker: no answer but \"speaking of something else\"", ")")?;
    expect(check(&mut remote, 0), passed(1))
}

fn half_an_answer_is_a_fault() -> Result<(), Failed> {
    let mut remote = start("breaking-off")?;
    expect_text(check(&mut remote, 1), "faulted: the worker ended with exit status: 0", "")
}

fn times_that_are_no_numbers_are_refused() -> Result<(), Failed> {
    let mut remote = start("nan")?;
    let times = remote.time(&[subject()], &TimingPlan { rounds: 1, cold: false, seed: 0, pace: Pace::Sustained });
    expect_text(times, "device failed: worker: no answer but ", ")")
}

fn no_device_is_said_so() -> Result<(), Failed> {
    let remote = Remote::start(std::env::current_exe()?, [PLAY, "absent"], PATIENCE);
    expect_text(remote, "device failed: no such GPU", "")
}

fn no_program_is_said_so() -> Result<(), Failed> {
    let remote = Remote::start("/no/such/program", [""; 0], PATIENCE);
    expect_text(remote, "device failed: worker /no/such/program: ", "")
}

fn a_request_that_is_not_read_does_not_block() -> Result<(), Failed> {
    let mut remote = start("stubborn")?;
    // More than a pipe holds.
    let cases = vec![Case::new("here", Problem::SEED, Distribution::Normal, 0); 10_000];
    let begin = Instant::now();
    expect_text(remote.check(&subject(), &cases), "still running after 1.5 s", "")?;
    expect(begin.elapsed() < Duration::from_secs(10), true)
}

fn shutdown_does_not_wait_for_ever() -> Result<(), Failed> {
    let remote = start("stubborn")?;
    let pid = remote.pid().ok_or("no worker")?;
    let begin = Instant::now();
    drop(remote);
    expect(begin.elapsed() < 2 * PATIENCE.end + Duration::from_secs(2), true)?;
    expect(Path::new("/proc").join(pid.to_string()).exists(), false)
}

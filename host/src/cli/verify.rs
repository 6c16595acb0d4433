//! `host verify`.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail, ensure};
use builder::Library;
use spec::DeviceLimits;

use super::{
    choice::Choice,
    place::{
        gpu_here,
        workers::{self, CpuMachine},
    },
};
use crate::{
    device::Device,
    dispatch::Dispatch,
    evolve::settings::Lab,
    verify::{Timing, Verified, verify},
};

/// How long the GPU may take to answer: inputs of the largest shapes take the host most of it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Arguments of `host verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Dispatch records, for example records/dispatch/nvidia-h200.json.
    record: PathBuf,
    /// Where they are checked: auto, cuda:N or simt.
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// A store of compiled kernels that was filled elsewhere.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Samples per variant, on a GPU.
    #[arg(long, default_value_t = 40)]
    rounds: u32,
}

/// Runs it.
pub(super) fn run(args: Args) -> Result<()> {
    ensure!(args.rounds >= 6, "--rounds is {}; at least 6 are needed for an interval", args.rounds);
    let dispatch = Dispatch::read(&args.record)?;
    let library = Library::open()?;
    let library = match &args.store {
        Some(folder) => library.with_store(folder)?,
        None => library,
    };
    let mut device = open(&args.device, &dispatch)?;
    ensure!(!dispatch.entries().is_empty(), "{}: there is no record in it", args.record.display());
    let mut faults = 0;
    for entry in dispatch.entries() {
        match verify(&library, device.as_mut(), &dispatch, entry, args.rounds) {
            Ok(verified) => println!("ok     {}: {}; {}", entry.problem, entry.variant, said(&verified, entry.hot_us)),
            Err(fault) => {
                faults += 1;
                println!("FAULT  {}: {}; {fault}", entry.problem, entry.variant);
            }
        }
    }
    let all = dispatch.entries().len();
    ensure!(faults == 0, "{}: {faults} of {all} records do not hold", args.record.display());
    println!("{}: {all} of {all} records hold", args.record.display());
    Ok(())
}

/// The executor at hand, and what it leaves unchecked.
fn open(choice: &Choice, dispatch: &Dispatch) -> Result<Box<dyn Device>> {
    let ordinal = match choice {
        Choice::Cuda(ordinal) => Some(*ordinal),
        Choice::Auto => match gpu_here() {
            Ok(()) => Some(0),
            Err(why) => {
                eprintln!("No GPU here ({why:#}).");
                None
            }
        },
        Choice::Simt => None,
        Choice::Replay(_) => bail!("--device is a replay; records are verified on auto, cuda:N or simt"),
    };
    if let Some(ordinal) = ordinal {
        let device = workers::gpu(ordinal, PATIENCE)?;
        let here = &device.description().name;
        ensure!(dispatch.gpu() == here, "the dispatch records are of {}, this is {here}", dispatch.gpu());
        return Ok(Box::new(device));
    }
    eprintln!(
        "Checking on the CPU machine: schema, code, and correctness at small shapes. That {} is the GPU, and times, are \
         not checked.",
        dispatch.gpu()
    );
    Ok(CpuMachine(DeviceLimits::H100.sm).open()?)
}

fn said(verified: &Verified, recorded_us: f64) -> String {
    let Verified { problem, correctness, timing } = verified;
    let mut text = format!(
        "correct on {} cases, largest error {:.1e}, at most {:.0} % of the budget",
        correctness.cases,
        correctness.max_abs_error,
        100.0 * correctness.budget_used
    );
    match timing {
        Some(Timing { hot_us, to_fallback }) => {
            text += &format!("; {hot_us:.2} us, recorded {recorded_us:.2} us");
            text += &match to_fallback {
                Some(ratio) => {
                    format!("; {:.3} [{:.3}, {:.3}] of the fallback's time", ratio.estimate, ratio.low, ratio.high)
                }
                None => "; it is the fallback".to_owned(),
            };
        }
        None => text += &format!(", at {problem}"),
    }
    text
}

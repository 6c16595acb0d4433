//! `host worker`: a device served on standard input and output, for the program that started it.

use anyhow::Result;
use spec::{DeviceLimits, Sm};

use super::choice::Choice;
use crate::{
    device::{Device, Failure, cuda::Cuda, replay::Replay, simt::Simt, worker},
    record::sweep::Sweep,
};

/// Arguments of `host worker`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to serve: cuda:N, simt or replay:FILE.
    #[arg(long)]
    device: Choice,
    /// The GPU whose limits the CPU machine has: sm_80, sm_89 or sm_90a.
    #[arg(long, default_value = "sm_90a", value_parser = target)]
    sm: Sm,
}

/// Runs it.
pub(super) fn run(args: Args) -> Result<()> {
    Ok(worker::run(|| open(&args.device, args.sm))?)
}

fn open(choice: &Choice, sm: Sm) -> Result<Box<dyn Device>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Device(error.to_string());
    match choice {
        Choice::Cuda(ordinal) => {
            driver_shim::available().map_err(|error| failed(&error))?;
            Ok(Box::new(Cuda::open(*ordinal).map_err(|error| failed(&error))?))
        }
        Choice::Simt => Ok(Box::new(Simt::new(DeviceLimits::of(sm)))),
        Choice::Replay(Some(file)) => Ok(Box::new(Replay::new(&Sweep::read(file).map_err(|error| failed(&error))?))),
        Choice::Auto | Choice::Replay(None) => Err(failed(&"a worker serves cuda:N, simt or replay:FILE")),
    }
}

fn target(name: &str) -> Result<Sm, String> {
    let found = Sm::ALL.into_iter().find(|sm| sm.name() == name);
    found.ok_or_else(|| format!("targets are {}", Sm::ALL.map(Sm::name).join(", ")))
}

//! A device, where its code comes from, and the space they open: everything a run needs besides its settings.

mod replay;
mod several;
pub(super) mod workers;

use std::path::Path;

use anyhow::{Result, bail, ensure};
use spec::{DeviceLimits, Problem, Sm};

use self::several::{Opener, Several};
use super::choice::Choice;
use crate::{
    cases::{self, Extent},
    device::replay::Replay,
    driver::Gpu,
    evolve::{
        library::{PtxSource, SimtSource},
        settings::{Cases, Lab},
        source::Source,
        space::Space,
    },
};

/// Everything a run needs besides its settings.
pub(super) struct Place {
    /// What the user should know first: where times come from.
    pub(super) introduction: String,
    /// What may be proposed.
    pub(super) space: Space,
    /// Where compiled variants come from.
    pub(super) source: Box<dyn Source>,
    /// Where trials run.
    pub(super) lab: Box<dyn Lab>,
    /// What is checked.
    pub(super) cases: Cases,
    /// What its devices are.
    origin: Origin,
}

/// What a place's devices are.
enum Origin {
    Gpu,
    Record(Replay),
    CpuMachine(Sm),
}

impl Place {
    /// Whether kernels only run in a record: then some should run here, for correctness.
    pub(super) fn is_recorded(&self) -> bool {
        matches!(self.origin, Origin::Record(_))
    }

    /// The place that is asked for, with as many devices as `devices` has numbers: GPUs by these numbers, else so many
    /// records or CPU machines. One device if there are none.
    pub(super) fn open(choice: &Choice, devices: &[u32], problem: &Problem, store: Option<&Path>) -> Result<Self> {
        if let Some(twice) = devices.iter().enumerate().find(|(i, number)| devices[..*i].contains(number)) {
            bail!("--devices names {} twice", twice.1);
        }
        let choice = match (choice, devices) {
            (Choice::Cuda(_), [_, ..]) => bail!("--device and --devices both name GPUs; --devices alone is enough"),
            (Choice::Auto, [first, ..]) if gpu_here().is_ok() => &Choice::Cuda(*first),
            (choice, _) => choice,
        };
        let mut place = Self::of_one(choice, problem, store)?;
        if let [_, others @ ..] = devices
            && !others.is_empty()
        {
            let openers = others.iter().map(|number| place.opener(*number)).collect();
            place.introduction += &format!(" {} devices at the same time.", devices.len());
            place.lab = Box::new(Several::new(place.lab, openers));
        }
        Ok(place)
    }

    fn of_one(choice: &Choice, problem: &Problem, store: Option<&Path>) -> Result<Self> {
        match choice {
            Choice::Auto => match gpu_here() {
                Ok(()) => Self::gpu(0, problem, store),
                Err(why) => {
                    let mut place = replay::open(None, problem)?;
                    place.introduction = format!("No GPU here ({why:#}). {}", place.introduction);
                    Ok(place)
                }
            },
            Choice::Cuda(ordinal) => Self::gpu(*ordinal, problem, store),
            Choice::Replay(file) => replay::open(file.as_deref(), problem),
            Choice::Simt => Self::cpu_machine(problem),
        }
    }

    /// How a further device like the place's own is opened.
    fn opener(&self, number: u32) -> Opener {
        match &self.origin {
            Origin::Gpu => Box::new(move || Ok(Box::new(workers::gpu(number, workers::ANSWER_LIMIT)?))),
            Origin::CpuMachine(sm) => {
                let sm = *sm;
                Box::new(move || Ok(Box::new(workers::cpu_machine(sm)?)))
            }
            Origin::Record(device) => {
                let device = device.clone();
                Box::new(move || Ok(Box::new(device.clone())))
            }
        }
    }

    fn gpu(ordinal: u32, problem: &Problem, store: Option<&Path>) -> Result<Self> {
        let mut lab = workers::Gpu::new(ordinal);
        let device = lab.open()?.description().clone();
        let source = PtxSource::open(*problem, device.limits.sm, store)?;
        let space = source.space(device.limits)?;
        ensure!(!space.members().is_empty(), "no kernel of {problem} for {} is at hand", device.limits.sm);
        Ok(Self {
            introduction: format!(
                "Measuring on GPU {ordinal}, {}, driver {}: {} variants.",
                device.name,
                device.driver,
                space.members().len()
            ),
            space,
            source: Box::new(source),
            lab: Box::new(lab),
            cases: cases_of(problem, Extent::Large),
            origin: Origin::Gpu,
        })
    }

    fn cpu_machine(problem: &Problem) -> Result<Self> {
        let limits = DeviceLimits::H100;
        Ok(Self {
            introduction: "Running kernels on the CPU machine: times are modelled, not measured.".to_owned(),
            space: Space::whole(*problem, limits),
            source: Box::new(SimtSource::open(*problem, limits.sm)?),
            lab: Box::new(workers::CpuMachine(limits.sm)),
            cases: cases_of(problem, Extent::Small),
            origin: Origin::CpuMachine(limits.sm),
        })
    }
}

/// Whether there is a driver that sees a GPU.
pub(super) fn gpu_here() -> Result<()> {
    driver_shim::available()?;
    ensure!(Gpu::count()? > 0, "the driver sees no GPU");
    Ok(())
}

/// Every case there is for a GPU, or the smaller ones for the CPU machine.
fn cases_of(problem: &Problem, extent: Extent) -> Cases {
    Cases { gate: cases::gate(problem), suite: cases::suite(problem, extent) }
}

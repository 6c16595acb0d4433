//! A problem's tensors on the GPU, and a kernel at work on them.
//!
//! Tensors come with their guard zones: whoever reads beside one gets NaN, whoever writes there is found out.

use bytemuck::Pod;
use spec::{Extra, ExtraAddresses};

use crate::attention::{Addresses, Arguments, Attention, AttentionError};
use crate::cases::{GUARD, Tensor, Tensors};
use crate::driver::{Buffer, DriverError, Gpu, Stream};
use crate::measure::timing::Work;
use crate::oracle::Outputs;

/// Inputs, on the host and on the GPU.
#[derive(Debug)]
pub(super) struct Inputs<'a> {
    host: &'a Tensors,
    device: [Buffer; 3],
    extras: Vec<(Extra, Buffer)>,
}

impl<'a> Inputs<'a> {
    /// Copies the inputs to the GPU.
    pub(super) fn new(gpu: &Gpu, host: &'a Tensors) -> Result<Self, DriverError> {
        let load = |tensor: &Tensor| Buffer::of(gpu, tensor.storage.whole());
        let device = [load(&host.q)?, load(&host.k)?, load(&host.v)?];
        let extras = host.extras.all().map(|(extra, array)| Ok((extra, Buffer::of(gpu, array.memory.whole())?)));
        Ok(Self { host, device, extras: extras.collect::<Result<_, DriverError>>()? })
    }

    /// The addresses of Q, K and V.
    fn addresses(&self) -> [u64; 3] {
        let Tensors { q, k, v, .. } = self.host;
        let [at_q, at_k, at_v] = self.device.each_ref().map(inner::<u16>);
        let first = |at: u64, tensor: &Tensor| at + (tensor.lead * size_of::<u16>()) as u64;
        [first(at_q, q), first(at_k, k), first(at_v, v)]
    }

    /// The addresses of what features read.
    fn extras(&self) -> ExtraAddresses {
        let mut addresses = ExtraAddresses::default();
        for ((extra, array), (_, buffer)) in self.host.extras.all().zip(&self.extras) {
            addresses.0[extra as usize] = inner::<u8>(buffer) + array.lead as u64;
        }
        addresses
    }

    /// What a kernel changed in them, guard zones included; `None` if nothing.
    pub(super) fn change(&self) -> Result<Option<String>, DriverError> {
        let Tensors { q, k, v, extras } = self.host;
        for ((name, tensor), device) in [("Q", q), ("K", k), ("V", v)].into_iter().zip(&self.device) {
            let expected = tensor.storage.whole();
            let found: Vec<u16> = device.download(0, expected.len())?;
            if let Some(at) = found.iter().zip(expected).position(|(found, expected)| found != expected) {
                let at = at as i64 - GUARD as i64;
                return Ok(Some(format!("it changed its input {name}, first at element {at} of its memory")));
            }
        }
        for ((extra, array), (_, buffer)) in extras.all().zip(&self.extras) {
            let expected = array.memory.whole();
            if buffer.download::<u8>(0, expected.len())? != expected {
                return Ok(Some(format!("it changed {}", extra.name())));
            }
        }
        Ok(None)
    }
}

/// A planned kernel with its inputs and with outputs of its own.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    plan: Attention,
    inputs: &'a Inputs<'a>,
    arguments: Arguments,
    unwritten: Outputs,
    o: Buffer,
    lse: Buffer,
}

impl<'a> Stage<'a> {
    /// The outputs' memory is allocated anew and holds what `unwritten` does.
    pub(super) fn new(plan: Attention, inputs: &'a Inputs<'a>, unwritten: Outputs) -> Result<Self, AttentionError> {
        let gpu = plan.function().gpu();
        let o = Buffer::of(gpu, unwritten.o.storage.whole())?;
        let lse = Buffer::of(gpu, unwritten.lse.whole())?;
        let [q, k, v] = inputs.addresses();
        let addresses = Addresses { q, k, v, o: inner::<u16>(&o), lse: inner::<u32>(&lse) };
        let arguments = plan.arguments_with(&addresses, &inputs.extras())?;
        Ok(Self { plan, inputs, arguments, unwritten, o, lse })
    }

    /// The inputs.
    pub(super) fn inputs(&self) -> &Inputs<'a> {
        self.inputs
    }

    /// Runs the kernel once over unwritten outputs.
    pub(super) fn run(&self, stream: &Stream) -> Result<Outputs, DriverError> {
        self.run_over(&self.unwritten, stream)
    }

    /// Runs the kernel once over outputs that hold something already.
    pub(super) fn run_over(&self, found: &Outputs, stream: &Stream) -> Result<Outputs, DriverError> {
        self.o.upload(0, found.o.storage.whole())?;
        self.lse.upload(0, found.lse.whole())?;
        self.queue(stream)?;
        stream.synchronize()?;
        self.outputs()
    }

    /// What the last launch left.
    pub(super) fn outputs(&self) -> Result<Outputs, DriverError> {
        let mut outputs = self.unwritten.clone();
        read(&self.o, outputs.o.storage.whole_mut())?;
        read(&self.lse, outputs.lse.whole_mut())?;
        Ok(outputs)
    }
}

impl Work for Stage<'_> {
    fn queue(&self, stream: &Stream) -> Result<(), DriverError> {
        // SAFETY: inputs and outputs are laid out as the plan's problem says and live as long as `self`; freeing them
        // waits for the work queued before.
        unsafe { self.plan.queue(stream, &self.arguments) }
    }

    fn l2_bytes(&self) -> u64 {
        self.plan.l2_bytes()
    }
}

/// Device address of the tensor between the guard zones of a buffer.
fn inner<T>(buffer: &Buffer) -> u64 {
    buffer.address() + (GUARD * size_of::<T>()) as u64
}

fn read<T: Pod>(buffer: &Buffer, into: &mut [T]) -> Result<(), DriverError> {
    into.copy_from_slice(&buffer.download(0, into.len())?);
    Ok(())
}

//! `host attend`: attention over tensors in files.

mod asked;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use builder::Library;
use spec::{Align, DeviceLimits, Mask, Problem, defaults};

use self::asked::{Arrays, Asked};
use super::{choice::Choice, place::gpu_here};
use crate::{
    attention::{Attention, Extras, Layouts},
    cases::Tensors,
    device::{Code, simt::Simt},
    driver::{Buffer, Gpu, Stream},
    oracle::metamorphic::Executor,
    shipped,
    tensor::{Array, Name, Order, Stored, Tensor},
};

/// Arguments of `host attend`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Q, a 4-dimensional tensor of f16, bf16 or f32 in a safetensors file; NAME is needed if the file has several and none is
    /// called q.
    #[arg(long, value_name = "FILE[:NAME]")]
    q: Source,
    /// K, likewise.
    #[arg(long, value_name = "FILE[:NAME]")]
    k: Source,
    /// V, likewise.
    #[arg(long, value_name = "FILE[:NAME]")]
    v: Source,
    /// Where O goes: a safetensors file, which is there whole or not at all.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The order of dimensions in all files.
    #[arg(long, value_enum, default_value = "bshd")]
    layout: Order,
    /// Row i sees no key past i + seqlen_kv - seqlen_q (bottom-right), or none past i (top-left).
    #[arg(long, value_name = "ALIGN", num_args = 0..=1, require_equals = true, default_missing_value = "bottom-right")]
    causal: Option<Alignment>,
    /// Factor on the scores; 1 / sqrt(head_dim) if not given.
    #[arg(long, allow_negative_numbers = true)]
    scale: Option<f32>,
    /// Also write the natural logarithm of each row's sum of exponentials, f32 [batch, heads, seqlen_q], as `lse`.
    #[arg(long)]
    lse: bool,
    #[command(flatten)]
    asked: Asked,
    /// Where it runs: auto, cuda:N or simt.
    #[arg(long, default_value = "auto")]
    device: Choice,
}

/// Where the diagonal of a causal mask ends.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Alignment {
    BottomRight,
    TopLeft,
}

/// A tensor of a file.
#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    name: Option<String>,
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        match text.rsplit_once(':') {
            // A path may hold a colon too.
            Some((path, name)) if !name.is_empty() && !PathBuf::from(text).exists() => {
                Self { path: path.into(), name: Some(name.to_owned()) }
            }
            _ => Self { path: text.into(), name: None },
        }
    }
}

impl Source {
    /// Which tensor of the file is meant, if this is what it is usually called.
    fn name<'a>(&'a self, usual: &'a str) -> Name<'a> {
        self.name.as_deref().map_or(Name::OrTheOnly(usual), Name::Exactly)
    }

    fn read(&self, usual: &str, order: Order) -> Result<Stored> {
        Ok(Stored::read(&self.path, self.name(usual), order)?)
    }

    fn array(&self, usual: &str) -> Result<Array> {
        Ok(Array::read(&self.path, self.name(usual))?)
    }
}

/// Runs it.
pub(super) fn run(args: Args) -> Result<()> {
    let inputs = [args.q.read("q", args.layout)?, args.k.read("k", args.layout)?, args.v.read("v", args.layout)?];
    let mask = match args.causal {
        None => Mask::Full,
        Some(Alignment::BottomRight) => Mask::Causal(Align::BottomRight),
        Some(Alignment::TopLeft) => Mask::Causal(Align::TopLeft),
    };
    let [q, k, v] = &inputs;
    let (problem, arrays) = args.asked.problem([&q.layout, &k.layout, &v.layout], args.layout, mask, args.scale)?;
    // Before anything is computed in vain.
    ensure!(!args.output.is_dir(), "{}: is a folder; a file is needed", args.output.display());
    let (o, lse) = attend(&args.device, &problem, &inputs, &arrays)?;
    let mut outputs = vec![("o", &o, args.layout)];
    if args.lse {
        outputs.push(("lse", &lse, Order::Bhsd));
    }
    Ok(Stored::write(&args.output, &outputs)?)
}

/// O and LSE, by the device that is asked for.
fn attend(device: &Choice, problem: &Problem, inputs: &[Stored; 3], arrays: &Arrays) -> Result<(Stored, Stored)> {
    match device {
        Choice::Cuda(ordinal) => on_gpu(*ordinal, problem, inputs, arrays),
        Choice::Simt => on_cpu_machine(problem, inputs, arrays),
        Choice::Auto => match gpu_here() {
            Ok(()) => on_gpu(0, problem, inputs, arrays),
            Err(no_gpu) => {
                let result = on_cpu_machine(problem, inputs, arrays);
                result.with_context(|| format!("no GPU here ({no_gpu:#}), and the CPU machine cannot do it either"))
            }
        },
        Choice::Replay(_) => bail!("--device is a replay, which computes nothing; auto, cuda:N and simt do"),
    }
}

fn on_gpu(ordinal: u32, problem: &Problem, [q, k, v]: &[Stored; 3], arrays: &Arrays) -> Result<(Stored, Stored)> {
    let gpu = Gpu::open(ordinal)?;
    let dispatch = shipped::dispatch(gpu.name())?;
    // A library may compile what the shipped kernels lack.
    let plan = match Library::open() {
        Ok(library) => Attention::new(&gpu, &library, dispatch.as_ref(), problem)?,
        Err(_) => Attention::new(&gpu, &shipped::catalog()?, dispatch.as_ref(), problem)?,
    };
    eprintln!("{}: {}", gpu.name(), plan.explain());
    let (q, k, v) = (Tensor::of_stored(&gpu, q)?, Tensor::of_stored(&gpu, k)?, Tensor::of_stored(&gpu, v)?);
    let layouts = plan.layouts();
    let (mut o, mut lse) = (Tensor::new(&gpu, layouts.o)?, Tensor::new(&gpu, layouts.lse)?);
    let stream = Stream::new(&gpu)?;
    let buffers = arrays.iter().map(|(extra, bytes)| Ok((*extra, Buffer::of(&gpu, bytes)?)));
    let buffers = buffers.collect::<Result<Vec<_>>>()?;
    let extras = buffers.iter().fold(Extras::default(), |extras, (extra, buffer)| extras.with(*extra, buffer));
    plan.launch_with(&stream, [&q, &k, &v], &mut o, Some(&mut lse), &extras)?;
    stream.synchronize()?;
    Ok((o.stored()?, lse.stored()?))
}

fn on_cpu_machine(problem: &Problem, [q, k, v]: &[Stored; 3], arrays: &Arrays) -> Result<(Stored, Stored)> {
    let limits = DeviceLimits::H100;
    let variant = defaults(problem, &limits).next().context("no variant can run it")?;
    let mut tensors = Tensors::unset(problem)?;
    for (tensor, stored) in [(&mut tensors.q, q), (&mut tensors.k, k), (&mut tensors.v, v)] {
        tensor.storage.inner_mut().copy_from_slice(&stored.words());
    }
    for (extra, bytes) in arrays {
        tensors.extras = tensors.extras.with(*extra, bytes)?;
    }
    let code = Code::Library { path: Library::open()?.simt(&[variant.kernel(problem)])? };
    eprintln!("The CPU machine: {problem}: {variant}; slow, for checks only");
    let outputs = Simt::new(limits).executor(variant, &code).run(problem, &tensors)?;
    let Layouts { o, lse, .. } = Layouts::of(problem);
    let o = Stored { layout: o, bytes: bytemuck::cast_slice(outputs.o.storage.inner()).to_vec() };
    let lse = Stored { layout: lse, bytes: bytemuck::cast_slice(outputs.lse.inner()).to_vec() };
    Ok((o, lse))
}

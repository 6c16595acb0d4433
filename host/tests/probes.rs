//! Every operation of the kernels' machine on its own: the same probes on the CPU machine and on the GPU.
//!
//! Where no GPU is, or no toolchain to make PTX for it, the GPU's half is reported as ignored with the reason.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex};

use builder::Library;
use host::driver::{Argument, Buffer, DriverError, Function, Gpu, Grid, Module, Stream, tensor_map};
use kernels::probes::{self, Args, POISON, Probe};
use libtest_mimic::{Arguments, Failed, Trial};
use spec::{Dtype, Sm};

/// Schedules each probe is run under on the CPU machine.
const SEEDS: u64 = 5;

/// Bytes before and after the output that no probe may touch.
const GUARD: usize = 256;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials: Vec<_> = probes::all().map(on_cpu).collect();
    match Executor::open() {
        Ok(executor) => {
            let sm = executor.gpu.limits().sm;
            let executor = Arc::new(Mutex::new(executor));
            trials.extend(probes::all().map(|probe| on_gpu(probe, sm, Arc::clone(&executor))));
        }
        Err(missing) => {
            eprintln!("the GPU's half is ignored: {}", missing.reason);
            trials.extend(probes::all().map(|probe| ignored(probe, &missing)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn on_cpu(probe: Probe) -> Trial {
    let test = move || (0..SEEDS).try_for_each(|seed| probe.run_on_cpu(seed)).map_err(Failed::from);
    Trial::test(probe.name, test).with_kind("cpu")
}

fn on_gpu(probe: Probe, sm: Sm, executor: Arc<Mutex<Executor>>) -> Trial {
    if probe.hopper && sm != Sm::Sm90a {
        return ignored(probe, &Missing { what: "sm_90a", reason: format!("this GPU is {sm}") });
    }
    let test = move || {
        let executor = executor.lock().map_err(|_| "a probe before this one panicked")?;
        Ok(executor.run(&probe)?)
    };
    Trial::test(probe.name, test).with_kind("gpu")
}

fn ignored(probe: Probe, missing: &Missing) -> Trial {
    let failure = Failed::from(&missing.reason);
    let kind = format!("gpu, ignored: no {}", missing.what);
    Trial::test(probe.name, || Err(failure)).with_kind(kind).with_ignored_flag(true)
}

/// What the GPU's half needs and this machine lacks.
struct Missing {
    what: &'static str,
    reason: String,
}

impl Missing {
    fn new<E: Error>(what: &'static str) -> impl Fn(E) -> Self {
        move |error| Self { what, reason: error.to_string() }
    }
}

/// A GPU and what was compiled for it.
struct Executor {
    gpu: Gpu,
    /// All probes, or why they cannot be loaded; that is no reason to ignore them.
    module: Result<Module, String>,
}

impl Executor {
    /// The first GPU.
    fn open() -> Result<Self, Missing> {
        let gpu = Gpu::open(0).map_err(Missing::new("GPU"))?;
        let library = Library::open().map_err(Missing::new("sources"))?;
        let ptx = library.probes_ptx(gpu.limits().sm).map_err(Missing::new("kernel toolchain"))?;
        let module = load(&gpu, &ptx).map_err(|error| error.to_string());
        Ok(Self { gpu, module })
    }

    fn run(&self, probe: &Probe) -> Result<(), Box<dyn Error>> {
        let function = self.module.as_ref().map_err(String::as_str)?.function(probe.name)?;
        let input = (probe.input)();
        let bytes = (probe.expected)(&input).len();
        let all = self.launch(probe, &function, &input, GUARD + bytes + GUARD)?;
        let (before, output) = all.split_at(GUARD);
        let (output, after) = output.split_at(bytes);
        if before.iter().chain(after).any(|byte| *byte != POISON) {
            return Err("it wrote outside its output".into());
        }
        Ok(probe.judge(&input, output)?)
    }

    /// Runs the probe on a poisoned buffer, of which the output begins after a guard, and returns the whole of it.
    fn launch(&self, probe: &Probe, function: &Function, input: &[u8], bytes: usize) -> Result<Vec<u8>, DriverError> {
        let input = Buffer::of(&self.gpu, input)?;
        let output = Buffer::of(&self.gpu, &vec![POISON; bytes])?;
        let stream = Stream::new(&self.gpu)?;
        let Probe { blocks, cluster, threads, shared_bytes, .. } = *probe;
        let grid = Grid { blocks, cluster, threads, shared_bytes, early: false, l2_window: None };
        let encoded =
            probe.map.map(|map| tensor_map::encode(&self.gpu, Dtype::F16, &map(input.address()))).transpose()?;
        let map = encoded.map(|words| Buffer::of(&self.gpu, &words)).transpose()?;
        let args = Args {
            input: input.address(),
            output: output.address() + GUARD as u64,
            map: map.as_ref().map_or(0, Buffer::address),
        };
        // SAFETY: every probe takes an `Args`; all buffers live until the stream has been waited for, and are as large as
        // the table says the probe needs.
        unsafe { function.launch(&stream, grid, &[Argument::by_value(&args)]) }?;
        stream.synchronize()?;
        output.download(0, bytes)
    }
}

fn load(gpu: &Gpu, ptx: &Path) -> Result<Module, Box<dyn Error>> {
    Ok(Module::load(gpu, &std::fs::read_to_string(ptx)?)?)
}

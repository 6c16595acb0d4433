//! The plans that records or defaults choose on a few shapes: hot, in microseconds by the GPU's clock, and in operations per second.
//!
//! Without a GPU, or for shapes whose kernel cannot be had, one line says why nothing was measured.

use std::error::Error;
use std::time::Duration;

use builder::Library;
use criterion::{Criterion, Throughput};
use host::attention::{Addresses, Attention};
use host::cases::{Distribution, Inputs};
use host::dispatch::Dispatch;
use host::driver::{Buffer, Gpu, Stream};
use host::measure::timing::Timer;
use spec::{Align, Dtype, Mask, Problem};

const CAUSAL: Mask = Mask::Causal(Align::BottomRight);

/// Latency (the seed shape), throughput (16 Ki tokens), grouped heads, and a ragged head_dim.
fn problems() -> [Problem; 7] {
    [
        Problem::SEED,
        Problem::SEED.with_mask(CAUSAL),
        Problem::new(4, 8, 1024, 64, Dtype::F16),
        Problem::new(2, 16, 8192, 128, Dtype::F16),
        Problem::new(2, 16, 8192, 128, Dtype::Bf16).with_mask(CAUSAL),
        Problem::new(1, 64, 4096, 128, Dtype::Bf16).with_heads_kv(8),
        Problem::new(1, 8, 512, 40, Dtype::F16),
    ]
}

/// Where kernels come from.
struct Source {
    library: Library,
    dispatch: Option<Dispatch>,
}

impl Source {
    fn open(gpu: &Gpu) -> Result<Self, Box<dyn Error>> {
        let library = Library::open()?;
        let dispatch = Dispatch::shipped(library.project().root(), gpu.name())?;
        Ok(Self { library, dispatch })
    }
}

fn bench(criterion: &mut Criterion, timer: &Timer, source: &Source, problem: &Problem) -> Result<(), Box<dyn Error>> {
    let gpu = timer.stream().gpu();
    let plan = Attention::new(gpu, &source.library, source.dispatch.as_ref(), problem)?;
    let inputs = Inputs::new(Distribution::Normal, 0).generate(problem)?;
    let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(|tensor| Buffer::of(gpu, tensor.storage.inner()));
    let (q, k, v) = (q?, k?, v?);
    let o = Buffer::new(gpu, plan.layouts().o.extent()? * plan.layouts().o.element.bytes())?;
    let addresses = Addresses { q: q.address(), k: k.address(), v: v.address(), o: o.address(), lse: 0 };
    let arguments = plan.arguments(&addresses)?;
    // SAFETY: the buffers outlive the replay and are laid out as the problem says.
    let work = |stream: &Stream| unsafe { plan.queue(stream, &arguments) };
    let replay = timer.replay(&work)?;

    let mut failure = None;
    let mut group = criterion.benchmark_group("attention");
    group.throughput(Throughput::Elements(problem.flops()));
    group.bench_function(problem.to_string(), |bencher| {
        bencher.iter_custom(|launches| match replay.time_us(launches) {
            Ok(us) => Duration::from_secs_f64(us / 1e6),
            Err(error) => {
                failure = Some(error);
                Duration::from_secs(1)
            }
        });
    });
    group.finish();
    failure.map_or(Ok(()), |error| Err(error.into()))
}

fn main() {
    let here = Gpu::open(0).and_then(|gpu| Timer::new(&gpu)).map_err(Box::<dyn Error>::from);
    let (timer, source) = match here.and_then(|timer| Source::open(timer.stream().gpu()).map(|source| (timer, source)))
    {
        Ok(here) => here,
        Err(error) => return println!("nothing measured: {error}"),
    };
    let mut criterion = Criterion::default().configure_from_args();
    for problem in problems() {
        if let Err(error) = bench(&mut criterion, &timer, &source, &problem) {
            println!("{problem} not measured: {error}");
        }
    }
    criterion.final_summary();
}

//! Attention in a program of one's own: grouped heads under a causal mask, held against a plain loop.
//!
//! Exit codes: 0 the result is right, 1 it is wrong or something failed, 3 there is no GPU here.

use std::error::Error;
use std::process::ExitCode;

use evoattn::attention::Attention;
use evoattn::driver::{Gpu, Stream};
use evoattn::shipped;
use evoattn::spec::{Align, Dtype, Mask, Problem};
use evoattn::tensor::Tensor;
use half::bf16;

const NO_GPU: u8 = 3;

fn main() -> ExitCode {
    // Both are part of this program.
    let kernels = match shipped::catalog() {
        Ok(kernels) => kernels,
        Err(error) => return failed(&error),
    };
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(error) => {
            eprintln!("no GPU here ({error}): nothing was computed");
            return ExitCode::from(NO_GPU);
        }
    };
    match run(&gpu, &kernels) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn run(gpu: &Gpu, kernels: &evoattn::builder::Catalog) -> Result<(), Box<dyn Error>> {
    let problem = Problem::new(2, 8, 1, 64, Dtype::Bf16)
        .with_seqlens(100, 300)
        .with_heads_kv(2)
        .with_mask(Mask::Causal(Align::BottomRight));
    let records = shipped::dispatch(gpu.name())?;
    let plan = Attention::new(gpu, kernels, records.as_ref(), &problem)?;
    println!("{}: {}", gpu.name(), plan.explain());

    let layouts = plan.layouts();
    let (q, k, v) = (values(layouts.q.extent()?, 1), values(layouts.k.extent()?, 2), values(layouts.v.extent()?, 3));
    let stream = Stream::new(gpu)?;
    let inputs = [Tensor::of(gpu, layouts.q, &q)?, Tensor::of(gpu, layouts.k, &k)?, Tensor::of(gpu, layouts.v, &v)?];
    let mut o = Tensor::new(gpu, layouts.o)?;
    for _ in 0..3 {
        plan.launch(&stream, inputs.each_ref(), &mut o, None)?;
    }
    stream.synchronize()?;

    let o = o.values::<u16>()?.into_iter().map(|bits| bf16::from_bits(bits).to_f32());
    let worst = o.zip(plain(&problem, &q, &k, &v)).map(|(ours, plain)| (ours - plain).abs()).fold(0.0, f32::max);
    println!("largest difference to a plain loop: {worst:.1e}");
    // Outputs are of magnitude 1 at most, and bf16 has 8 bits.
    if worst < 1e-2 { Ok(()) } else { Err(format!("the result is off by {worst}").into()) }
}

/// Numbers from -1 to 1.
fn values(count: usize, seed: u32) -> Vec<bf16> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bf16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

/// O in the order of memory, `[batch, seqlen_q, heads_q, head_dim]`.
fn plain(problem: &Problem, q: &[bf16], k: &[bf16], v: &[bf16]) -> Vec<f32> {
    let Problem { batch, heads_q, heads_kv, seqlen_q, seqlen_kv, head_dim_v, .. } = *problem;
    let d = head_dim_v as usize;
    let row = |tensor: &[bf16], seqlen: u32, heads: u32, [b, s, h]: [u32; 3]| -> Vec<f32> {
        let start = ((b * seqlen + s) * heads + h) as usize * d;
        tensor[start..start + d].iter().map(|x| x.to_f32()).collect()
    };
    let mut o = Vec::new();
    for (b, s) in (0..batch).flat_map(|b| (0..seqlen_q).map(move |s| (b, s))) {
        for h in 0..heads_q {
            let query = row(q, seqlen_q, heads_q, [b, s, h]);
            let group = h / problem.heads_per_kv();
            let (mut sum, mut out) = (0.0, vec![0.0; d]);
            for key in problem.visible_keys(s) {
                let dot: f32 = query.iter().zip(row(k, seqlen_kv, heads_kv, [b, key, group])).map(|(a, b)| a * b).sum();
                let weight = (dot * problem.softmax_scale()).exp();
                sum += weight;
                out.iter_mut().zip(row(v, seqlen_kv, heads_kv, [b, key, group])).for_each(|(o, v)| *o += weight * v);
            }
            o.extend(out.into_iter().map(|x| x / sum));
        }
    }
    o
}

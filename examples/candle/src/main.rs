//! Attention as candle's models have it, by candle's own operations and by EvoAttn, on the same tensors of the GPU.
//!
//! Prints one line for each check. Exit codes: 0 all agree, 1 one does not or something failed, 3 there is no GPU here.

use std::process::ExitCode;

use candle::{D, DType, Device, Result, Tensor};
use candle_evoattn::Attention;

const NO_GPU: u8 = 3;

/// Layers that are compared.
const CHECKS: [Check; 7] = [
    Check::new("grouped heads, causal", DType::BF16, [2, 8, 2], [300, 300], 64).causal(),
    Check::new("as many K/V heads", DType::F16, [3, 4, 4], [257, 257], 128),
    Check::new("decoding a token", DType::BF16, [4, 8, 1], [1, 513], 128).causal(),
    Check::new("an odd head_dim and scale", DType::F16, [1, 6, 2], [77, 130], 40).scaled(0.3),
    Check::new("heads before positions", DType::F16, [2, 8, 8], [200, 200], 64).causal().lying(Lying::HeadsFirst),
    Check::new("one projection of Q, K and V", DType::BF16, [2, 8, 2], [160, 160], 64).causal().lying(Lying::Packed),
    Check::new("two layers, one after the other", DType::BF16, [1, 4, 4], [512, 512], 96).causal().layers(2),
];

/// One comparison.
struct Check {
    name: &'static str,
    dtype: DType,
    /// Batch, query heads, K/V heads.
    heads: [usize; 3],
    /// Queries, keys.
    lengths: [usize; 2],
    head_dim: usize,
    causal: bool,
    scale: Option<f32>,
    lying: Lying,
    layers: usize,
}

/// Where tensors lie before attention is asked for.
#[derive(Clone, Copy)]
enum Lying {
    /// Each contiguous `[batch, seqlen, heads, head_dim]`.
    Apart,
    /// Each a view of a contiguous `[batch, heads, seqlen, head_dim]`.
    HeadsFirst,
    /// All views of `[batch, seqlen, heads_q + 2 heads_kv, head_dim]`.
    Packed,
}

impl Check {
    const fn new(name: &'static str, dtype: DType, heads: [usize; 3], lengths: [usize; 2], head_dim: usize) -> Self {
        Self { name, dtype, heads, lengths, head_dim, causal: false, scale: None, lying: Lying::Apart, layers: 1 }
    }

    const fn causal(self) -> Self {
        Self { causal: true, ..self }
    }

    const fn scaled(self, scale: f32) -> Self {
        Self { scale: Some(scale), ..self }
    }

    const fn lying(self, lying: Lying) -> Self {
        Self { lying, ..self }
    }

    const fn layers(self, layers: usize) -> Self {
        Self { layers, ..self }
    }

    fn scale(&self) -> f32 {
        self.scale.unwrap_or(1.0 / (self.head_dim as f32).sqrt())
    }

    /// What outputs may differ by: they are averages of numbers of magnitude 1, rounded to 8 bits or to 11.
    fn allowed(&self) -> f32 {
        if self.dtype == DType::BF16 { 2e-2 } else { 4e-3 }
    }

    /// Q, K and V, as `[batch, seqlen, heads, head_dim]`.
    fn inputs(&self, device: &Device) -> Result<[Tensor; 3]> {
        let ([batch, heads_q, heads_kv], [queries, keys]) = (self.heads, self.lengths);
        let random =
            |[a, b, c]: [usize; 3]| Tensor::randn(0f32, 1f32, (a, b, c, self.head_dim), device)?.to_dtype(self.dtype);
        let apart = [(queries, heads_q), (keys, heads_kv), (keys, heads_kv)];
        let [q, k, v] = match self.lying {
            Lying::Apart => apart.map(|(seqlen, heads)| random([batch, seqlen, heads])),
            Lying::HeadsFirst => apart.map(|(seqlen, heads)| random([batch, heads, seqlen])?.transpose(1, 2)),
            Lying::Packed => {
                let all = random([batch, queries, heads_q + 2 * heads_kv])?;
                let part = |first, heads| all.narrow(2, first, heads);
                [part(0, heads_q), part(heads_q, heads_kv), part(heads_q + heads_kv, heads_kv)]
            }
        };
        Ok([q?, k?, v?])
    }

    /// The largest difference between the two ways.
    fn difference(&self, attention: &Attention, device: &Device) -> Result<f32> {
        let [q, k, v] = self.inputs(device)?;
        let (mut plain, mut ours) = (q.clone(), q);
        for _ in 0..self.layers {
            // The second layer's queries are the output of the first, which nobody has waited for.
            plain = self.plainly(&plain, &k, &v)?;
            ours = attention.attend(&ours, &k, &v, self.scale(), self.causal)?;
        }
        let differences = (plain.to_dtype(DType::F32)? - ours.to_dtype(DType::F32)?)?.abs()?;
        // A NaN is the largest.
        let larger = |most: f32, x: f32| if most.is_nan() || x <= most { most } else { x };
        Ok(differences.flatten_all()?.to_vec1()?.into_iter().fold(0.0, larger))
    }

    /// Attention by candle's own operations, in fp32, rounded at the end.
    fn plainly(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let ([_, heads_q, heads_kv], [queries, keys]) = (self.heads, self.lengths);
        // Heads before positions, K and V repeated: what EvoAttn does without.
        let heads_first = |tensor: &Tensor, repeat: usize| -> Result<Tensor> {
            let tensor = tensor.to_dtype(DType::F32)?.transpose(1, 2)?.contiguous()?;
            let (batch, heads, seqlen, head_dim) = tensor.dims4()?;
            let repeated = tensor.unsqueeze(2)?.expand((batch, heads, repeat, seqlen, head_dim))?;
            repeated.reshape((batch, heads * repeat, seqlen, head_dim))
        };
        let ratio = heads_q / heads_kv;
        let (q, k, v) = (heads_first(q, 1)?, heads_first(k, ratio)?, heads_first(v, ratio)?);
        let mut scores = (q.matmul(&k.t()?)? * f64::from(self.scale()))?;
        if self.causal {
            // The last query sees the last key.
            let hides = |at: usize| at % keys + queries > at / keys + keys;
            let hidden = |at| if hides(at) { f32::NEG_INFINITY } else { 0.0 };
            let hidden = (0..queries * keys).map(hidden).collect();
            scores = scores.broadcast_add(&Tensor::from_vec(hidden, (queries, keys), q.device())?)?;
        }
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        weights.matmul(&v)?.transpose(1, 2)?.contiguous()?.to_dtype(self.dtype)
    }
}

fn main() -> ExitCode {
    let device = match Device::new_cuda(0) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("no GPU here ({}): nothing was computed", line(&error));
            return ExitCode::from(NO_GPU);
        }
    };
    match all_agree(&device) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", line(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error without what candle adds to it where backtraces are asked for.
fn line(error: &candle::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn all_agree(device: &Device) -> Result<bool> {
    device.set_seed(1)?;
    let attention = Attention::new(device)?;
    let mut agree = true;
    for check in &CHECKS {
        let (difference, allowed) = (check.difference(&attention, device)?, check.allowed());
        let good = difference <= allowed;
        agree &= good;
        let verdict = if good { "ok" } else { "DIFFERS" };
        let Check { name, dtype, heads, lengths, head_dim, .. } = check;
        print!("{verdict}: {name}, {dtype:?} heads {heads:?} lengths {lengths:?} head_dim {head_dim}: ");
        println!("candle and EvoAttn differ by {difference:.1e} at most, {allowed:.0e} is allowed");
    }
    Ok(agree)
}

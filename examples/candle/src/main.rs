//! A grouped-query attention layer as candle's models have it, once by candle's own operations and once by EvoAttn.
//!
//! Exit codes: 0 both agree, 1 they do not or something failed, 3 there is no GPU here.

use std::process::ExitCode;

use candle::{D, DType, Device, Result, Tensor};
use candle_evoattn::Attention;

const NO_GPU: u8 = 3;
const BATCH: usize = 2;
const HEADS: usize = 8;
const HEADS_KV: usize = 2;
const SEQLEN: usize = 300;
const HEAD_DIM: usize = 64;

/// How a layer attends.
enum How<'a> {
    Plainly,
    With(&'a Attention),
}

fn main() -> ExitCode {
    let device = match Device::new_cuda(0) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("no GPU here ({error}): nothing was computed");
            return ExitCode::from(NO_GPU);
        }
    };
    match difference(&device) {
        Ok(difference) => {
            println!("largest difference between candle's own attention and EvoAttn: {difference:.1e}");
            // Outputs are averages of numbers of magnitude 1, and bf16 has 8 bits.
            if difference < 2e-2 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn difference(device: &Device) -> Result<f32> {
    let attention = Attention::new(device)?;
    let random = |heads| Tensor::randn(0f32, 1f32, (BATCH, SEQLEN, heads, HEAD_DIM), device)?.to_dtype(DType::BF16);
    let (q, k, v) = (random(HEADS)?, random(HEADS_KV)?, random(HEADS_KV)?);
    let [plain, ours] = [layer(&How::Plainly, &q, &k, &v)?, layer(&How::With(&attention), &q, &k, &v)?];
    let difference = (plain.to_dtype(DType::F32)? - ours.to_dtype(DType::F32)?)?;
    difference.abs()?.flatten_all()?.max(0)?.to_scalar()
}

/// Causal attention over `[batch, seqlen, heads, head_dim]`.
fn layer(how: &How<'_>, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let scale = 1.0 / (HEAD_DIM as f32).sqrt();
    let attention = match how {
        How::With(attention) => return attention.attend(q, k, v, scale, true),
        How::Plainly => |q: Tensor, k: Tensor, v: Tensor| -> Result<Tensor> {
            let scores = (q.matmul(&k.t()?)?.to_dtype(DType::F32)? * f64::from(scale))?;
            let hidden: Vec<f32> = (0..SEQLEN * SEQLEN)
                .map(|at| if at % SEQLEN > at / SEQLEN { f32::NEG_INFINITY } else { 0.0 })
                .collect();
            let scores = scores.broadcast_add(&Tensor::from_vec(hidden, (SEQLEN, SEQLEN), q.device())?)?;
            let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
            let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
            weights.to_dtype(DType::BF16)?.matmul(&v)
        },
    };
    // Heads before positions, K and V repeated: what EvoAttn does without.
    let heads_first = |tensor: &Tensor, repeat: usize| -> Result<Tensor> {
        let tensor = tensor.transpose(1, 2)?.contiguous()?;
        let (batch, heads, seqlen, head_dim) = tensor.dims4()?;
        let repeated = tensor.unsqueeze(2)?.expand((batch, heads, repeat, seqlen, head_dim))?;
        repeated.reshape((batch, heads * repeat, seqlen, head_dim))
    };
    let ratio = HEADS / HEADS_KV;
    attention(heads_first(q, 1)?, heads_first(k, ratio)?, heads_first(v, ratio)?)?.transpose(1, 2)?.contiguous()
}

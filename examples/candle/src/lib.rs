//! EvoAttn as an operation of candle: [`Attention::attend`] takes what `candle_flash_attn::flash_attn` takes.
//!
//! It computes on the GPU and in the stream of candle's own device, where the tensors are and in whatever layout; it allocates the output
//! and copies nothing.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use candle::backend::BackendStorage;
use candle::cuda_backend::CudaDType;
use candle::cuda_backend::cudarc::driver::{CudaView, DevicePtr, DevicePtrMut, DeviceRepr};
use candle::{CpuStorage, CudaStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};
use evoattn::attention::{self, Addresses};
use evoattn::builder::Catalog;
use evoattn::dispatch::Dispatch;
use evoattn::driver::{Gpu, Stream};
use evoattn::shipped;
use evoattn::spec::{Align, Mask, Problem, Strides, TensorStrides};
use evoattn::tensor::{self, Element};
use half::{bf16, f16};

/// Attention on one of candle's devices, with a plan for each shape it has met.
pub struct Attention {
    gpu: Gpu,
    kernels: Catalog,
    records: Option<Dispatch>,
    plans: Mutex<HashMap<String, attention::Attention>>,
}

impl Attention {
    /// Attention on this device.
    pub fn new(device: &Device) -> Result<Self> {
        let ordinal = device.as_cuda_device()?.cuda_stream().context().ordinal();
        let gpu = Gpu::open(u32::try_from(ordinal).map_err(other)?).map_err(other)?;
        let records = shipped::dispatch(gpu.name()).map_err(other)?;
        Ok(Self { gpu, kernels: shipped::catalog().map_err(other)?, records, plans: Mutex::default() })
    }

    /// `softmax(softmax_scale Q K^T) V`; with `causal` the last query sees the last key.
    ///
    /// # Arguments
    ///
    /// * `q`: `[batch, seqlen_q, heads_q, head_dim]`, f16 or bf16; any strides with the last dimension contiguous.
    /// * `k`, `v`: `[batch, seqlen_kv, heads_kv, head_dim]`.
    ///
    /// Returns `[batch, seqlen_q, heads_q, head_dim]`, contiguous.
    pub fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, softmax_scale: f32, causal: bool) -> Result<Tensor> {
        let mask = if causal { Mask::Causal(Align::BottomRight) } else { Mask::Full };
        q.apply_op3_no_bwd(k, v, &Operation { attention: self, mask, scale: softmax_scale })
    }

    /// The plan for a problem, made when it is first met.
    fn plan(&self, problem: &Problem) -> Result<attention::Attention> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let name = problem.to_string();
        if let Some(plan) = plans.get(&name) {
            return Ok(plan.clone());
        }
        let plan = attention::Attention::new(&self.gpu, &self.kernels, self.records.as_ref(), problem);
        let plan = plan.map_err(other)?;
        plans.insert(name, plan.clone());
        Ok(plan)
    }
}

/// One call.
struct Operation<'a> {
    attention: &'a Attention,
    mask: Mask,
    scale: f32,
}

impl CustomOp3 for Operation<'_> {
    fn name(&self) -> &'static str {
        "evoattn"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("evoattn computes on CUDA devices only")
    }

    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        k: &CudaStorage,
        k_layout: &Layout,
        v: &CudaStorage,
        v_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let [q, k, v] = [(q, q_layout), (k, k_layout), (v, v_layout)];
        match q.0.dtype() {
            DType::F16 => self.launch::<f16>([q, k, v], Element::F16),
            DType::BF16 => self.launch::<bf16>([q, k, v], Element::Bf16),
            dtype => bail!("evoattn takes f16 and bf16, not {dtype:?}"),
        }
    }
}

impl Operation<'_> {
    fn launch<T: CudaDType + DeviceRepr>(
        &self,
        [q, k, v]: [(&CudaStorage, &Layout); 3],
        element: Element,
    ) -> Result<(CudaStorage, Shape)> {
        let layout = |of: &Layout| strided(of, element);
        let problem = attention::problem(&layout(q.1)?, &layout(k.1)?, &layout(v.1)?, self.mask, Some(self.scale))
            .map_err(other)?;
        // Contiguous, whatever the layout of Q.
        let strides = TensorStrides { o: problem.in_bshd().strides.o, ..problem.strides };
        let problem = Problem { strides, ..problem };
        let plan = self.attention.plan(&problem)?;

        let device = q.0.device();
        let stream = device.cuda_stream();
        let shape = Shape::from(plan.layouts().o.shape.map(|size| size as usize).to_vec());
        // SAFETY: the kernel writes every element of it.
        let mut o = unsafe { device.alloc::<T>(shape.elem_count()) }?;
        {
            let (q, k, v) = (view::<T>(q)?, view::<T>(k)?, view::<T>(v)?);
            // While they live, cudarc orders what other streams do with the tensors after this launch.
            let ((q, _q), (k, _k), (v, _v), (o, _o)) =
                (q.device_ptr(&stream), k.device_ptr(&stream), v.device_ptr(&stream), o.device_ptr_mut(&stream));
            // SAFETY: candle's stream is live and of the primary context, and the tensors are laid out as the problem says.
            unsafe {
                let stream = Stream::borrow(&self.attention.gpu, stream.cu_stream().cast()).map_err(other)?;
                plan.launch_at(&stream, &Addresses { q, k, v, o, lse: 0 }).map_err(other)?;
            }
        }
        Ok((CudaStorage::wrap_cuda_slice(o, device.clone()), shape))
    }
}

/// The elements of a tensor, from its first on.
fn view<'a, T: CudaDType>((storage, layout): (&'a CudaStorage, &Layout)) -> Result<CudaView<'a, T>> {
    Ok(storage.as_cuda_slice::<T>()?.slice(layout.start_offset()..))
}

/// A layout of candle's as one of ours.
fn strided(layout: &Layout, element: Element) -> Result<tensor::Layout> {
    let (batch, seqlen, heads, head_dim) = layout.shape().dims4()?;
    let [batch_stride, seq, head, last] = layout.stride() else { bail!("attention takes tensors of 4 dimensions") };
    if *last != 1 {
        bail!("the last dimension must be contiguous; its stride is {last}");
    }
    let size = |size: usize| u32::try_from(size).map_err(other);
    let strides = Strides { batch: *batch_stride as i64, seq: *seq as i64, head: *head as i64 };
    Ok(tensor::Layout { shape: [size(batch)?, size(seqlen)?, size(heads)?, size(head_dim)?], strides, element })
}

/// One of our errors as one of candle's.
fn other(error: impl Display) -> candle::Error {
    candle::Error::Msg(error.to_string())
}

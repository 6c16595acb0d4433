//! The public API: plan once, launch many times.
//!
//! A plan holds a compiled kernel and its launch geometry for one problem on one GPU. A launch only queues the kernel: it
//! allocates nothing, waits for nothing, and needs no toolchain.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use builder::{BuildError, Library, PtxArtifact};
use spec::{
    AttentionArgs, DeviceLimits, Gene, Illegal, LaunchGeometry, PlainMap, Problem, Strides, TensorMaps, Variant, legal,
};

use crate::dispatch::{self, Choice, Chosen, Dispatch};
use crate::driver::{Argument, DriverError, Function, Gpu, Grid, L2Window, Module, Stream, tensor_map};
use crate::tensor::{Element, Layout, Tensor};

/// Bytes of the widest load a family without a gene for it uses.
const WIDEST_LOAD: u64 = 16;

/// Why attention cannot be planned or launched.
#[derive(Debug, thiserror::Error)]
pub enum AttentionError {
    /// The variant does not fit the problem or the GPU.
    #[error("{variant} cannot run {problem}: {reason}")]
    Illegal {
        /// What was asked.
        problem: Box<Problem>,
        /// How it was to be done.
        variant: Box<Variant>,
        /// Why not.
        reason: Illegal,
    },
    /// The kernel's code cannot be had.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The kernel's code cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The PTX file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A tensor does not start where the kernel's loads need it to.
    #[error("{tensor} is at address {address:#x}; a multiple of {needed} is needed, and not 0")]
    Misaligned {
        /// Q, K, V, O or LSE.
        tensor: &'static str,
        /// Its address.
        address: u64,
        /// What divides a good address.
        needed: u64,
    },
    /// A tensor has another layout than the problem says.
    #[error("{tensor} is {found:?}, the problem has {expected:?}")]
    Layout {
        /// Q, K, V, O or LSE.
        tensor: &'static str,
        /// What it is.
        found: Layout,
        /// What it should be.
        expected: Layout,
    },
    /// A stream or tensor belongs to another GPU than the plan.
    #[error("{what} is on {gpu}, the plan on {plan}")]
    OtherGpu {
        /// The stream or tensor.
        what: &'static str,
        /// UUID of its GPU.
        gpu: String,
        /// UUID of the plan's GPU.
        plan: String,
    },
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// Layouts of a problem's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layouts {
    /// `[batch, seqlen_q, heads_q, head_dim_qk]`.
    pub q: Layout,
    /// `[batch, seqlen_kv, heads_kv, head_dim_qk]`.
    pub k: Layout,
    /// `[batch, seqlen_kv, heads_kv, head_dim_v]`.
    pub v: Layout,
    /// `[batch, seqlen_q, heads_q, head_dim_v]`.
    pub o: Layout,
    /// `[batch, seqlen_q, heads_q, 1]` in fp32; in memory the positions of a head follow each other.
    pub lse: Layout,
}

impl Layouts {
    /// The layouts of `problem`.
    pub fn of(problem: &Problem) -> Self {
        let Problem { batch, heads_q, heads_kv, seqlen_q, seqlen_kv, head_dim_qk, head_dim_v, strides, .. } = *problem;
        let element = Element::from(problem.dtype);
        let layout =
            |seqlen, heads, head_dim, strides| Layout { shape: [batch, seqlen, heads, head_dim], strides, element };
        Self {
            q: layout(seqlen_q, heads_q, head_dim_qk, strides.q),
            k: layout(seqlen_kv, heads_kv, head_dim_qk, strides.k),
            v: layout(seqlen_kv, heads_kv, head_dim_v, strides.v),
            o: layout(seqlen_q, heads_q, head_dim_v, strides.o),
            lse: Layout { element: Element::F32, ..layout(seqlen_q, heads_q, 1, Strides::bhsd(seqlen_q, heads_q, 1)) },
        }
    }
}

/// Device addresses of a launch's tensors, laid out as [`Layouts::of`] the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Q.
    pub q: u64,
    /// K.
    pub k: u64,
    /// V.
    pub v: u64,
    /// O.
    pub o: u64,
    /// LSE; 0 if it is not wanted.
    pub lse: u64,
}

/// What a kernel is launched with, for one set of [`Addresses`]. Copied whenever a launch is queued.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arguments {
    args: AttentionArgs,
    /// For kernels that use the copy engine.
    maps: Option<TensorMaps>,
    /// What L2 is asked to keep.
    l2_window: Option<L2Window>,
}

/// A plan: how one problem is done on one GPU.
#[derive(Clone, Debug)]
pub struct Attention {
    problem: Problem,
    variant: Variant,
    choice: Choice,
    geometry: LaunchGeometry,
    /// What addresses must be multiples of.
    load_bytes: u64,
    layouts: Layouts,
    function: Function,
    /// Of the last launch: most callers use the same tensors again, and tensor maps take the driver a while.
    last: Arc<Mutex<Option<(Addresses, Arguments)>>>,
}

impl Attention {
    /// A plan by the variant that `dispatch` records as the fastest, or by a default; [`Attention::choice`] says which
    /// and why.
    pub fn new(
        gpu: &Gpu,
        library: &Library,
        dispatch: Option<&Dispatch>,
        problem: &Problem,
    ) -> Result<Self, AttentionError> {
        let Chosen { variant, artifact, choice } =
            dispatch::choose(library, gpu.name(), gpu.limits(), dispatch, problem)?;
        Ok(Self { choice, ..Self::from_artifact(gpu, artifact, problem, &variant)? })
    }

    /// A plan by the variant that the dispatch records in a file name for this GPU. The file is verified first: records of
    /// another GPU, of code that has changed since, or that cannot be read leave a default, and [`Attention::choice`] says
    /// so. `host verify` checks such a file in depth.
    pub fn by_file(gpu: &Gpu, library: &Library, records: &Path, problem: &Problem) -> Result<Self, AttentionError> {
        let Chosen { variant, artifact, choice } =
            dispatch::choose_by_file(library, gpu.name(), gpu.limits(), records, problem)?;
        Ok(Self { choice, ..Self::from_artifact(gpu, artifact, problem, &variant)? })
    }

    /// A plan by this variant, whose PTX comes from `library`; it may be compiled there first.
    pub fn with_variant(
        gpu: &Gpu,
        library: &Library,
        problem: &Problem,
        variant: &Variant,
    ) -> Result<Self, AttentionError> {
        // Before anything is compiled.
        geometry(gpu.limits(), problem, variant)?;
        let artifact = dispatch::code(library, gpu.limits().sm, problem, variant)?;
        Self::from_artifact(gpu, artifact, problem, variant)
    }

    fn from_artifact(
        gpu: &Gpu,
        PtxArtifact { path, .. }: PtxArtifact,
        problem: &Problem,
        variant: &Variant,
    ) -> Result<Self, AttentionError> {
        let ptx = fs::read_to_string(&path).map_err(|source| AttentionError::Read { path, source })?;
        Self::from_ptx(gpu, &ptx, problem, variant)
    }

    /// A plan by this variant with PTX at hand, as the builder makes it of `variant.kernel(problem)`.
    pub fn from_ptx(gpu: &Gpu, ptx: &str, problem: &Problem, variant: &Variant) -> Result<Self, AttentionError> {
        Self::from_module(&Module::load(gpu, ptx)?, problem, variant)
    }

    /// A plan by this variant with its kernel loaded.
    pub fn from_module(module: &Module, problem: &Problem, variant: &Variant) -> Result<Self, AttentionError> {
        let geometry = geometry(module.gpu().limits(), problem, variant)?;
        let function = module.function(builder::ptx::ENTRY)?;
        function.allow_shared(geometry.shared_bytes)?;
        let plan = Self {
            problem: *problem,
            variant: *variant,
            choice: Choice::Given,
            geometry,
            load_bytes: variant.get(Gene::LoadBytes).map_or(WIDEST_LOAD, u64::from),
            layouts: Layouts::of(problem),
            function,
            last: Arc::default(),
        };
        // Never less than another plan of the process needs.
        let gpu = module.gpu();
        if plan.l2_bytes() > gpu.l2_set_aside()? {
            gpu.set_aside_l2(plan.l2_bytes())?;
        }
        Ok(plan)
    }

    /// Queues O = attention(Q, K, V), and its LSE if wanted.
    pub fn launch(
        &self,
        stream: &Stream,
        [q, k, v]: [&Tensor; 3],
        o: &mut Tensor,
        lse: Option<&mut Tensor>,
    ) -> Result<(), AttentionError> {
        let Layouts { q: in_q, k: in_k, v: in_v, o: in_o, lse: in_lse } = self.layouts;
        let tensors = [("Q", q, in_q), ("K", k, in_k), ("V", v, in_v), ("O", o, in_o)];
        for (tensor, given, expected) in tensors.into_iter().chain(lse.as_deref().map(|lse| ("LSE", lse, in_lse))) {
            if *given.layout() != expected {
                return Err(AttentionError::Layout { tensor, found: *given.layout(), expected });
            }
            self.check_gpu(tensor, given.gpu())?;
        }
        let lse = lse.map_or(0, |lse| lse.address());
        let addresses = Addresses { q: q.address(), k: k.address(), v: v.address(), o: o.address(), lse };
        // SAFETY: the tensors are on this GPU and laid out as the problem says. Freeing one waits for the work queued before.
        unsafe { self.launch_at(stream, &addresses) }
    }

    /// Like [`Attention::launch`], on tensors that something else owns.
    ///
    /// # Safety
    ///
    /// The addresses must be of live tensors on the plan's GPU, laid out as [`Layouts::of`] the problem, until the stream has
    /// been waited for. O and LSE must overlap no other of them.
    pub unsafe fn launch_at(&self, stream: &Stream, addresses: &Addresses) -> Result<(), AttentionError> {
        self.check_gpu("the stream", stream.gpu())?;
        // SAFETY: the caller vouches for the tensors.
        unsafe { self.queue(stream, &self.arguments_again(addresses)?) }?;
        Ok(())
    }

    /// The kernel's arguments for tensors at these addresses; a caller that launches often on the same ones can keep them.
    pub fn arguments(&self, addresses: &Addresses) -> Result<Arguments, AttentionError> {
        let Addresses { q, k, v, o, lse } = *addresses;
        for (tensor, address) in [("Q", q), ("K", k), ("V", v), ("O", o)] {
            check_alignment(tensor, address, self.load_bytes)?;
        }
        if lse != 0 {
            check_alignment("LSE", lse, size_of::<f32>() as u64)?;
        }
        let args = self.geometry.args(&self.problem, [q, k, v, o, lse]);
        let maps = self.tensor_maps([q, k, v])?;
        Ok(Arguments { args, maps, l2_window: self.l2_window(k, v) })
    }

    /// Queues the kernel with arguments from [`Attention::arguments`] in a stream of the plan's GPU.
    ///
    /// # Safety
    ///
    /// As for [`Attention::launch_at`].
    pub unsafe fn queue(&self, stream: &Stream, arguments: &Arguments) -> Result<(), DriverError> {
        let LaunchGeometry { blocks, threads, shared_bytes, early_launch, .. } = self.geometry;
        let grid = Grid { blocks, threads, shared_bytes, early: early_launch, l2_window: arguments.l2_window };
        let args = Argument::by_value(&arguments.args);
        // SAFETY: every entry point takes `AttentionArgs`, and those whose geometry has boxes `TensorMaps` after it; the
        // caller vouches for the tensors.
        unsafe {
            match &arguments.maps {
                None => self.function.launch(stream, grid, &[args]),
                Some(maps) => self.function.launch(stream, grid, &[args, Argument::by_value(maps)]),
            }
        }
    }

    /// Like [`Attention::arguments`], without work if the addresses are those of the last launch.
    fn arguments_again(&self, addresses: &Addresses) -> Result<Arguments, AttentionError> {
        // What a thread that panicked left there is whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((known, arguments)) if known == *addresses => Ok(arguments),
            _ => {
                let arguments = self.arguments(addresses)?;
                *last = Some((*addresses, arguments));
                Ok(arguments)
            }
        }
    }

    /// What kernels of the copy engine take beside their first argument.
    fn tensor_maps(&self, inputs: [u64; 3]) -> Result<Option<TensorMaps>, DriverError> {
        let Some([q, k, v]) = PlainMap::of(&self.geometry, &self.problem, inputs) else { return Ok(None) };
        let encode = |map| tensor_map::encode(self.problem.dtype, &map);
        Ok(Some(TensorMaps([encode(q)?, encode(k)?, encode(v)?])))
    }

    /// Bytes of L2 that are set aside for the plan's launches; 0 unless its variant asks L2 to keep K and V.
    ///
    /// Making the plan sets them aside, for all work of the GPU's context.
    pub fn l2_bytes(&self) -> u64 {
        let [k, v] = self.kv_bytes();
        if self.geometry.l2_window { (k + v).min(self.function.gpu().l2().set_aside_bytes) } else { 0 }
    }

    /// Bytes from the first element of K to its last, and of V.
    fn kv_bytes(&self) -> [u64; 2] {
        // A layout that overflows is refused where tensors are made.
        let bytes = |layout: Layout| layout.extent().unwrap_or(0) as u64 * layout.element.bytes() as u64;
        [bytes(self.layouts.k), bytes(self.layouts.v)]
    }

    /// What L2 is asked to keep of K and V at these addresses.
    fn l2_window(&self, k: u64, v: u64) -> Option<L2Window> {
        let [k_bytes, v_bytes] = self.kv_bytes();
        window([k..k + k_bytes, v..v + v_bytes], self.l2_bytes(), self.function.gpu().l2().window_bytes)
    }

    /// The problem.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// How it is done.
    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    /// Why it is done so.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The layouts of its tensors.
    pub fn layouts(&self) -> &Layouts {
        &self.layouts
    }

    /// How it is launched.
    pub fn geometry(&self) -> &LaunchGeometry {
        &self.geometry
    }

    /// The kernel, as the driver compiled it.
    pub fn function(&self) -> &Function {
        &self.function
    }

    fn check_gpu(&self, what: &'static str, gpu: &Gpu) -> Result<(), AttentionError> {
        let plan = self.function.gpu().uuid();
        if gpu.uuid() == plan {
            return Ok(());
        }
        Err(AttentionError::OtherGpu { what, gpu: gpu.uuid().to_owned(), plan: plan.to_owned() })
    }
}

/// How a legal variant is launched.
pub(crate) fn geometry(
    limits: &DeviceLimits,
    problem: &Problem,
    variant: &Variant,
) -> Result<LaunchGeometry, AttentionError> {
    legal(problem, variant, limits).map_err(|reason| AttentionError::Illegal {
        problem: Box::new(*problem),
        variant: Box::new(*variant),
        reason,
    })
}

/// The window over K and V, or over K alone where one window does not reach over both; `None` where nothing is set aside.
fn window([k, v]: [Range<u64>; 2], set_aside: u64, largest: u64) -> Option<L2Window> {
    let both = k.start.min(v.start)..k.end.max(v.end);
    let Range { start, end } = if both.end - both.start <= largest { both } else { k };
    let bytes = (end - start).min(largest);
    // More than is set aside would drive itself out.
    let share = (set_aside as f64 / bytes as f64).min(1.0) as f32;
    (set_aside > 0 && bytes > 0).then_some(L2Window { start, bytes, share })
}

fn check_alignment(tensor: &'static str, address: u64, needed: u64) -> Result<(), AttentionError> {
    if address == 0 || !address.is_multiple_of(needed) {
        return Err(AttentionError::Misaligned { tensor, address, needed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misaligned_addresses_are_named() {
        assert!(check_alignment("Q", 0x7f00_0010, 16).is_ok());
        let error = check_alignment("K", 0x7f00_0008, 16).unwrap_err().to_string();
        assert_eq!(error, "K is at address 0x7f000008; a multiple of 16 is needed, and not 0");
        assert!(check_alignment("O", 0, 16).is_err());
    }

    #[test]
    fn a_window_reaches_over_k_and_v_as_far_as_it_may() {
        let [k, v] = [1000..1400, 500..900];
        let of = |start, bytes, share| Some(L2Window { start, bytes, share });
        assert_eq!(window([k.clone(), v.clone()], 900, 1000), of(500, 900, 1.0));
        assert_eq!(window([k.clone(), v.clone()], 450, 1000), of(500, 900, 0.5));
        assert_eq!(window([k.clone(), v.clone()], 800, 899), of(1000, 400, 1.0));
        assert_eq!(window([k.clone(), v.clone()], 50, 100), of(1000, 100, 0.5));
        assert_eq!(window([k.clone(), v.clone()], 0, 1000), None);
        assert_eq!(window([k, v], 100, 0), None);
    }

    #[test]
    fn lse_is_contiguous_by_heads() {
        let problem = Problem::SEED.with_seqlens(7, 9);
        let Layouts { q, k, lse, .. } = Layouts::of(&problem);
        assert_eq!((q.shape, k.shape, lse.shape), ([1, 7, 8, 64], [1, 9, 8, 64], [1, 7, 8, 1]));
        assert_eq!(lse.strides, Strides { batch: 56, seq: 1, head: 7 });
        assert_eq!(lse.extent().unwrap(), 56);
    }
}

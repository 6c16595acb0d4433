//! The public API: plan once, launch many times.
//!
//! A plan holds a compiled kernel and its launch geometry for one problem on one GPU. A launch only queues the kernel: it
//! allocates nothing, waits for nothing, and needs no toolchain. `docs/guide/` defines what is computed and shows how to launch
//! beside other libraries.

mod append;
mod error;
mod extras;
mod kernels;
mod layouts;
mod merge;
mod window;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use spec::{
    AppendArgs, AttentionArgs, DeviceLimits, Extra, ExtraAddresses, Family, FeatureArgs, Gene, Kernel, LaunchGeometry,
    PlainMap, Problem, TensorMaps, Variant, legal,
};

pub use self::append::Appender;
pub use self::error::AttentionError;
pub use self::extras::Extras;
pub use self::kernels::Kernels;
pub use self::layouts::{Layouts, problem};
pub use self::merge::{Merge, MergeAddresses, MergeLayouts, Merging, Offsets};
use self::window::window;
use crate::dispatch::{self, Choice, Chosen, Dispatch};
use crate::driver::{Argument, DriverError, Function, Gpu, Grid, L2Window, Module, Stream, tensor_map};
use crate::tensor::{Layout, Tensor};

/// Bytes of the widest load a family without a gene for it uses.
const WIDEST_LOAD: u64 = 16;
/// Bytes of the narrowest store of O: its elements are stored in pairs at least.
const NARROWEST_STORE: u64 = 4;

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
    /// For kernels with features.
    features: Option<FeatureArgs>,
    /// What L2 is asked to keep.
    l2_window: Option<L2Window>,
}

/// A plan: how one problem is done on one GPU. Threads may share it; clones share the kernel.
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
    last: Arc<Mutex<Option<Last>>>,
}

/// A launch that was.
#[derive(Debug)]
struct Last {
    addresses: Addresses,
    extras: ExtraAddresses,
    arguments: Arguments,
}

impl Attention {
    /// A plan by the variant that `dispatch` records as the fastest, or by a default; [`Attention::choice`] says which
    /// and why.
    pub fn new<K: Kernels>(
        gpu: &Gpu,
        kernels: &K,
        dispatch: Option<&Dispatch>,
        problem: &Problem,
    ) -> Result<Self, AttentionError> {
        let chosen = dispatch::choose(kernels, gpu.name(), gpu.limits(), dispatch, problem)?;
        Self::from_chosen(gpu, kernels, problem, chosen)
    }

    /// A plan whose variant does not depend on the batch: a row has the same bits in every batch, alone or among others.
    ///
    /// The variant is the one that [`Attention::new`] takes for one batch entry, which may leave a GPU idle or slow where a larger
    /// batch would do better with another. `docs/guide/determinism.md` says what else must be the same.
    ///
    /// # Errors
    ///
    /// Also [`AttentionError::Illegal`] if this variant cannot take the strides between batch entries.
    pub fn batch_invariant<K: Kernels>(
        gpu: &Gpu,
        kernels: &K,
        dispatch: Option<&Dispatch>,
        problem: &Problem,
    ) -> Result<Self, AttentionError> {
        let chosen = dispatch::choose_for_any_batch(kernels, gpu.name(), gpu.limits(), dispatch, problem)?;
        Self::from_chosen(gpu, kernels, problem, chosen)
    }

    /// A plan by the variant that the dispatch records in a file name for this GPU. The file is verified first: records of
    /// another GPU, of code that has changed since, or that cannot be read leave a default, and [`Attention::choice`] says
    /// so. `host verify` checks such a file in depth.
    pub fn by_file<K: Kernels>(
        gpu: &Gpu,
        kernels: &K,
        records: &Path,
        problem: &Problem,
    ) -> Result<Self, AttentionError> {
        let chosen = dispatch::choose_by_file(kernels, gpu.name(), gpu.limits(), records, problem)?;
        Self::from_chosen(gpu, kernels, problem, chosen)
    }

    /// A plan by this variant, whose PTX comes from `kernels`; a library may compile it first.
    pub fn with_variant<K: Kernels>(
        gpu: &Gpu,
        kernels: &K,
        problem: &Problem,
        variant: &Variant,
    ) -> Result<Self, AttentionError> {
        // Before anything is compiled.
        check_problem(gpu.limits(), problem)?;
        geometry(gpu.limits(), problem, variant)?;
        let artifact = kernels.find(&variant.kernel(problem), gpu.limits().sm)?;
        Self::from_ptx(gpu, &kernels.ptx(&artifact)?, problem, variant)
    }

    fn from_chosen<K: Kernels>(
        gpu: &Gpu,
        kernels: &K,
        problem: &Problem,
        Chosen { variant, artifact, choice }: Chosen<K::Artifact>,
    ) -> Result<Self, AttentionError> {
        let plan = Self::from_ptx(gpu, &kernels.ptx(&artifact)?, problem, &variant)?;
        Ok(Self { choice, ..plan })
    }

    /// A plan by this variant with PTX at hand, as the builder makes it of `variant.kernel(problem)`.
    pub fn from_ptx(gpu: &Gpu, ptx: &str, problem: &Problem, variant: &Variant) -> Result<Self, AttentionError> {
        check_interface(ptx, &variant.kernel(problem))?;
        Self::from_module(&Module::load(gpu, ptx)?, problem, variant)
    }

    /// A plan by this variant with its kernel loaded.
    pub fn from_module(module: &Module, problem: &Problem, variant: &Variant) -> Result<Self, AttentionError> {
        check_problem(module.gpu().limits(), problem)?;
        let geometry = geometry(module.gpu().limits(), problem, variant)?;
        let function = module.function(builder::ptx::ENTRY)?;
        function.allow_shared(geometry.asked_shared_bytes)?;
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

    /// Queues O = attention(Q, K, V), and its LSE if wanted, of a problem whose features need no arrays.
    pub fn launch(
        &self,
        stream: &Stream,
        inputs: [&Tensor; 3],
        o: &mut Tensor,
        lse: Option<&mut Tensor>,
    ) -> Result<(), AttentionError> {
        self.launch_with(stream, inputs, o, lse, &Extras::default())
    }

    /// Like [`Attention::launch`], with what the problem's features read.
    pub fn launch_with(
        &self,
        stream: &Stream,
        [q, k, v]: [&Tensor; 3],
        o: &mut Tensor,
        lse: Option<&mut Tensor>,
        extras: &Extras<'_>,
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
        for extra in Extra::ALL {
            extras.get(extra).map_or(Ok(()), |array| self.check_gpu(extra.name(), array.gpu()))?;
        }
        let extras = extras.addresses(&self.problem)?;
        // SAFETY: all arrays are on this GPU and laid out as the problem says. Freeing one waits for the work queued before.
        unsafe { self.launch_at_with(stream, &addresses, &extras) }
    }

    /// Like [`Attention::launch`], on tensors that something else owns.
    ///
    /// # Safety
    ///
    /// The addresses must be of live tensors on the plan's GPU, laid out as [`Layouts::of`] the problem, until the stream has
    /// been waited for. O and LSE must overlap no other of them.
    pub unsafe fn launch_at(&self, stream: &Stream, addresses: &Addresses) -> Result<(), AttentionError> {
        // SAFETY: the caller's promise.
        unsafe { self.launch_at_with(stream, addresses, &ExtraAddresses::default()) }
    }

    /// Like [`Attention::launch_at`], with what the problem's features read.
    ///
    /// # Safety
    ///
    /// The same of the arrays at `extras`: live, on the plan's GPU, and laid out as [`Extra`] says.
    pub unsafe fn launch_at_with(
        &self,
        stream: &Stream,
        addresses: &Addresses,
        extras: &ExtraAddresses,
    ) -> Result<(), AttentionError> {
        self.check_gpu("the stream", stream.gpu())?;
        // SAFETY: the caller vouches for the tensors.
        unsafe { self.queue(stream, &self.arguments_again(addresses, extras)?) }?;
        Ok(())
    }

    /// The kernel's arguments for tensors at these addresses; a caller that launches often on the same ones can keep them.
    pub fn arguments(&self, addresses: &Addresses) -> Result<Arguments, AttentionError> {
        self.arguments_with(addresses, &ExtraAddresses::default())
    }

    /// Like [`Attention::arguments`], with what the problem's features read.
    pub fn arguments_with(&self, addresses: &Addresses, extras: &ExtraAddresses) -> Result<Arguments, AttentionError> {
        let Addresses { q, k, v, o, lse } = *addresses;
        let element = u64::from(self.problem.dtype.bytes());
        for (tensor, address) in [("Q", q), ("K", k), ("V", v)] {
            check_alignment(tensor, address, self.load_bytes.max(element))?;
        }
        check_alignment("O", o, self.load_bytes.max(NARROWEST_STORE))?;
        if lse != 0 {
            check_alignment("LSE", lse, size_of::<f32>() as u64)?;
        }
        let args = self.geometry.args(&self.problem, [q, k, v, o, lse]);
        let maps = self.tensor_maps([q, k, v])?;
        for extra in Extra::ALL.into_iter().filter(|extra| extra.is_of(&self.problem)) {
            check_alignment(extra.name(), extras.get(extra), extra.element_bytes(&self.problem).into())?;
        }
        let features = FeatureArgs::of(&self.problem, extras);
        Ok(Arguments { args, maps, features, l2_window: self.l2_window(k, v) })
    }

    /// Queues the kernel with arguments from [`Attention::arguments`] in a stream of the plan's GPU.
    ///
    /// # Safety
    ///
    /// As for [`Attention::launch_at`].
    pub unsafe fn queue(&self, stream: &Stream, arguments: &Arguments) -> Result<(), DriverError> {
        let LaunchGeometry { blocks, threads, asked_shared_bytes: shared_bytes, early_launch, .. } = self.geometry;
        let grid =
            Grid { blocks, cluster: 1, threads, shared_bytes, early: early_launch, l2_window: arguments.l2_window };
        let args = Argument::by_value(&arguments.args);
        // SAFETY: every entry point takes `AttentionArgs`; those whose geometry has boxes `TensorMaps` after it, those of
        // problems with features `FeatureArgs`; the caller vouches for the tensors.
        unsafe {
            match (&arguments.maps, &arguments.features) {
                (None, None) => self.function.launch(stream, grid, &[args]),
                (Some(maps), _) => self.function.launch(stream, grid, &[args, Argument::by_value(maps)]),
                (None, Some(features)) => self.function.launch(stream, grid, &[args, Argument::by_value(features)]),
            }
        }
    }

    /// Like [`Attention::arguments`], without work if the addresses are those of the last launch.
    fn arguments_again(&self, addresses: &Addresses, extras: &ExtraAddresses) -> Result<Arguments, AttentionError> {
        // What a thread that panicked left there is whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(last) if last.addresses == *addresses && last.extras == *extras => Ok(last.arguments),
            _ => {
                let arguments = self.arguments_with(addresses, extras)?;
                *last = Some(Last { addresses: *addresses, extras: *extras, arguments });
                Ok(arguments)
            }
        }
    }

    /// What kernels of the copy engine take beside their first argument.
    fn tensor_maps(&self, inputs: [u64; 3]) -> Result<Option<TensorMaps>, DriverError> {
        let Some([q, k, v]) = PlainMap::of(&self.geometry, &self.problem, inputs) else { return Ok(None) };
        let encode = |map| tensor_map::encode(self.function.gpu(), self.problem.dtype, &map);
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

    /// What is launched, how, and why so, in one line.
    pub fn explain(&self) -> Explanation<'_> {
        Explanation(self)
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
        same_gpu(what, gpu, self.function.gpu())
    }
}

/// A plan in one line, for logs: `b1-...: mma:...; a default: ...; 64 blocks of 128 threads, 24576 B of shared memory each`.
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'a>(&'a Attention);

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attention { problem, variant, choice, geometry, .. } = self.0;
        let LaunchGeometry { blocks, threads, shared_bytes, .. } = geometry;
        write!(f, "{problem}: {variant}; {choice}; ")?;
        write!(f, "{blocks} blocks of {threads} threads, {shared_bytes} B of shared memory each")
    }
}

/// That some variant can run the problem on the GPU; the refusal is the problem's own.
pub(crate) fn check_problem(limits: &DeviceLimits, problem: &Problem) -> Result<(), AttentionError> {
    // It fits whatever any variant fits.
    legal(problem, &Variant::smallest(Family::most_portable(problem.dtype)), limits)
        .map_err(|reason| AttentionError::Problem { problem: Box::new(*problem), reason })?;
    Layouts::of(problem).check()
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

/// That a kernel takes what it will be given: a source of kernels may be older or newer than this library.
fn check_interface(ptx: &str, kernel: &Kernel) -> Result<(), AttentionError> {
    let mut expected = vec![];
    match kernel {
        Kernel::Attention(attention) => {
            expected.push(size_of::<AttentionArgs>());
            if kernel.takes_tensor_maps() {
                expected.push(size_of::<TensorMaps>());
            }
            if attention.featured {
                expected.push(size_of::<FeatureArgs>());
            }
        }
        Kernel::Append => expected.push(size_of::<AppendArgs>()),
    }
    let found = builder::ptx::parameter_bytes(ptx);
    if found == expected {
        return Ok(());
    }
    Err(AttentionError::Interface { kernel: Box::new(*kernel), found, expected })
}

/// That something is on the plan's GPU.
fn same_gpu(what: &'static str, gpu: &Gpu, plan: &Gpu) -> Result<(), AttentionError> {
    if gpu.uuid() == plan.uuid() {
        return Ok(());
    }
    Err(AttentionError::OtherGpu { what, gpu: gpu.uuid().to_owned(), plan: plan.uuid().to_owned() })
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
    fn fp8_is_possible_where_its_family_runs() {
        let problem = Problem::new(1, 8, 512, 128, spec::Dtype::E4m3);
        assert!(check_problem(&DeviceLimits::H100, &problem).is_ok());
        assert_eq!(Layouts::of(&problem).o.element, crate::tensor::Element::Bf16);
        let refusal = check_problem(&DeviceLimits::of(spec::Sm::Sm80), &problem).unwrap_err().to_string();
        assert!(refusal.ends_with("family wgmma does not run on sm_80"), "{refusal}");
    }

    #[test]
    fn a_kernel_of_other_sources_is_not_launched() {
        let variant = Variant::smallest(Family::Tiled);
        let ptx = ".visible .entry attention(\n.param .align 8 .b8 attention_param_0[8]\n)\n{\n}";
        let error = check_interface(ptx, &variant.kernel(&Problem::SEED)).unwrap_err().to_string();
        assert!(error.contains("takes arguments of [8] B, this library passes ["), "{error}");
    }

    #[test]
    fn what_a_caller_keeps_may_move_between_threads() {
        const fn send<T: Send>() {}
        const fn send_and_sync<T: Send + Sync>() {}
        send_and_sync::<(Gpu, Module, Function, Stream, Tensor)>();
        send_and_sync::<(Appender, Attention, Arguments, Addresses, Merge, MergeAddresses, AttentionError)>();
        send::<crate::driver::Graph>();
    }
}

//! Appending to a K/V cache: plan once, launch many times, like attention over it.

use spec::{APPEND_ALIGNMENT, APPEND_THREADS, Append, AppendAddresses, AppendArgs, Extra, Kernel};

use super::{AttentionError, Extras, Kernels, check_alignment, check_interface, same_gpu};
use crate::driver::{Argument, Buffer, DriverError, Function, Gpu, Grid, Module, Stream};
use crate::tensor::{Element, Layout, Tensor};

/// Names of the tensors, in the order of [`Append::shapes`].
const TENSORS: [&str; 4] = ["the new K", "the new V", "the cache's K", "the cache's V"];
/// Name of the array of raised lengths.
const RAISED: &str = "the raised numbers of keys";

/// A plan for appending new keys to one cache on one GPU. Threads may share it; clones share the kernel.
///
/// A launch only queues the kernel: it allocates nothing, waits for nothing, and has what lengths are used read on the GPU, so that
/// it can be part of a CUDA graph.
#[derive(Clone, Debug)]
pub struct Appender {
    append: Append,
    blocks: u32,
    layouts: [Layout; 4],
    function: Function,
}

impl Appender {
    /// A plan with the kernel from `kernels`.
    ///
    /// # Errors
    ///
    /// What is asked is impossible, rows of the cache overlap, or the kernel cannot be had.
    pub fn new<K: Kernels>(gpu: &Gpu, kernels: &K, append: &Append) -> Result<Self, AttentionError> {
        // Before anything is compiled.
        check(append)?;
        let artifact = kernels.find(&Kernel::Append, gpu.limits().sm)?;
        Self::from_ptx(gpu, &kernels.ptx(&artifact)?, append)
    }

    /// A plan with PTX at hand, as the builder makes it of [`Kernel::Append`].
    pub fn from_ptx(gpu: &Gpu, ptx: &str, append: &Append) -> Result<Self, AttentionError> {
        let (blocks, layouts) = check(append)?;
        check_interface(ptx, &Kernel::Append)?;
        let function = Module::load(gpu, ptx)?.function(builder::ptx::ENTRY)?;
        Ok(Self { append: *append, blocks, layouts, function })
    }

    /// Queues writing the rows of `new` (K and V) to `cache` (K and V), behind the keys in use that `extras` names; where the cache
    /// is in pages, also the table.
    ///
    /// `raised`, `[batch]` in `u32`, gets the numbers of keys that the cache then holds, for attention over all of them. The array
    /// that was read stays as it is.
    pub fn launch(
        &self,
        stream: &Stream,
        new: [&Tensor; 2],
        cache: [&mut Tensor; 2],
        extras: &Extras<'_>,
        raised: Option<&mut Buffer>,
    ) -> Result<(), AttentionError> {
        let ([new_k, new_v], [k, v]) = (new, cache);
        let tensors = [new_k, new_v, &*k, &*v];
        for ((tensor, given), expected) in TENSORS.into_iter().zip(tensors).zip(self.layouts) {
            if *given.layout() != expected {
                return Err(AttentionError::Layout { tensor, found: *given.layout(), expected });
            }
            self.check_gpu(tensor, given.gpu())?;
        }
        for extra in Extra::ALL {
            extras.get(extra).map_or(Ok(()), |array| self.check_gpu(extra.name(), array.gpu()))?;
        }
        let extras = extras.addresses(self.append.cache())?;
        if let Some(raised) = &raised {
            self.check_gpu(RAISED, raised.gpu())?;
            let (found, needed) = (raised.bytes() as u64, self.length_bytes());
            if found < needed {
                return Err(AttentionError::Short { what: RAISED, found, needed });
            }
        }
        let addresses = AppendAddresses {
            new_k: new_k.address(),
            new_v: new_v.address(),
            k: k.address(),
            v: v.address(),
            used: extras.get(Extra::UsedKv),
            pages: extras.get(Extra::Pages),
            raised: raised.map_or(0, |raised| raised.address()),
        };
        // SAFETY: all are on this GPU and laid out as the plan says, and those that are written are borrowed for that alone.
        // Freeing one waits for the work queued before.
        unsafe { self.launch_at(stream, &addresses) }
    }

    /// Like [`Appender::launch`], on memory that something else owns.
    ///
    /// # Safety
    ///
    /// The addresses must be of live tensors and arrays on the plan's GPU, laid out as [`Appender::layouts`] and
    /// [`AppendAddresses`] say, until the stream has been waited for. Cache and raised lengths must overlap no other of them, and
    /// no two batch entries may have the same page where new keys go.
    pub unsafe fn launch_at(&self, stream: &Stream, addresses: &AppendAddresses) -> Result<(), AttentionError> {
        self.check_gpu("the stream", stream.gpu())?;
        let args = self.arguments(addresses)?;
        // SAFETY: the caller's promise.
        unsafe { self.queue(stream, &args) }?;
        Ok(())
    }

    /// The kernel's argument for these addresses; a caller that launches often on the same ones can keep it.
    pub fn arguments(&self, addresses: &AppendAddresses) -> Result<AppendArgs, AttentionError> {
        let AppendAddresses { new_k, new_v, k, v, used, pages, raised } = *addresses;
        let cache = self.append.cache();
        for (tensor, address) in TENSORS.into_iter().zip([new_k, new_v, k, v]) {
            check_alignment(tensor, address, cache.dtype.bytes().max(APPEND_ALIGNMENT).into())?;
        }
        for (extra, address) in [(Extra::UsedKv, used), (Extra::Pages, pages)] {
            if extra.is_of(cache) {
                check_alignment(extra.name(), address, extra.element_bytes(cache).into())?;
            } else if address != 0 {
                return Err(AttentionError::Unasked { what: extra.name(), problem: Box::new(*cache) });
            }
        }
        if raised != 0 {
            check_alignment(RAISED, raised, size_of::<u32>() as u64)?;
            let bytes = self.length_bytes();
            let array = |start: u64| start..start.saturating_add(bytes);
            if array(used).contains(&raised) || array(raised).contains(&used) {
                return Err(AttentionError::InPlace { what: RAISED, other: Extra::UsedKv.name() });
            }
        }
        Ok(self.append.args(addresses))
    }

    /// Queues the kernel with an argument from [`Appender::arguments`] in a stream of the plan's GPU.
    ///
    /// # Safety
    ///
    /// As for [`Appender::launch_at`].
    pub unsafe fn queue(&self, stream: &Stream, args: &AppendArgs) -> Result<(), DriverError> {
        let grid = Grid {
            blocks: self.blocks,
            cluster: 1,
            threads: APPEND_THREADS,
            shared_bytes: 0,
            early: false,
            l2_window: None,
        };
        // SAFETY: the entry point takes `AppendArgs`; the caller vouches for the memory.
        unsafe { self.function.launch(stream, grid, &[Argument::by_value(args)]) }
    }

    /// What is appended to what.
    pub fn append(&self) -> &Append {
        &self.append
    }

    /// Layouts of the new K and V, and of those of the cache.
    pub fn layouts(&self) -> &[Layout; 4] {
        &self.layouts
    }

    /// Bytes of an array with a number of keys for each batch entry.
    fn length_bytes(&self) -> u64 {
        u64::from(self.append.cache().batch) * size_of::<u32>() as u64
    }

    fn check_gpu(&self, what: &'static str, gpu: &Gpu) -> Result<(), AttentionError> {
        same_gpu(what, gpu, self.function.gpu())
    }
}

/// Blocks and layouts of what can be appended.
fn check(append: &Append) -> Result<(u32, [Layout; 4]), AttentionError> {
    let blocks = append.blocks().map_err(|reason| AttentionError::Append { append: Box::new(*append), reason })?;
    let element = Element::from(append.cache().dtype);
    let mut layouts = append.shapes().map(|shape| Layout::bshd(shape, element));
    for ((layout, strides), tensor) in layouts.iter_mut().zip(append.strides()).zip(TENSORS) {
        layout.strides = strides;
        layout.extent().map_err(|_| AttentionError::Strides { tensor, layout: *layout })?;
    }
    let [.., k, v] = layouts;
    for (tensor, layout) in [(TENSORS[2], k), (TENSORS[3], v)] {
        if layout.overlaps() {
            return Err(AttentionError::Overlap { tensor, layout });
        }
    }
    Ok((blocks, layouts))
}

//! The text of a batch: one generated crate that stamps an entry point per kernel.

use std::fmt::Write;
use std::path::Path;

use spec::{AttentionKernel, Family, Kernel};

use crate::Fixture;

/// Kernels of one generated crate at most: enough to share the cost of starting the compiler, few enough to lose
/// little when one of them does not compile.
pub(crate) const LARGEST: usize = 50;

/// For the catalog kernels are shared out by their list alone, not by how many processors there are, so that its batches
/// can be compiled again anywhere.
pub(crate) const CATALOG_PARALLELISM: usize = 1;

/// What the entry macro expands to needs these; they are no concern of the host's compiler.
const GPU_FEATURES: &str = "abi_ptx, abi_unadjusted, asm_experimental_arch, core_intrinsics, link_llvm_intrinsics, \
                            stdarch_nvptx";

/// Whether a kernel is shared out with those that decode.
pub(crate) fn decodes(kernel: &Kernel) -> bool {
    kernel.family() == Some(Family::Decode)
}

/// A generated crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) kernels: Vec<Kernel>,
    /// Feature of the kernels crate to switch on.
    pub(crate) feature: Option<&'static str>,
    /// What stands in for the kernels.
    pub(crate) fixture: Option<Fixture>,
}

impl Batch {
    /// Shares out the attention kernels evenly, into at least `parallel` batches unless they would be very small.
    ///
    /// What stands beside a kernel can change its PTX, on which records rest: those that decode, and what is no attention kernel, came later,
    /// and have batches of their own.
    pub(crate) fn share_out(kernels: &[Kernel], parallel: usize) -> Vec<Self> {
        let (decoding, kernels): (Vec<Kernel>, Vec<Kernel>) = kernels.iter().partition(|kernel| decodes(kernel));
        let (kernels, others): (Vec<_>, Vec<_>) = kernels.into_iter().partition(|kernel| kernel.attention().is_some());
        let shared_out = |kernels: Vec<Kernel>| {
            let size = kernels.len().div_ceil(parallel.max(1)).clamp(4, LARGEST);
            let batches = kernels.len().div_ceil(size).max(1);
            let size = kernels.len().div_ceil(batches).max(1);
            kernels.chunks(size).map(Self::of).collect::<Vec<_>>()
        };
        [shared_out(kernels), shared_out(decoding), others.chunks(1).map(Self::of).collect()].concat()
    }

    /// A batch of these kernels.
    pub(crate) fn of(kernels: &[Kernel]) -> Self {
        Self { kernels: kernels.to_vec(), feature: None, fixture: None }
    }

    /// No kernels but what a feature of the kernels crate exports.
    pub(crate) const fn of_feature(feature: &'static str) -> Self {
        Self { kernels: Vec::new(), feature: Some(feature), fixture: None }
    }

    /// A fixture in the place of its kernel.
    pub(crate) fn of_fixture(fixture: Fixture) -> Self {
        Self { kernels: vec![fixture.kernel()], feature: Some("fixtures"), fixture: Some(fixture) }
    }

    /// Both halves of a batch of several kernels.
    pub(crate) fn halves(&self) -> [Self; 2] {
        let (left, right) = self.kernels.split_at(self.kernels.len() / 2);
        [Self::of(left), Self::of(right)]
    }

    /// The crate's manifest.
    pub(crate) fn manifest(&self, name: &str, kernels: &Path) -> String {
        let feature = self.feature.map_or(String::new(), |feature| format!(", features = [\"{feature}\"]"));
        format!(
            "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\n\
             [dependencies]\nkernels = {{ path = {:?}{feature} }}\n",
            kernels.display().to_string()
        )
    }

    /// The crate's only source file.
    pub(crate) fn source(&self) -> String {
        let mut text = format!(
            "#![cfg_attr(target_arch = \"nvptx64\", no_std, feature({GPU_FEATURES}), allow(internal_features))]\n\
             extern crate kernels;\n"
        );
        let fixture = self.fixture.map_or(String::new(), |fixture| format!("fixture: {fixture}, "));
        for kernel in &self.kernels {
            let symbol = kernel.symbol();
            let Kernel::Attention(kernel) = kernel else {
                let _ = writeln!(text, "kernels::entry! {{ append, symbol: {symbol} }}");
                continue;
            };
            let AttentionKernel { dtype, head_dim_qk, head_dim_v, featured, .. } = kernel;
            let features = if *featured { "Featured" } else { "Plain" };
            let _ = write!(
                text,
                "kernels::entry! {{ {fixture}features: {features}, family: {}, symbol: {symbol}, dtype: {dtype:?}, head_dim_qk: {head_dim_qk}, head_dim_v: {head_dim_v}",
                kernel.family()
            );
            for (gene, value) in kernel.genes() {
                let _ = write!(text, ", {}: {value}", gene.name());
            }
            text += " }\n";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use spec::{Problem, Variant};

    use super::*;

    fn kernel(family: Family) -> Kernel {
        Variant::smallest(family).kernel(&Problem::SEED)
    }

    #[test]
    fn an_entry_names_every_code_gene_in_order() {
        let source = Batch::of(&[kernel(Family::Tiled)]).source();
        let line = source.lines().last().unwrap();
        assert_eq!(
            line,
            "kernels::entry! { features: Plain, family: tiled, symbol: tiled_f16_64x64_tile_q16_tile_kv16_warps2_row_lanes4_load_bytes2\
             _shared_pad0_exp_poly0_blocks_per_sm1, dtype: F16, head_dim_qk: 64, head_dim_v: 64, tile_q: 16, \
             tile_kv: 16, warps: 2, row_lanes: 4, load_bytes: 2, shared_pad: 0, exp_poly: 0, blocks_per_sm: 1 }"
        );
    }

    #[test]
    fn what_appends_has_no_genes() {
        let source = Batch::of(&[Kernel::Append]).source();
        assert_eq!(source.lines().last(), Some("kernels::entry! { append, symbol: append }"));
    }

    #[test]
    fn a_fixture_is_stamped_in_the_place_of_its_kernel() {
        let kernel = Fixture::Spin.kernel();
        let real = Batch::of(&[kernel]).source();
        let fixture = Batch::of_fixture(Fixture::Spin);
        assert_eq!(fixture.source(), real.replace("features: Plain", "fixture: spin, features: Plain"));
        assert!(fixture.manifest("batch_0", Path::new("kernels")).contains("features = [\"fixtures\"]"));
    }

    #[test]
    fn kernels_are_shared_out_evenly() {
        let sizes = |kernels, parallel| -> Vec<usize> {
            let kernels = vec![kernel(Family::Mma); kernels];
            Batch::share_out(&kernels, parallel).iter().map(|batch| batch.kernels.len()).collect()
        };
        assert_eq!(sizes(120, 2), [40, 40, 40]);
        assert_eq!(sizes(45, 4), [12, 12, 12, 9]);
        assert_eq!(sizes(5, 16), [3, 2]);
        assert_eq!(sizes(1, 16), [1]);
        assert_eq!(sizes(0, 16), [0; 0]);
        let attention = vec![kernel(Family::Mma); 9];
        let decoding = [kernel(Family::Decode)];
        let with_later = [&attention[..4], &decoding, &attention[4..], &[Kernel::Append]].concat();
        let later = [Batch::of(&decoding), Batch::of(&[Kernel::Append])];
        let expected = [Batch::share_out(&attention, 2), later.to_vec()].concat();
        assert_eq!(Batch::share_out(&with_later, 2), expected, "the others stay together as they were");
    }
}

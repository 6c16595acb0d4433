//! A kernel ready to run a problem on the CPU machine.

use std::time::Instant;

use simt::{Blocks, Buffer, CallError, Class, Entry, Launch, Stats, address_of};
use spec::{
    AttentionArgs, BlockWalk, ExtraAddresses, FeatureArgs, Gene, GroupDivisors, Kernel, LaunchGeometry, MatrixStrides,
    PlainMap, Problem, Strides, TensorMaps, Variant,
};

use super::blocks;
use crate::cases::Tensors;
use crate::device::Failure;
use crate::oracle::{Outputs, Row};

/// A kernel, its launch, and what it is launched for.
pub(super) struct Prepared {
    problem: Problem,
    geometry: LaunchGeometry,
    tile_q: u32,
    cluster: u32,
    symbol: String,
    entry: Entry,
}

impl Prepared {
    pub(super) fn new(
        problem: Problem,
        variant: Variant,
        geometry: LaunchGeometry,
        kernel: Kernel,
        entry: Entry,
    ) -> Self {
        let tile_q = variant.get(Gene::TileQ).map_or(1, u32::from);
        let cluster = kernel.launch_bounds().cluster;
        Self { problem, geometry, tile_q, cluster, symbol: kernel.symbol().to_string(), entry }
    }

    /// Multiply-adds of one cluster at most.
    pub(super) fn work_per_cluster(&self) -> u64 {
        let dims = u64::from(self.problem.head_dim_qk) + u64::from(self.problem.head_dim_v);
        u64::from(self.tile_q) * u64::from(self.problem.seqlen_kv) * dims
    }

    /// All clusters (blocks, where there are none) if there are no more than `count`, else a seeded sample of so many, but
    /// at least one.
    pub(super) fn sample(&self, count: u64, seed: u64) -> Vec<u32> {
        blocks::sample(self.clusters(), count, seed)
    }

    /// The rows that these clusters write, in order.
    pub(super) fn rows(&self, tensors: &Tensors, clusters: &[u32]) -> Vec<Row> {
        blocks::rows(&self.problem, &tensors.extras, &self.geometry, self.tile_q, clusters)
    }

    fn clusters(&self) -> u32 {
        self.geometry.blocks / self.cluster
    }

    /// Runs these clusters over unwritten outputs, under a seeded schedule.
    pub(super) fn launch(&self, tensors: &Tensors, clusters: &[u32], seed: u64) -> Result<(Outputs, Stats), Failure> {
        self.launch_over(Outputs::unwritten(&self.problem)?, tensors, clusters, seed)
    }

    /// Runs these clusters over outputs that hold something already.
    pub(super) fn launch_over(
        &self,
        mut outputs: Outputs,
        tensors: &Tensors,
        clusters: &[u32],
        seed: u64,
    ) -> Result<(Outputs, Stats), Failure> {
        outputs.partial = clusters.len() < self.clusters() as usize;
        let mut buffers = vec![
            Buffer::read("Q", bytemuck::cast_slice(tensors.q.storage.inner())),
            Buffer::read("K", bytemuck::cast_slice(tensors.k.storage.inner())),
            Buffer::read("V", bytemuck::cast_slice(tensors.v.storage.inner())),
            Buffer::write("O", bytemuck::cast_slice_mut(outputs.o.storage.inner_mut())),
            Buffer::write("LSE", bytemuck::cast_slice_mut(outputs.lse.inner_mut())),
        ];
        let mut extras = ExtraAddresses::default();
        for (extra, array) in tensors.extras.all() {
            extras.0[extra as usize] = address_of(buffers.len()) + array.lead as u64;
            buffers.push(Buffer::read(extra.name(), array.memory.inner()));
        }
        let launch = Launch {
            cluster: self.cluster,
            shared_bytes: self.geometry.shared_bytes,
            blocks: Blocks::Only(clusters),
            seed,
            // Far more than one operation per multiply-add, and something for what every cluster does.
            budget: (self.work_per_cluster() * 16 + 100_000_000) * clusters.len() as u64,
            ..Launch::new(&self.symbol, self.geometry.blocks, self.geometry.threads)
        };
        let first = |buffer, lead: usize| address_of(buffer) + (lead * size_of::<u16>()) as u64;
        let inputs = [first(0, tensors.q.lead), first(1, tensors.k.lead), first(2, tensors.v.lead)];
        let [q, k, v] = inputs;
        let mut arguments = bytes_of(&self.geometry.args(&self.problem, [q, k, v, address_of(3), address_of(4)]));
        if let Some(maps) = PlainMap::of(&self.geometry, &self.problem, inputs) {
            let TensorMaps(maps) = TensorMaps::plain(maps);
            maps.as_flattened().iter().for_each(|word| arguments.extend(word.to_ne_bytes()));
        }
        if let Some(features) = FeatureArgs::of(&self.problem, &extras) {
            arguments.extend(feature_bytes(&features));
        }
        let begun = Instant::now();
        let stats = self.entry.call(&launch, &mut buffers, &arguments).map_err(|error| failure(error, begun))?;
        Ok((outputs, stats))
    }
}

fn failure(error: CallError, begun: Instant) -> Failure {
    match error {
        CallError::Fault { class: Class::Launch, message } => Failure::Launch(message),
        CallError::Fault { class: Class::Hang, .. } => Failure::Hang { seconds: begun.elapsed().as_secs_f64() },
        CallError::Fault { message, .. } => Failure::Fault(message),
        CallError::Version { .. } | CallError::Status(_) => Failure::Launch(error.to_string()),
    }
}

/// The bytes of the kernels' first argument, with zeros in the padding at its end.
fn bytes_of(args: &AttentionArgs) -> Vec<u8> {
    // Without `..`, so that a new field cannot be forgotten. The order is that of the declaration.
    let AttentionArgs {
        q,
        k,
        v,
        o,
        lse,
        q_strides,
        k_strides,
        v_strides,
        o_strides,
        heads_q,
        heads_per_kv,
        groups: GroupDivisors { tiles, heads: group, heads_of_last, last },
        seqlen_q,
        seqlen_kv,
        tiles_q,
        tiles_total,
        diagonal,
        walk: BlockWalk { heads: group_heads, tiles: order },
        scale_log2,
    } = *args;
    let mut bytes = vec![];
    [q, k, v, o, lse].iter().for_each(|address| bytes.extend(address.to_ne_bytes()));
    for Strides { batch, seq, head } in [q_strides, k_strides, v_strides, o_strides] {
        [batch, seq, head].iter().for_each(|stride| bytes.extend(stride.to_ne_bytes()));
    }
    let divisors = [heads_q, heads_per_kv, tiles, group, heads_of_last];
    divisors.iter().flat_map(|divisor| divisor.to_words()).for_each(|word| bytes.extend(word.to_ne_bytes()));
    let counts = [last, seqlen_q, seqlen_kv, tiles_q, tiles_total];
    counts.iter().for_each(|count| bytes.extend(count.to_ne_bytes()));
    bytes.extend(diagonal.to_ne_bytes());
    [group_heads, order].iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    bytes.extend(scale_log2.to_ne_bytes());
    bytes.resize(size_of::<AttentionArgs>(), 0);
    bytes
}

/// The bytes of the second argument of kernels with features.
fn feature_bytes(args: &FeatureArgs) -> Vec<u8> {
    let FeatureArgs {
        extras: ExtraAddresses(extras),
        bias,
        mask,
        page_k,
        page_v,
        left,
        right,
        bottom_right,
        wide_bias,
        scale,
        softcap,
        packed_q,
        page_size,
        page_columns,
        rest,
    } = *args;
    let mut bytes = vec![];
    extras.iter().for_each(|address| bytes.extend(address.to_ne_bytes()));
    for MatrixStrides { batch, head, row } in [bias, mask] {
        [batch, head, row].iter().for_each(|stride| bytes.extend(stride.to_ne_bytes()));
    }
    [page_k, page_v].iter().for_each(|stride| bytes.extend(stride.to_ne_bytes()));
    [left, right].iter().for_each(|keys| bytes.extend(keys.to_ne_bytes()));
    [bottom_right, wide_bias].iter().for_each(|flag| bytes.extend(flag.to_ne_bytes()));
    [scale, softcap].iter().for_each(|factor| bytes.extend(factor.to_ne_bytes()));
    [packed_q, page_size, page_columns, rest].iter().for_each(|count| bytes.extend(count.to_ne_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use spec::{Bias, BlockOrder, Features, Pages, Window};

    use super::*;

    #[test]
    fn bytes_are_those_of_the_argument() {
        let geometry = LaunchGeometry {
            blocks: 1,
            threads: 32,
            shared_bytes: 0,
            asked_shared_bytes: 0,
            tiles_q: 5,
            packs_heads: false,
            walk: BlockOrder::LongestFirst.walk(8, 8),
            early_launch: false,
            l2_window: false,
            boxes: None,
        };
        let problem = Problem::SEED.with_heads_kv(2).with_seqlens(3, 1000).in_bhsd();
        let args = geometry.args(&problem, [1, 2, 3, 4, 5]);
        let bytes = bytes_of(&args);
        assert_eq!(bytes.len(), size_of::<AttentionArgs>());
        // SAFETY: as many bytes as the type has, and any bytes make its numbers.
        let back = unsafe { bytes.as_ptr().cast::<AttentionArgs>().read_unaligned() };
        assert_eq!(back, args);
        let strides = |row| MatrixStrides { batch: 8, head: 9, row };
        let features = Features {
            window: Window { left: Some(7), right: None },
            softcap: Some(30.0),
            bias: Some(Bias { wide: true, strides: strides(10) }),
            mask: Some(strides(11)),
            packed_q: Some(3),
            pages: Some(Pages { count: 5, size: 256, columns: 4 }),
            ..Features::NONE
        };
        let extras = ExtraAddresses([1, 2, 3, 4, 5, 6, 7, 8]);
        let args = FeatureArgs::of(&Problem { features, ..problem }, &extras).unwrap();
        let bytes = feature_bytes(&args);
        assert_eq!(bytes.len(), size_of::<FeatureArgs>());
        // SAFETY: as above.
        let back = unsafe { bytes.as_ptr().cast::<FeatureArgs>().read_unaligned() };
        assert_eq!(back, args);
    }
}

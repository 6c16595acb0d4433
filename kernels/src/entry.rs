//! Stamping entry points.

/// Exports an entry point for one variant: its [features](crate::attention::Features) by the name of their type, family,
/// symbol, dtype, head_dims, then the family's code genes by name.
///
/// On the GPU it is a kernel that takes [`AttentionArgs`](crate::AttentionArgs) by value, and what else it needs; for the
/// CPU machine it is a function that runs a launch of it. The crate that stamps it must enable `abi_ptx` for `nvptx64`.
///
/// `append, symbol: name` exports the kernel that [appends](crate::append) to a cache, which takes
/// [`AppendArgs`](crate::AppendArgs).
///
/// With `fixture: name` before the rest, that function of `fixtures` (a feature of this crate) stands in for the kernel.
#[macro_export]
macro_rules! entry {
    (append, symbol: $symbol:ident $(,)?) => {
        const _: () = {
            /// # Safety
            ///
            /// The arguments must describe live memory.
            #[cfg(target_arch = "nvptx64")]
            #[unsafe(no_mangle)]
            pub unsafe extern "ptx-kernel" fn $symbol(args: $crate::AppendArgs) {
                $crate::append::append(&args);
            }

            $crate::export_to_host!($symbol, |args: $crate::AppendArgs| $crate::append::append(&args));
        };
    };
    ($(fixture: $fixture:ident,)? features: $features:ident, family: tiled, symbol: $symbol:ident, dtype: $dtype:ident, head_dim_qk: $qk:literal, head_dim_v: $v:literal,
     tile_q: $tile_q:literal, tile_kv: $tile_kv:literal, warps: $warps:literal, row_lanes: $row_lanes:literal,
     load_bytes: $load_bytes:literal, shared_pad: $shared_pad:literal, exp_poly: $exp_poly:literal,
     blocks_per_sm: $blocks_per_sm:literal $(,)?) => {
        const _: () = {
            enum Genes {}
            impl $crate::family::tiled::Genes for Genes {
                type Features = $crate::attention::$features;
                const HEAD_DIM_QK: u32 = $qk;
                const HEAD_DIM_V: u32 = $v;
                const TILE_Q: u32 = $tile_q;
                const TILE_KV: u32 = $tile_kv;
                const WARPS: u32 = $warps;
                const ROW_LANES: u32 = $row_lanes;
                const LOAD_BYTES: u32 = $load_bytes;
                const SHARED_PAD: u32 = $shared_pad;
                const EXP_POLY: u32 = $exp_poly;
                const ELEMENT_BYTES: u32 = <$crate::gpu::$dtype as $crate::gpu::Element>::BYTES;
            }
            #[inline(always)]
            fn kernel(
                args: &$crate::AttentionArgs,
                more: &<$crate::attention::$features as $crate::attention::Features>::Args,
            ) {
                $crate::family::tiled::attention::<
                    $crate::gpu::$dtype,
                    Genes,
                    { $tile_q * $row_lanes / (32 * $warps) },
                    { $tile_kv / $row_lanes },
                    { ($v as usize).div_ceil(2 * $row_lanes) },
                >(args, more);
            }
            $crate::export!($features, $symbol, |args, more| $crate::run!(
                $($fixture of Genes in $crate::gpu::$dtype,)? kernel, args, more
            ));
        };
    };
    (features: $features:ident, family: mma, symbol: $symbol:ident, dtype: $dtype:ident, head_dim_qk: $qk:literal, head_dim_v: $v:literal,
     tile_q: $tile_q:literal, tile_kv: $tile_kv:literal, warps: $warps:literal, kv_split: $kv_split:literal,
     stages: $stages:literal, q_in_registers: $q_in_registers:literal, shared_pad: $shared_pad:literal,
     exp_poly: $exp_poly:literal, lazy_rescale: $lazy_rescale:literal, blocks_per_sm: $blocks_per_sm:literal,
     cache_hint: $cache_hint:literal, copy_engine: $copy_engine:tt, early_launch: $early_launch:literal $(,)?) => {
        const _: () = {
            enum Genes {}
            impl $crate::family::mma::Genes for Genes {
                type Features = $crate::attention::$features;
                const HEAD_DIM_QK: u32 = $qk;
                const HEAD_DIM_V: u32 = $v;
                const TILE_Q: u32 = $tile_q;
                const TILE_KV: u32 = $tile_kv;
                const WARPS: u32 = $warps;
                const KV_SPLIT: u32 = $kv_split;
                const STAGES: u32 = $stages;
                const Q_IN_REGISTERS: bool = $q_in_registers == 1;
                const SHARED_PAD: u32 = $shared_pad;
                const EXP_POLY: u32 = $exp_poly;
                const LAZY_RESCALE: bool = $lazy_rescale == 1;
                const CACHE_HINT: $crate::gpu::CacheHint = $crate::gpu::CacheHint::from_gene($cache_hint);
                const COPY_ENGINE: bool = $copy_engine == 1;
                const EARLY_LAUNCH: bool = $early_launch == 1;
            }
            $crate::export!(copy_engine: $copy_engine, $features, $symbol, |args, more, maps| $crate::family::mma::attention::<
                $crate::gpu::$dtype,
                Genes,
                { $tile_q * $kv_split / ($warps * 16) },
                { ($qk as usize).div_ceil(16) },
                { $tile_kv / 8 },
                { ($v as usize).div_ceil(16) * 2 },
            >(args, more, maps));
        };
    };
    (features: Plain, family: decode, symbol: $symbol:ident, dtype: $dtype:ident, head_dim_qk: $qk:literal, head_dim_v: $v:literal,
     tile_q: $tile_q:literal, tile_kv: $tile_kv:literal, warps: $warps:literal, cluster: $cluster:literal,
     stages: $stages:literal, q_in_registers: $q_in_registers:literal, blocks_per_sm: $blocks_per_sm:literal,
     copy_engine: $copy_engine:tt, early_launch: $early_launch:literal $(,)?) => {
        const _: () = {
            enum Genes {}
            impl $crate::family::mma::Genes for Genes {
                type Features = $crate::attention::Plain;
                const HEAD_DIM_QK: u32 = $qk;
                const HEAD_DIM_V: u32 = $v;
                const TILE_Q: u32 = $tile_q;
                const TILE_KV: u32 = $tile_kv;
                const WARPS: u32 = $warps;
                const KV_SPLIT: u32 = $warps;
                const SHARES: u32 = $warps * $cluster;
                const STAGES: u32 = $stages;
                const Q_IN_REGISTERS: bool = $q_in_registers == 1;
                const SHARED_PAD: u32 = $crate::spec::layout::DecodeLayout::pad($qk, $v);
                const EXP_POLY: u32 = 0;
                const LAZY_RESCALE: bool = false;
                const CACHE_HINT: $crate::gpu::CacheHint = $crate::gpu::CacheHint::None;
                const COPY_ENGINE: bool = $copy_engine == 1;
                const EARLY_LAUNCH: bool = $early_launch == 1;
            }
            impl $crate::family::decode::Genes for Genes {
                const CLUSTER: u32 = $cluster;
            }
            $crate::export!(copy_engine: $copy_engine, Plain, $symbol, |args, more, maps| {
                let () = more;
                $crate::family::decode::attention::<
                    $crate::gpu::$dtype,
                    Genes,
                    { $tile_q / 16 },
                    { ($qk as usize).div_ceil(16) },
                    { $tile_kv / 8 },
                    { ($v as usize).div_ceil(16) * 2 },
                >(args, maps)
            });
        };
    };
    (features: Plain, family: wgmma, symbol: $symbol:ident, dtype: $dtype:ident, head_dim_qk: $qk:literal, head_dim_v: $v:literal,
     tile_q: $tile_q:literal, tile_kv: $tile_kv:literal, kv_split: 1, cluster: 1, stages: $stages:literal,
     exp_poly: $exp_poly:literal, overlap: $overlap:literal, ping_pong: $ping_pong:literal,
     lazy_rescale: $lazy_rescale:literal, persistent: $persistent:literal, early_launch: $early_launch:literal $(,)?) => {
        const _: () = {
            enum Genes {}
            impl $crate::family::wgmma::Genes for Genes {
                const ELEMENT_BYTES: u32 = <$crate::gpu::$dtype as $crate::gpu::Factor>::BYTES;
                const HEAD_DIM_QK: u32 = $qk;
                const HEAD_DIM_V: u32 = $v;
                const TILE_Q: u32 = $tile_q;
                const TILE_KV: u32 = $tile_kv;
                const STAGES: u32 = $stages;
                const EXP_POLY: u32 = $exp_poly;
                const OVERLAP: bool = $overlap == 1;
                const PING_PONG: bool = $ping_pong == 1;
                const RESCALE: $crate::attention::Rescale = $crate::attention::Rescale::from_gene($lazy_rescale);
                const PERSISTENT: bool = $persistent == 1;
                const EARLY_LAUNCH: bool = $early_launch == 1;
            }
            $crate::export!(Mapped, $symbol, |args, maps| $crate::family::wgmma::attention::<
                $crate::gpu::$dtype,
                Genes,
                { $tile_kv / 8 },
                { $tile_kv * <$crate::gpu::$dtype as $crate::gpu::Factor>::BYTES as usize / 32 },
                { $v / 8 },
            >(args, maps));
        };
    };
    (features: Plain, family: wgmma, symbol: $symbol:ident, dtype: $dtype:ident, head_dim_qk: $qk:literal, head_dim_v: $v:literal,
     tile_q: $tile_q:literal, tile_kv: $tile_kv:literal, kv_split: $kv_split:literal, cluster: $cluster:literal,
     stages: $stages:literal, exp_poly: $exp_poly:literal, overlap: 0, ping_pong: 0,
     lazy_rescale: $lazy_rescale:literal, persistent: 0, early_launch: $early_launch:literal $(,)?) => {
        const _: () = {
            enum Genes {}
            impl $crate::family::wgmma_split::Genes for Genes {
                const HEAD_DIM_QK: u32 = $qk;
                const HEAD_DIM_V: u32 = $v;
                const TILE_Q: u32 = $tile_q;
                const TILE_KV: u32 = $tile_kv;
                const GROUPS: u32 = $kv_split;
                const CLUSTER: u32 = $cluster;
                const STAGES: u32 = $stages;
                const EXP_POLY: u32 = $exp_poly;
                const LAZY_RESCALE: bool = $lazy_rescale == 1;
                const EARLY_LAUNCH: bool = $early_launch == 1;
            }
            $crate::export!(Mapped, $symbol, |args, maps| $crate::family::wgmma_split::attention::<
                $crate::gpu::$dtype,
                Genes,
                { $tile_kv / 8 },
                { $tile_kv / 16 },
                { $v / 8 },
            >(args, maps));
        };
    };
}

/// Runs a kernel, or the fixture that stands in for it.
#[doc(hidden)]
#[macro_export]
macro_rules! run {
    ($kernel:ident, $args:ident, $more:ident) => {
        $kernel($args, $more)
    };
    ($fixture:ident of $genes:ident in $dtype:ty, $kernel:ident, $args:ident, $more:ident) => {{
        impl $crate::fixtures::Original for $genes {
            type Element = $dtype;

            #[inline(always)]
            fn run(args: &$crate::AttentionArgs) {
                $kernel(args, &());
            }
        }
        let () = $more;
        $crate::fixtures::$fixture::<$genes>($args)
    }};
}

/// Exports `$body` as an entry point. It sees `$args`, an [`&AttentionArgs`](crate::AttentionArgs), and `$more`: the second
/// argument of its kind, or `&()` for plain entry points, which have none. Where the copy engine may copy, it sees `$maps` too:
/// tensor maps or none.
#[doc(hidden)]
#[macro_export]
macro_rules! export {
    (copy_engine: 0, $features:ident, $symbol:ident, |$args:ident, $more:ident, $maps:ident| $body:expr) => {
        $crate::export!($features, $symbol, |$args, $more| {
            let $maps = None;
            $body
        });
    };
    (copy_engine: 1, Plain, $symbol:ident, |$args:ident, $more:ident, $maps:ident| $body:expr) => {
        $crate::export!(Mapped, $symbol, |$args, maps| {
            let ($more, $maps) = (&(), Some(maps));
            $body
        });
    };
    (Plain, $symbol:ident, |$args:ident, $more:ident| $body:expr) => {
        /// # Safety
        ///
        /// The arguments must describe live tensors.
        #[cfg(target_arch = "nvptx64")]
        #[unsafe(no_mangle)]
        pub unsafe extern "ptx-kernel" fn $symbol(args: $crate::AttentionArgs) {
            let ($args, $more) = (&args, &());
            $body;
        }

        $crate::export_to_host!($symbol, |args: $crate::AttentionArgs| {
            let ($args, $more) = (&args, &());
            $body;
        });
    };
    (Featured, $symbol:ident, |$args:ident, $more:ident| $body:expr) => {
        /// # Safety
        ///
        /// The arguments must describe live tensors.
        #[cfg(target_arch = "nvptx64")]
        #[unsafe(no_mangle)]
        pub unsafe extern "ptx-kernel" fn $symbol(args: $crate::AttentionArgs, more: $crate::FeatureArgs) {
            let ($args, $more) = (&args, &more);
            $body;
        }

        $crate::export_to_host!($symbol, |both: $crate::FeaturedArgs| {
            let ($args, $more) = (&both.args, &both.features);
            $body;
        });
    };
    (Mapped, $symbol:ident, |$args:ident, $maps:ident| $body:expr) => {
        /// # Safety
        ///
        /// The arguments must describe live tensors.
        #[cfg(target_arch = "nvptx64")]
        #[unsafe(no_mangle)]
        pub unsafe extern "ptx-kernel" fn $symbol(args: $crate::AttentionArgs, _: $crate::TensorMaps) {
            let ($args, $maps) = (&args, $crate::tensor_maps!($symbol));
            $body;
        }

        $crate::export_to_host!($symbol, |both: $crate::MappedArgs| {
            let ($args, $maps) = (&both.args, $crate::gpu::TensorMap::three_of(&both.maps));
            $body;
        });
    };
}

/// Exports a kernel, as a function of its arguments in one value, to the CPU machine.
#[doc(hidden)]
#[macro_export]
macro_rules! export_to_host {
    ($symbol:ident, $kernel:expr) => {
        /// # Safety
        ///
        /// Both pointers must be what `simt::Entry` passes.
        #[cfg(not(target_arch = "nvptx64"))]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(
            request: *const $crate::simt::RawRequest,
            report: *mut $crate::simt::RawReport,
        ) {
            // SAFETY: the caller's promise.
            unsafe { $crate::simt::export(request, report, $kernel) };
        }
    };
}

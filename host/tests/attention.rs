//! The table of cases on kernels of every family, on every executor that is here.
//!
//! `cargo test -p host --test attention -- simt/mma` runs a part; `--list` shows all.

use std::sync::{Arc, Mutex};

use builder::Library;
use host::cases::{Case, Extent, odd_strides, suite};
use host::device::simt::Simt;
use host::device::{Code, Device, Failure, Subject};
use host::oracle::metamorphic::RELATIONS;
use libtest_mimic::{Arguments, Failed, Trial};
use spec::{DeviceLimits, Dtype, Kernel, Problem, Variant, legal};

/// Kernels by name: each gene's values occur, and each head_dim that is special to a family. `Small` kernels run the whole
/// table, the others a part of it that is theirs.
const KERNELS: [(&str, &str, u32, Dtype); 10] = [
    (
        "tiled-64",
        "tiled:tile_q=64,tile_kv=64,warps=8,row_lanes=8,load_bytes=16,shared_pad=1,exp_poly=0,blocks_per_sm=1,block_order=0",
        64,
        Dtype::F16,
    ),
    (
        "tiled-40-bf16",
        "tiled:tile_q=32,tile_kv=32,warps=4,row_lanes=8,load_bytes=8,shared_pad=0,exp_poly=1,blocks_per_sm=1,block_order=1",
        40,
        Dtype::Bf16,
    ),
    (
        "tiled-128",
        "tiled:tile_q=16,tile_kv=32,warps=2,row_lanes=16,load_bytes=2,shared_pad=0,exp_poly=0,blocks_per_sm=2,block_order=2",
        128,
        Dtype::F16,
    ),
    (
        "mma-64",
        "mma:tile_q=64,tile_kv=64,warps=4,kv_split=1,stages=2,q_in_registers=1,shared_pad=0,exp_poly=0,lazy_rescale=0,blocks_per_sm=1,cache_hint=0,block_order=1",
        64,
        Dtype::F16,
    ),
    (
        "mma-64-bf16",
        "mma:tile_q=128,tile_kv=32,warps=4,kv_split=1,stages=3,q_in_registers=0,shared_pad=1,exp_poly=2,lazy_rescale=1,blocks_per_sm=1,cache_hint=1,block_order=2",
        64,
        Dtype::Bf16,
    ),
    (
        "mma-64-split",
        "mma:tile_q=16,tile_kv=32,warps=4,kv_split=4,stages=1,q_in_registers=0,shared_pad=0,exp_poly=4,lazy_rescale=1,blocks_per_sm=2,cache_hint=2,block_order=0",
        64,
        Dtype::F16,
    ),
    (
        "mma-40",
        "mma:tile_q=32,tile_kv=96,warps=2,kv_split=1,stages=4,q_in_registers=1,shared_pad=1,exp_poly=0,lazy_rescale=0,blocks_per_sm=1,cache_hint=0,block_order=0",
        40,
        Dtype::F16,
    ),
    (
        "mma-128-bf16",
        "mma:tile_q=64,tile_kv=64,warps=4,kv_split=2,stages=2,q_in_registers=0,shared_pad=0,exp_poly=0,lazy_rescale=1,blocks_per_sm=1,cache_hint=0,block_order=1",
        128,
        Dtype::Bf16,
    ),
    (
        "mma-8",
        "mma:tile_q=16,tile_kv=16,warps=1,kv_split=1,stages=2,q_in_registers=1,shared_pad=1,exp_poly=0,lazy_rescale=0,blocks_per_sm=4,cache_hint=0,block_order=0",
        8,
        Dtype::F16,
    ),
    (
        "tiled-256",
        "tiled:tile_q=16,tile_kv=16,warps=2,row_lanes=16,load_bytes=16,shared_pad=1,exp_poly=0,blocks_per_sm=1,block_order=0",
        256,
        Dtype::Bf16,
    ),
];

/// A kernel under test.
#[derive(Clone)]
struct Tested {
    name: &'static str,
    problem: Problem,
    variant: Variant,
}

fn main() {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, simt()).exit();
}

fn kernels() -> Vec<Tested> {
    KERNELS
        .map(|(name, variant, head_dim, dtype)| Tested {
            name,
            problem: Problem::new(1, 2, 100, head_dim, dtype),
            variant: variant.parse().expect("a variant of the table"),
        })
        .into()
}

/// Each case on each kernel on the CPU machine; the library is built by the first that needs it.
fn simt() -> Vec<Trial> {
    let code = Arc::new(Mutex::new(None));
    let mut trials = vec![];
    for tested in kernels() {
        for case in cases(&tested) {
            let (tested, code) = (tested.clone(), Arc::clone(&code));
            let name = format!("simt/{}/{}", tested.name, case.name);
            trials.push(Trial::test(name, move || {
                let subject = subject(&tested, built(&code)?)?;
                Simt::new(DeviceLimits::H100).check(&subject, &[case]).map_err(failed)?;
                Ok(())
            }));
        }
        for (relation, check) in RELATIONS {
            let (tested, code) = (tested.clone(), Arc::clone(&code));
            let name = format!("simt/{}/metamorphic/{relation}", tested.name);
            trials.push(Trial::test(name, move || {
                let code = built(&code)?;
                let mut device = Simt::new(DeviceLimits::H100);
                let problem = Problem { heads_q: 4, ..tested.problem }.with_heads_kv(2).with_seqlens(20, 70);
                check(&mut device.executor(tested.variant, &code), &problem).map_err(failed)
            }));
        }
    }
    trials
}

fn cases(tested: &Tested) -> Vec<Case> {
    let mut cases = suite(&tested.problem, Extent::Small);
    cases.extend(odd_strides(&tested.problem));
    cases.retain(|case| legal(&case.problem, &tested.variant, &DeviceLimits::H100).is_ok());
    cases
}

fn built(code: &Mutex<Option<Result<Code, String>>>) -> Result<Code, Failed> {
    let build = || {
        let kernels: Vec<Kernel> = kernels().iter().map(|tested| tested.variant.kernel(&tested.problem)).collect();
        let path = Library::open().and_then(|library| library.simt(&kernels)).map_err(|error| error.to_string())?;
        Ok(Code::Library { path })
    };
    let mut code = code.lock().map_err(|error| error.to_string())?;
    code.get_or_insert_with(build).clone().map_err(Failed::from)
}

fn subject(tested: &Tested, code: Code) -> Result<Subject, Failed> {
    let Tested { problem, variant, .. } = *tested;
    let geometry = legal(&problem, &variant, &DeviceLimits::H100)?;
    Ok(Subject { problem, variant, geometry, code })
}

fn failed(failure: Failure) -> Failed {
    failure.to_string().into()
}

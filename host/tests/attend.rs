//! `host attend`, from files to files, on the CPU machine; what comes out is held against the oracle.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use host::cases::{Case, Distribution, Tensor};
use host::driver::Gpu;
use host::oracle::{Answers, Outputs, judge};
use safetensors::tensor::TensorView;
use safetensors::{Dtype as FileDtype, SafeTensors};
use spec::{Align, Bias, Dtype, Extra, Features, Mask, MatrixStrides, Pages, Problem, Window};
use tempfile::TempDir;

/// Writes Q, K and V of a case and what its features read, one file each.
fn inputs(case: &Case) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tensors = Answers::default().to(case).unwrap().tensors.clone();
    for (extra, array) in tensors.extras.all() {
        let (name, dtype, shape) = array_of(extra, case);
        write(&folder.path().join(name), &[(name, dtype, shape, array.elements())]);
    }
    for (name, tensor) in [("q", &tensors.q), ("k", &tensors.k), ("v", &tensors.v)] {
        let bytes: &[u8] = bytemuck::cast_slice(tensor.storage.inner());
        write(&folder.path().join(name), &[(name, in_files(case.problem.dtype), shape(case, tensor), bytes)]);
    }
    folder
}

/// The option of an array, and what a file of it holds.
fn array_of(extra: Extra, case: &Case) -> (&'static str, FileDtype, Vec<usize>) {
    let problem = &case.problem;
    let Problem { batch, heads_q, seqlen_q, seqlen_kv, .. } = *problem;
    let matrix = |strides: Option<MatrixStrides>| {
        let MatrixStrides { batch: b, head, row } = strides.unwrap();
        let size = |stride, size| if stride == 0 { 1 } else { size };
        [size(b, batch), size(head, heads_q), size(row, seqlen_q), seqlen_kv].map(|size| size as usize).to_vec()
    };
    let Features { bias, mask, pages, .. } = problem.features;
    match extra {
        Extra::Slopes => ("alibi", FileDtype::F32, vec![heads_q as usize]),
        Extra::Sinks => ("sinks", FileDtype::F32, vec![heads_q as usize]),
        Extra::Bias => {
            let bias = bias.unwrap();
            ("bias", if bias.wide { FileDtype::F32 } else { in_files(case.problem.dtype) }, matrix(Some(bias.strides)))
        }
        Extra::Mask => ("mask", FileDtype::U8, matrix(mask)),
        Extra::StartsQ => ("starts-q", FileDtype::U32, vec![batch as usize + 1]),
        Extra::StartsKv => ("starts-kv", FileDtype::I32, vec![batch as usize + 1]),
        Extra::UsedKv => ("used-kv", FileDtype::U32, vec![batch as usize]),
        Extra::Pages => ("pages", FileDtype::I32, vec![batch as usize, pages.unwrap().columns as usize]),
    }
}

fn write(path: &Path, tensors: &[(&str, FileDtype, Vec<usize>, &[u8])]) {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn in_files(dtype: Dtype) -> FileDtype {
    match dtype {
        Dtype::F16 => FileDtype::F16,
        Dtype::Bf16 => FileDtype::BF16,
        Dtype::F32 => FileDtype::F32,
        Dtype::E4m3 => FileDtype::F8_E4M3,
    }
}

fn is_bhsd(problem: &Problem) -> bool {
    problem.strides != problem.in_bshd().strides
}

/// In the file's order of dimensions.
fn shape(case: &Case, tensor: &Tensor) -> Vec<usize> {
    let [batch, seq, heads, columns] = tensor.shape().map(|size| size as usize);
    if is_bhsd(&case.problem) { vec![batch, heads, seq, columns] } else { vec![batch, seq, heads, columns] }
}

fn attend(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.current_dir(folder).args(["attend", "--q", "q", "--k", "k", "--v", "v", "-o", "out"]).args(arguments);
    command.output().unwrap()
}

/// The one line that a refusal prints.
fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().to_owned()
}

fn check(problem: Problem, arguments: &[&str]) {
    let case = Case::new("attend", problem, Distribution::Normal, 7);
    let folder = inputs(&case);
    let layout = if is_bhsd(&problem) { "bhsd" } else { "bshd" };
    let arrays = Extra::ALL.into_iter().filter(|extra| extra.is_of(&problem)).map(|extra| array_of(extra, &case).0);
    let arrays: Vec<_> = arrays.map(|name| [format!("--{name}"), name.to_owned()]).collect();
    let arrays: Vec<_> = arrays.as_flattened().iter().map(String::as_str).collect();
    let output =
        attend(folder.path(), &[&["--device", "simt", "--lse", "--layout", layout], arguments, &arrays].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let file = fs::read(folder.path().join("out")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let (o, lse) = (file.tensor("o").unwrap(), file.tensor("lse").unwrap());
    let mut outputs = Outputs::unwritten(&problem).unwrap();
    assert_eq!((o.dtype(), o.shape()), (in_files(problem.dtype.output()), &shape(&case, &outputs.o)[..]));
    let [.., [batch, rows, heads, _]] = problem.shapes();
    let rows = [batch, heads, rows].map(|size| size as usize);
    assert_eq!((lse.dtype(), lse.shape()), (FileDtype::F32, &rows[..]));
    outputs.o.storage.inner_mut().copy_from_slice(bytemuck::cast_slice(o.data()));
    outputs.lse.inner_mut().copy_from_slice(bytemuck::cast_slice(lse.data()));
    let answer = Answers::default().to(&case).unwrap();
    judge(&case, &answer.reference, &outputs).unwrap();
}

#[test]
fn grouped_heads_in_both_orders_of_dimensions() {
    let problem = Problem::new(2, 4, 1, 16, Dtype::Bf16).with_seqlens(19, 37).with_heads_kv(2);
    check(problem, &[]);
    check(problem.in_bhsd(), &[]);
}

#[test]
fn both_alignments_of_the_mask_and_rows_that_see_nothing() {
    let problem = Problem::new(1, 2, 1, 16, Dtype::F16).with_seqlens(21, 9);
    check(problem.with_mask(Mask::Causal(Align::BottomRight)), &["--causal"]);
    check(problem.with_mask(Mask::Causal(Align::TopLeft)), &["--causal=top-left"]);
}

#[test]
fn fp8_comes_out_as_bf16() {
    let problem = Problem::new(1, 2, 1, 128, Dtype::E4m3).with_seqlens(70, 150).with_heads_kv(1);
    check(problem.with_mask(Mask::Causal(Align::BottomRight)), &["--causal"]);
}

#[test]
fn values_of_another_width_than_keys() {
    for (qk, v) in [(16, 40), (48, 24)] {
        let problem = Problem { head_dim_v: v, ..Problem::new(1, 2, 11, qk, Dtype::Bf16) };
        check(problem.in_bshd(), &[]);
        check(problem.in_bhsd(), &[]);
    }
}

#[test]
fn single_precision() {
    let problem = Problem::new(2, 4, 1, 16, Dtype::F32).with_seqlens(19, 37).with_heads_kv(2);
    check(problem.with_mask(Mask::Causal(Align::BottomRight)), &["--causal"]);
    let strides = MatrixStrides { batch: 0, head: 0, row: 37 };
    let features = Features { bias: Some(Bias { wide: true, strides }), softcap: Some(5.0), ..Features::NONE };
    check(with(features, problem.in_bhsd()), &["--softcap", "5"]);
}

#[test]
fn a_scale_of_ones_own() {
    let problem = Problem::new(1, 2, 12, 16, Dtype::F16);
    check(Problem { scale: Some(-0.5), ..problem }, &["--scale", "-0.5"]);
    check(Problem { scale: Some(0.0), ..problem }, &["--scale", "0"]);
}

fn with(features: Features, problem: Problem) -> Problem {
    Problem { features, ..problem }
}

#[test]
fn windows_softcaps_slopes_and_sinks() {
    let problem = Problem::new(2, 4, 1, 16, Dtype::Bf16).with_seqlens(9, 21).with_heads_kv(2);
    let causal = problem.with_mask(Mask::Causal(Align::BottomRight));
    let window = |left, right| Features { window: Window { left, right }, ..Features::NONE };
    check(with(window(Some(3), Some(0)), causal), &["--causal", "--window", "3/0"]);
    let all = Features { softcap: Some(5.0), alibi: true, sinks: true, ..window(None, Some(4)) };
    check(with(all, problem), &["--window", "inf/4", "--softcap", "5"]);
    check(with(all, problem.in_bhsd()), &["--window=inf/4", "--softcap", "5"]);
}

#[test]
fn biases_and_masks_of_all_shapes() {
    let problem = Problem::new(2, 3, 1, 16, Dtype::F16).with_seqlens(5, 19);
    let full = MatrixStrides { batch: 285, head: 95, row: 19 };
    let rows = MatrixStrides { batch: 0, head: 0, row: 19 };
    let bias = |wide, strides| Some(Bias { wide, strides });
    check(with(Features { bias: bias(false, full), mask: Some(rows), ..Features::NONE }, problem), &[]);
    check(with(Features { bias: bias(true, rows), mask: Some(full), ..Features::NONE }, problem.in_bhsd()), &[]);
}

#[test]
fn packed_used_and_paged_lengths() {
    let problem = Problem::new(3, 2, 1, 16, Dtype::F16).with_seqlens(9, 21).with_mask(Mask::Causal(Align::BottomRight));
    let packed = Features { packed_q: Some(15), packed_kv: Some(40), ..Features::NONE };
    check(with(packed, problem).in_bshd(), &["--causal"]);
    check(with(packed, problem).in_bhsd(), &["--causal"]);
    let used = Features { used_kv: true, ..Features::NONE };
    check(with(used, problem), &["--causal"]);
    let pages = Some(Pages { count: 5, size: 7, columns: 3 });
    check(with(Features { pages, ..used }, problem).in_bshd(), &["--causal"]);
    check(with(Features { pages, packed_q: Some(15), ..used }, problem).in_bhsd(), &["--causal"]);
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    let problem = Problem::new(2, 2, 5, 16, Dtype::F16);
    let folder = inputs(&Case::new("refused", problem, Distribution::Normal, 1));
    let refused = |arguments: &[&str], expected: &str| {
        assert_eq!(refusal(&attend(folder.path(), arguments)), format!("error: {expected}"));
        assert!(!folder.path().join("out").exists());
    };
    let floats = |name: &str, dtype, shape: &[usize]| {
        let bytes = vec![0; shape.iter().product::<usize>() * if dtype == FileDtype::F32 { 4 } else { 2 }];
        write(&folder.path().join(name), &[(name, dtype, shape.to_vec(), &bytes)]);
    };
    let counts = |name: &str, shape: &[usize], counts: &[i32]| {
        write(&folder.path().join(name), &[(name, FileDtype::I32, shape.to_vec(), bytemuck::cast_slice(counts))]);
    };
    floats("sinks", FileDtype::F32, &[3]);
    refused(&["--sinks", "sinks"], "sinks is F32 [3]; F32 [2] is needed, a number for each query head");
    floats("bias", FileDtype::BF16, &[5, 5]);
    refused(&["--bias", "bias"], "bias is BF16 [5, 5]; F16, as Q, or F32 is needed");
    floats("bias", FileDtype::F32, &[2, 3, 5, 5]);
    refused(&["--bias", "bias"], "the bias has 3 heads; 2 or 1 are allowed");
    refused(&["--mask", "bias"], "mask is F32 [2, 3, 5, 5]; BOOL or U8 is needed");
    counts("used", &[2], &[3, 6]);
    refused(&["--used-kv", "used"], "used_kv[1] is 6; 0 to 5 are allowed, as many as there is room for");
    counts("used", &[2], &[3, -1]);
    refused(&["--used-kv", "used"], "used_kv[1] is -1; a number from 0 on is needed");
    counts("used", &[2], &[5, 3]);
    counts("pages", &[2, 1], &[1, 2]);
    refused(&["--used-kv", "used", "--pages", "pages"], "pages[1, 0] is 2; 0 to 1 are allowed, the pages of K");
    counts("starts", &[3], &[0, 3, 5]);
    refused(&["--starts-q", "starts"], "with starts_q the batch of Q must be 1; it is 2");
    counts("starts", &[3], &[0, 3, 4]);
    refused(
        &["--starts-q", "starts"],
        "starts_q is [0, 3, 4]; numbers that rise from 0 to 5, the seqlen of Q, are needed",
    );
    let capped = with(Features { softcap: Some(0.0), ..Features::NONE }, problem);
    let expected = format!("{capped} cannot be run: softcap is 0; finite numbers above 0 are allowed");
    refused(&["--softcap", "0"], &expected);
    // flash-attention #1116: no side of a window is negative.
    let output = attend(folder.path(), &["--window", "-3/0"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("LEFT/RIGHT is needed, each a number of keys from 0 on or inf"), "{text}");
}

#[test]
fn what_contradicts_itself_is_refused_and_the_output_left_as_it_was() {
    let case = Case::new("refused", Problem::new(1, 2, 5, 16, Dtype::F16), Distribution::Normal, 1);
    let folder = inputs(&case);
    let path = |name: &str| folder.path().join(name);
    fs::write(path("out"), "before").unwrap();
    let refused = |arguments: &[&str], expected: &str| {
        let line = refusal(&attend(folder.path(), arguments));
        assert_eq!(line, format!("error: {expected}"));
        assert_eq!(fs::read(path("out")).unwrap(), b"before");
    };
    refused(&["--scale", "nan"], &{
        let problem = Problem { scale: Some(f32::NAN), ..case.problem };
        format!("{problem} cannot be run: the softmax scale must be finite")
    });
    refused(&["--device", "replay"], "--device is a replay, which computes nothing; auto, cuda:N and simt do");
    let replace = |name: &str, dtype, shape: [usize; 4]| {
        let bytes = vec![0; shape.iter().product::<usize>() * if dtype == FileDtype::F32 { 4 } else { 2 }];
        write(&path(name), &[(name, dtype, shape.to_vec(), &bytes)]);
    };
    replace("v", FileDtype::F16, [1, 6, 2, 16]);
    refused(&[], "the seqlen of V is 6; that of K is 5, and they must be equal");
    replace("v", FileDtype::BF16, [1, 5, 2, 16]);
    refused(&[], "the elements of V are bf16; f16, as in Q, is allowed");
    replace("q", FileDtype::F32, [1, 5, 2, 16]);
    refused(&[], "the elements of K are f16; f32, as in Q, is allowed");
    fs::remove_file(path("k")).unwrap();
    refused(&[], "k: No such file or directory (os error 2)");
}

#[test]
fn tensors_of_one_file_are_told_apart_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = [0; 2 * 8 * 2];
    let tensor = |name| (name, FileDtype::F16, vec![1, 2, 1, 8], &bytes[..]);
    write(&folder.path().join("all"), &[tensor("q"), tensor("keys"), tensor("v")]);
    let attend = |k: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
        command.current_dir(folder.path()).args(["attend", "--device", "simt", "--q", "all", "--k", k, "--v", "all"]);
        command.args(["-o", "out"]).output().unwrap()
    };
    assert_eq!(refusal(&attend("all")), "error: all has no tensor k; it has keys, q, v");
    assert_eq!(refusal(&attend("all:x")), "error: all has no tensor x; it has keys, q, v");
    assert!(attend("all:keys").status.success());
}

#[test]
fn where_nothing_can_run_it_one_line_says_so() {
    if Gpu::count().is_ok_and(|count| count > 0) {
        eprintln!("ignored: this machine has a GPU");
        return;
    }
    let case = Case::new("nowhere", Problem::new(1, 1, 4, 16, Dtype::F16), Distribution::Normal, 1);
    let folder = inputs(&case);
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.current_dir(folder.path()).args(["attend", "--q", "q", "--k", "k", "--v", "v", "-o", "out"]);
    let line = refusal(&command.env("EVOATTN_ROOT", "absent").output().unwrap());
    assert!(line.starts_with("error: no GPU here (no NVIDIA driver found: "), "{line}");
    assert!(line.contains("and the CPU machine cannot do it either: no folder with kernels/ or catalog/"), "{line}");
    assert!(!folder.path().join("out").exists());
}

//! `host attend`, from files to files, on the CPU machine; what comes out is held against the oracle.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use host::cases::{Case, Distribution, Tensor};
use host::driver::Gpu;
use host::oracle::{Answers, Outputs, judge};
use safetensors::tensor::TensorView;
use safetensors::{Dtype as FileDtype, SafeTensors};
use spec::{Align, Dtype, Mask, Problem};
use tempfile::TempDir;

/// Writes Q, K and V of a case, one file each.
fn inputs(case: &Case) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tensors = Answers::default().to(case).unwrap().tensors.clone();
    for (name, tensor) in [("q", &tensors.q), ("k", &tensors.k), ("v", &tensors.v)] {
        let bytes: &[u8] = bytemuck::cast_slice(tensor.storage.inner());
        write(&folder.path().join(name), &[(name, dtype(case), shape(case, tensor), bytes)]);
    }
    folder
}

fn write(path: &Path, tensors: &[(&str, FileDtype, Vec<usize>, &[u8])]) {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn dtype(case: &Case) -> FileDtype {
    match case.problem.dtype {
        Dtype::F16 => FileDtype::F16,
        Dtype::Bf16 => FileDtype::BF16,
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
    let output = attend(folder.path(), &[&["--device", "simt", "--lse", "--layout", layout], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let file = fs::read(folder.path().join("out")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let (o, lse) = (file.tensor("o").unwrap(), file.tensor("lse").unwrap());
    let mut outputs = Outputs::unwritten(&problem).unwrap();
    assert_eq!((o.dtype(), o.shape()), (dtype(&case), &shape(&case, &outputs.o)[..]));
    let rows = [problem.batch, problem.heads_q, problem.seqlen_q].map(|size| size as usize);
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
fn values_of_another_width_than_keys() {
    for (qk, v) in [(16, 40), (48, 24)] {
        let problem = Problem { head_dim_v: v, ..Problem::new(1, 2, 11, qk, Dtype::Bf16) };
        check(problem.in_bshd(), &[]);
        check(problem.in_bhsd(), &[]);
    }
}

#[test]
fn a_scale_of_ones_own() {
    let problem = Problem::new(1, 2, 12, 16, Dtype::F16);
    check(Problem { scale: Some(-0.5), ..problem }, &["--scale", "-0.5"]);
    check(Problem { scale: Some(0.0), ..problem }, &["--scale", "0"]);
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
    refused(&[], "the elements of Q are f32; f16 or bf16 is allowed");
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

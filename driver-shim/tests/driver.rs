//! The same executable without a driver and with a fake one. A process can load only one driver, so each test
//! starts this executable again as a child that makes the calls and prints what came back.

use std::ffi::c_void;
use std::path::Path;
use std::process::Command;

use cust_raw as cuda;

/// Set in the child.
const CHILD: &str = "DRIVER_SHIM_CHILD";

#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    // The harness has begun a line.
    println!("\navailable {:?}", driver_shim::available().map_err(|error| error.to_string()));
    let mut version = 0;
    let mut seen = [0usize; 10];
    // SAFETY: the arguments are what the fake driver expects; without it nothing reads them.
    unsafe {
        // Twice: through the resolver, then through the bound slot.
        for _ in 0..2 {
            println!("cuInit {}", cuda::cuInit(7) as u32);
            println!("cuDriverGetVersion {} {version}", cuda::cuDriverGetVersion(&mut version) as u32);
            let result = cuda::cuLaunchKernel(
                101 as cuda::CUfunction,
                u32::MAX,
                103,
                104,
                105,
                106,
                107,
                108,
                usize::MAX as cuda::CUstream,
                110 as *mut *mut c_void,
                seen.as_mut_ptr().cast(),
            );
            println!("cuLaunchKernel {} {seen:?}", result as u32);
        }
        println!("cuCtxSynchronize {}", cuda::cuCtxSynchronize() as u32);
    }
}

fn run_child(library_path: &Path) -> Vec<String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", library_path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| line.starts_with("cu") || line.starts_with("available")).map(String::from).collect()
}

fn build_fake_driver(folder: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fake_driver.rs");
    let status = Command::new("rustc")
        .args(["--edition=2024", "--crate-type=cdylib", "--crate-name=fake_driver", "-o"])
        .arg(folder.join("libcuda.so.1"))
        .arg(source)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn arguments_and_results_travel_through() {
    let folder = tempfile::tempdir().unwrap();
    build_fake_driver(folder.path());
    let launched = "cuLaunchKernel 710 [101, 4294967295, 103, 104, 105, 106, 107, 108, 18446744073709551615, 110]";
    let lines = run_child(folder.path());
    assert_eq!(lines[0], "available Ok(())");
    assert_eq!(lines[1..4], ["cuInit 0", "cuDriverGetVersion 0 13000", launched]);
    assert_eq!(lines[4..7], ["cuInit 0", "cuDriverGetVersion 0 13000", launched]);
    // The fake driver has no such function.
    assert_eq!(lines[7], "cuCtxSynchronize 801");
}

#[test]
fn without_a_driver_calls_say_so() {
    if driver_shim::available().is_ok() {
        eprintln!("ignored: this machine has a driver");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lines = run_child(folder.path());
    assert!(lines[0].starts_with("available Err(\"no NVIDIA driver found: libcuda.so.1"), "{}", lines[0]);
    assert_eq!(lines[1], "cuInit 100");
    assert_eq!(lines[2], "cuDriverGetVersion 100 0");
    assert!(lines[3].starts_with("cuLaunchKernel 100 [0, 0"), "{}", lines[3]);
}

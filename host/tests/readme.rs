//! What README states is what the records say.

use std::process::Command;

#[test]
fn the_table_is_that_of_the_newest_bench() {
    let run = Command::new(env!("CARGO_BIN_EXE_host")).args(["record", "table", "--check"]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

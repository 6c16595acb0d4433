//! Waiting for earlier grids.

use simt::{Buffer, Cause, Launch};

fn run(kernel: impl Fn(u32)) -> Result<simt::Stats, simt::Fault> {
    let input = [7; 128];
    let mut output = [0; 128];
    let buffers = &mut [Buffer::read("input", &input), Buffer::write("output", &mut output)];
    simt::run(&Launch::new("test", 2, 32), buffers, || kernel(simt::thread_idx()))
}

#[test]
fn what_earlier_grids_may_still_write_is_not_touched_before_they_are_waited_for() {
    let load = || _ = simt::load_global::<4>(simt::address_of(0));
    assert!(run(|_| (simt::await_earlier_grids(), load()).0).is_ok());
    let cause = |kernel: &dyn Fn(u32)| run(kernel).unwrap_err().cause;
    assert_eq!(cause(&|_| (load(), simt::await_earlier_grids()).1), Cause::BeforeEarlierGrids);
    let store = |thread| simt::store_global(simt::address_of(1) + u64::from(4 * thread), [1; 4]);
    assert_eq!(cause(&|thread| (store(thread), simt::await_earlier_grids()).1), Cause::BeforeEarlierGrids);
}

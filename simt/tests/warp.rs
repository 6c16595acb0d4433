//! Collectives of a warp: results, and what happens when lanes do not agree.

use simt::{Buffer, Cause, Fault, Launch, Op, address_of, thread_idx};

/// Runs one warp; each lane's result is a word of the returned list.
fn run(kernel: impl Fn(u32) -> u32) -> Result<Vec<u32>, Fault> {
    let mut output = [0; 128];
    simt::run(&Launch::new("k", 1, 32), &mut [Buffer::write("out", &mut output)], || {
        let lane = thread_idx();
        let word = kernel(lane);
        simt::store_global(address_of(0) + u64::from(4 * lane), word.to_le_bytes());
    })?;
    Ok(output.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
}

fn cause(kernel: impl Fn(u32) -> u32) -> Cause {
    run(kernel).expect_err("the kernel is wrong").cause
}

const ALL: u32 = u32::MAX;

#[test]
fn shuffles_and_ballots() {
    for lane_mask in [1, 2, 16, 31] {
        let expected: Vec<u32> = (0..32).map(|lane| 100 + (lane ^ lane_mask)).collect();
        assert_eq!(run(|lane| simt::shuffle_xor(ALL, 100 + lane, lane_mask)).unwrap(), expected);
    }
    let expected: Vec<u32> = (0..32).map(|lane| (lane * 5 + 3) % 32).collect();
    assert_eq!(run(|lane| simt::shuffle_idx(ALL, lane, (lane * 5 + 3) % 32)).unwrap(), expected);
    assert_eq!(run(|lane| simt::ballot(ALL, lane % 3 == 0)).unwrap(), [0x4924_9249; 32]);
}

#[test]
fn disjoint_masks_work_side_by_side() {
    let results =
        run(|lane| if lane < 8 { simt::shuffle_xor(0xff, lane, 1) } else { simt::ballot(0xffff_ff00, lane >= 16) });
    let expected: Vec<u32> = (0..32).map(|lane| if lane < 8 { lane ^ 1 } else { 0xffff_0000 }).collect();
    assert_eq!(results.unwrap(), expected);
}

#[test]
fn a_lane_in_no_mask_may_exit() {
    let results = run(|lane| if lane == 31 { 7 } else { simt::ballot(0x7fff_ffff, true) });
    assert_eq!(results.unwrap()[30..], [0x7fff_ffff, 7]);
}

#[test]
fn diverged_lanes_are_a_fault_that_names_both_operations() {
    let found = cause(|lane| if lane == 3 { simt::ballot(ALL, true) } else { simt::shuffle_xor(ALL, 0, 1) });
    let Cause::Diverged { op, other_op, .. } = found else { panic!("{found}") };
    assert!([(Op::Ballot, Op::ShuffleXor), (Op::ShuffleXor, Op::Ballot)].contains(&(op, other_op)));
    let masks = cause(|lane| simt::ballot(if lane == 9 { ALL } else { ALL - 1 }, true));
    assert!(matches!(masks, Cause::Diverged { op: Op::Ballot, other_op: Op::Ballot, .. } | Cause::NotInMask { .. }));
}

#[test]
fn a_collective_without_an_exited_lane_is_a_fault() {
    let found = cause(|lane| if lane == 5 { 0 } else { simt::shuffle_xor(ALL, 0, 1) });
    let Cause::Exited { op: Op::ShuffleXor, mask: ALL, waiting, exited: 5 } = found else { panic!("{found}") };
    assert_ne!(waiting, 5);
}

#[test]
fn lanes_that_wait_in_a_circle_are_a_deadlock() {
    // Each of three lanes waits for the next; no two wait for each other.
    let found = cause(|lane| match lane {
        0 => simt::ballot(0b011, true),
        1 => simt::ballot(0b110, true),
        2 => simt::ballot(0b101, true),
        _ => 0,
    });
    let Cause::Deadlock(text) = found else { panic!("{found}") };
    assert!(text.starts_with("lanes 0x0000000") && text.contains(" of warp 0 wait at ballot with mask 0x"), "{text}");
}

#[test]
fn lanes_may_meet_in_a_branch_while_others_wait_beyond_it() {
    let results = run(|lane| {
        let inner = if lane < 16 { simt::ballot(0xffff, lane % 2 == 0) } else { 0 };
        inner + simt::ballot(ALL, lane == 31)
    });
    let expected: Vec<u32> = (0..32).map(|lane| 0x8000_0000 + if lane < 16 { 0x5555 } else { 0 }).collect();
    assert_eq!(results.unwrap(), expected);
}

#[test]
fn a_lane_outside_its_own_mask_is_a_fault() {
    let found = cause(|lane| if lane == 4 { simt::ballot(1, true) } else { 0 });
    assert_eq!(found, Cause::NotInMask { op: Op::Ballot, mask: 1, lane: 4 });
}

#[test]
fn a_shuffle_from_outside_the_mask_is_a_fault() {
    let found = cause(|lane| if lane < 4 { simt::shuffle_xor(0xf, 0, 4) } else { 0 });
    assert_eq!(found, Cause::ShuffleSource { op: Op::ShuffleXor, mask: 0xf, lane: 4 });
    let found = cause(|_| simt::shuffle_idx(ALL, 0, 32));
    assert_eq!(found, Cause::ShuffleSource { op: Op::ShuffleIdx, mask: ALL, lane: 32 });
}

#[test]
fn a_trap_and_a_panic_are_faults() {
    let found = cause(|lane| if lane == 9 { simt::trap("enough") } else { simt::ballot(ALL, true) });
    assert_eq!(found, Cause::Trap("enough".to_owned()));
    let Cause::Panic(text) = cause(|lane| [1u32, 2, 3][lane as usize]) else { panic!("another cause") };
    assert!(text.starts_with("index out of bounds: the len is 3 but the index is ") && text.contains("warp.rs:"));
}

#[test]
fn a_fault_drops_what_the_threads_hold() {
    let held = std::rc::Rc::new(());
    let found = cause(|lane| {
        let _mine = held.clone();
        if lane == 31 { simt::trap("enough") } else { simt::ballot(ALL, true) }
    });
    assert_eq!(found, Cause::Trap("enough".to_owned()));
    assert_eq!(std::rc::Rc::strong_count(&held), 1);
}

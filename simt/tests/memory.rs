//! Global and shared memory: what is allowed, what is a fault.

use simt::{Access, Buffer, Cause, Launch, Place, Stats, address_of, block_idx, thread_idx};

/// Runs one warp with a read-only buffer `in` of 64 bytes (0, 1, 2, ...), a writable `out` of 128, and 256 shared bytes.
fn run(kernel: impl Fn()) -> (Vec<u8>, Result<Stats, simt::Fault>) {
    let input: Vec<u8> = (0..64).collect();
    let mut output = vec![0; 128];
    let mut launch = Launch::new("k", 1, 32);
    launch.shared_bytes = 256;
    let result = simt::run(&launch, &mut [Buffer::read("in", &input), Buffer::write("out", &mut output)], kernel);
    (output, result)
}

fn cause(kernel: impl Fn()) -> Cause {
    run(kernel).1.expect_err("the kernel is wrong").cause
}

/// Runs in thread 0 alone.
fn first(act: impl Fn()) -> impl Fn() {
    move || {
        if thread_idx() == 0 {
            act();
        }
    }
}

#[test]
fn all_widths_load_and_store() {
    let (output, result) = run(first(|| {
        let (from, to) = (address_of(0), address_of(1));
        simt::store_global::<1>(to, simt::load_global(from + 1));
        simt::store_global::<2>(to + 2, simt::load_global(from + 2));
        simt::store_global::<4>(to + 4, simt::load_global(from + 4));
        simt::store_global::<8>(to + 8, simt::load_global(from + 8));
        simt::store_global::<16>(to + 16, simt::load_global(from + 16));
        simt::store_shared::<1>(1, simt::load_global(from + 33));
        simt::store_shared::<2>(2, simt::load_global(from + 34));
        simt::store_shared::<4>(4, simt::load_global(from + 36));
        simt::store_shared::<8>(8, simt::load_global(from + 40));
        simt::store_global::<16>(to + 32, simt::load_shared(0));
        simt::store_shared::<16>(240, simt::load_global(from + 48));
        simt::store_global::<16>(to + 48, simt::load_shared(240));
    }));
    let stats = result.unwrap();
    let mut expected: Vec<u8> = (0..64).collect();
    // Bytes that nobody wrote: the output's are zero, shared memory's are poison.
    (expected[0], expected[1], expected[32]) = (1, 0, 0xff);
    assert_eq!(output[..64], expected);
    assert_eq!((stats.global_loads, stats.global_load_bytes), (10, 62));
    assert_eq!((stats.global_stores, stats.global_store_bytes), (7, 63));
    assert_eq!((stats.shared_stores, stats.shared_store_bytes), (5, 31));
    assert_eq!((stats.shared_loads, stats.shared_load_bytes), (2, 32));
}

#[test]
fn a_fault_says_where() {
    let mut launch = Launch::new("copy", 3, 64);
    launch.blocks = simt::Blocks::Only(&[2]);
    let input = [0; 40];
    let fault = simt::run(&launch, &mut [Buffer::read("q", &input)], || {
        if thread_idx() == 37 && block_idx() == 2 {
            simt::load_global::<16>(address_of(0) + 32);
        }
    })
    .unwrap_err();
    assert_eq!(fault.place, Place::Thread { block: 2, thread: 37 });
    assert_eq!(
        fault.to_string(),
        "kernel copy, block 2, thread 37: 16-byte load at offset 32 of buffer q, which has 40 bytes \
         (address 0x180000000020)"
    );
}

#[test]
fn global_accesses_stay_in_their_buffer() {
    let out_of = |address| {
        let Cause::OutOfBuffer { buffer, size, offset, bytes: 4, access: Access::Load, .. } = cause(first(|| {
            simt::load_global::<4>(address);
        })) else {
            panic!("another cause")
        };
        (buffer, size, offset)
    };
    assert_eq!(out_of(address_of(0) + 64), ("in".to_owned(), 64, 64));
    // Before the start, too, and not mistaken for the buffer before.
    assert_eq!(out_of(address_of(1) - 4), ("out".to_owned(), 128, -4));
    for address in [0, 8, address_of(2), u64::MAX - 15] {
        let expected = Cause::NoBuffer { access: Access::Store, address, bytes: 8 };
        assert_eq!(cause(first(|| simt::store_global(address, [0; 8]))), expected);
    }
}

#[test]
fn global_accesses_are_aligned_and_do_not_write_inputs() {
    let address = address_of(1) + 8;
    assert_eq!(
        cause(first(|| simt::store_global(address, [0; 16]))),
        Cause::MisalignedGlobal { access: Access::Store, address, bytes: 16, buffer: "out".to_owned(), offset: 8 }
    );
    let address = address_of(0) + 2;
    assert_eq!(
        cause(first(|| simt::store_global(address, [0; 2]))),
        Cause::ReadOnly { address, bytes: 2, buffer: "in".to_owned(), offset: 2 }
    );
}

#[test]
fn shared_accesses_are_checked() {
    for (address, bytes) in [(256, 1), (244, 16), (u32::MAX, 1)] {
        let access = Access::Load;
        let found = match bytes {
            1 => cause(first(|| {
                simt::load_shared::<1>(address);
            })),
            _ => cause(first(|| {
                simt::load_shared::<16>(address);
            })),
        };
        assert_eq!(found, Cause::OutOfShared { access, address, bytes, size: 256 });
    }
    assert_eq!(
        cause(first(|| simt::store_shared(6, [0; 4]))),
        Cause::MisalignedShared { access: Access::Store, address: 6, bytes: 4, align: 4 }
    );
}

#[test]
fn every_block_finds_shared_memory_poisoned() {
    let mut output = [0; 8];
    let mut launch = Launch::new("k", 2, 32);
    launch.shared_bytes = 4;
    simt::run(
        &launch,
        &mut [Buffer::write("out", &mut output)],
        first(|| {
            simt::store_global::<4>(address_of(0) + u64::from(4 * block_idx()), simt::load_shared(0));
            simt::store_shared(0, [0; 4]);
        }),
    )
    .unwrap();
    assert_eq!(output, [0xff; 8]);
    assert!(f32::from_le_bytes([0xff; 4]).is_nan());
}

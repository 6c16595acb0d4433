//! `ldmatrix`, `stmatrix` and `mma`, by the definition of their layouts.

use std::cell::RefCell;

use half::{bf16, f16};
use simt::{Access, Cause, Fault, Launch, MmaKind, Place, thread_idx};

fn warp(shared_bytes: u32, kernel: impl Fn(u32)) -> Result<simt::Stats, Fault> {
    let mut launch = Launch::new("k", 1, 32);
    launch.shared_bytes = shared_bytes;
    simt::run(&launch, &mut [], || kernel(thread_idx()))
}

/// Element (row, column) of matrix `i` is `100 i + 10 row + column`.
fn fill_matrices(lane: u32) {
    let (matrix, row) = (lane / 8, lane % 8);
    for column in 0..8 {
        simt::store_shared(lane * 16 + column * 2, ((100 * matrix + 10 * row + column) as u16).to_le_bytes());
    }
    simt::sync_warp(u32::MAX);
}

fn check_ldmatrix<const N: usize>() {
    for transpose in [false, true] {
        warp(512, |lane| {
            fill_matrices(lane);
            // Addresses beyond the first 8 N lanes do not matter.
            let address = if lane < 8 * N as u32 { lane * 16 } else { u32::MAX };
            for (i, pair) in simt::ldmatrix::<N>(address, transpose).into_iter().enumerate() {
                let (major, minor) = (lane / 4, lane % 4 * 2);
                let element = |minor| if transpose { 10 * minor + major } else { 10 * major + minor };
                assert_eq!(pair & 0xffff, 100 * i as u32 + element(minor));
                assert_eq!(pair >> 16, 100 * i as u32 + element(minor + 1));
            }
        })
        .unwrap();
    }
}

#[test]
fn ldmatrix_hands_out_rows_or_columns() {
    check_ldmatrix::<1>();
    check_ldmatrix::<2>();
    check_ldmatrix::<4>();
}

#[test]
fn ldmatrix_checks_each_row_for_its_lane() {
    for (bad, access) in [(504, Access::Load), (512, Access::Load)] {
        let fault = warp(512, |lane| {
            simt::ldmatrix::<4>(if lane == 13 { bad } else { 0 }, false);
        })
        .unwrap_err();
        assert_eq!(fault.place, Place::Thread { block: 0, thread: 13 });
        assert!(matches!(
            fault.cause,
            Cause::OutOfShared { access: a, address, bytes: 16, .. } if (a, address) == (access, bad)
        ));
    }
    let fault = warp(512, |lane| {
        simt::ldmatrix::<1>(lane * 8, false);
    })
    .unwrap_err();
    assert_eq!(fault.cause, Cause::MisalignedShared { access: Access::Load, address: 8, bytes: 16, align: 16 });
}

#[test]
fn stmatrix_stores_what_ldmatrix_loads() {
    warp(512, |lane| {
        let give = |matrix: u32| 1000 * matrix + lane;
        // Rows in another order than lanes.
        let row = (lane * 5 + 3) % 32 * 16;
        simt::stmatrix(row, [0, 1, 2, 3].map(give));
        simt::sync_warp(u32::MAX);
        assert_eq!(simt::ldmatrix::<4>(row, false), [0, 1, 2, 3].map(give));
    })
    .unwrap();
}

#[test]
fn stmatrix_checks_each_row_for_its_lane() {
    let fault = warp(512, |lane| simt::stmatrix(if lane == 13 { 512 } else { lane * 16 }, [0; 4])).unwrap_err();
    assert_eq!(fault.place, Place::Thread { block: 0, thread: 13 });
    assert!(matches!(fault.cause, Cause::OutOfShared { access: Access::Store, address: 512, bytes: 16, .. }));
}

/// A register of elements, the first in the lowest bits; `element` gives them by their number.
fn pack(kind: MmaKind, element: impl Fn(u32) -> f32) -> u32 {
    let halves = |bits: fn(f32) -> u16| u32::from(bits(element(0))) | u32::from(bits(element(1))) << 16;
    match kind {
        MmaKind::F16 => halves(|x| f16::from_f32(x).to_bits()),
        MmaKind::Bf16 => halves(|x| bf16::from_f32(x).to_bits()),
        MmaKind::E4m3 => u32::from_le_bytes([0, 1, 2, 3].map(|i| simt::e4m3_from_f32(element(i)))),
    }
}

/// Multiplies whole matrices by one warp; the fragments are those of the PTX manual.
fn multiply(
    kind: MmaKind,
    a: impl Fn(u32, u32) -> f32,
    b: impl Fn(u32, u32) -> f32,
    c: impl Fn(u32, u32) -> f32,
) -> [[f32; 8]; 16] {
    let result = RefCell::new([[0.0; 8]; 16]);
    warp(0, |lane| {
        let (group, t) = (lane >> 2, lane & 3);
        let (each, half) = (kind.depth() as u32 / 8, kind.depth() as u32 / 2);
        let pair_a = |i: u32| {
            let row = if i.is_multiple_of(2) { group } else { group + 8 };
            let column = t * each + if i < 2 { 0 } else { half };
            pack(kind, |n| a(row, column + n))
        };
        let pair_b = |i: u32| pack(kind, |n| b(t * each + half * i + n, group));
        let place = |i: u32| (group + i / 2 * 8, t * 2 + i % 2);
        let old = [0, 1, 2, 3].map(|i| c(place(i).0, place(i).1));
        let new = simt::mma_m16n8(kind, [0, 1, 2, 3].map(pair_a), [0, 1].map(pair_b), old);
        for (i, value) in new.into_iter().enumerate() {
            let (row, column) = place(i as u32);
            result.borrow_mut()[row as usize][column as usize] = value;
        }
    })
    .unwrap();
    result.take()
}

#[test]
fn mma_multiplies_and_adds() {
    for kind in [MmaKind::F16, MmaKind::Bf16, MmaKind::E4m3] {
        let a = |row: u32, k: u32| (row * 7 + k * 3) as f32 % 11.0 - 5.0;
        let b = |k: u32, column: u32| (k * 5 + column * 2) as f32 % 13.0 - 6.0;
        let c = |row: u32, column: u32| (row * 100 + column) as f32;
        let result = multiply(kind, a, b, c);
        for row in 0..16 {
            for column in 0..8 {
                let expected = (0..kind.depth() as u32).fold(c(row, column), |sum, k| sum + a(row, k) * b(k, column));
                assert_eq!(result[row as usize][column as usize], expected, "{kind:?} {row} {column}");
            }
        }
    }
}

#[test]
fn mma_keeps_special_values_in_their_rows() {
    for kind in [MmaKind::F16, MmaKind::Bf16] {
        let a = |row: u32, k: u32| match (row, k) {
            (1, 4) => f32::NAN,
            (2, 5) => f32::INFINITY,
            // The smallest subnormal of fp16.
            (3, 6) => f32::powi(2.0, -24),
            _ => 0.0,
        };
        let result = multiply(kind, a, |_, _| 1.0, |_, _| -0.0);
        assert!(result[1].iter().all(|x| x.is_nan()));
        assert_eq!(result[2], [f32::INFINITY; 8]);
        assert_eq!(result[3], [f32::powi(2.0, -24); 8]);
        assert_eq!(result[4], [0.0; 8]);
        // Infinity times zero.
        let result = multiply(kind, a, |_, _| 0.0, |_, _| 0.0);
        assert!(result[2].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn mma_accumulates_in_fp32_by_index() {
    // 2^24 + 1 + 1 ... loses every 1; the ones first, then 2^24, keep them.
    let big = f32::powi(2.0, 24);
    let ones = multiply(MmaKind::Bf16, |_, _| 1.0, |_, _| 1.0, |_, _| big);
    assert_eq!(ones[0][0], big);
    let last = multiply(MmaKind::Bf16, |_, k| if k == 15 { big } else { 1.0 }, |_, _| 1.0, |_, _| 1.0);
    assert_eq!(last[0][0], big + 16.0);
}

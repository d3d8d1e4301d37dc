//! Copies and fills that meet a page that is gone: what is before it, exactly.

use std::hint::black_box;
use std::time::Instant;

use super::every_way;
use super::region::{Region, STEP, number};
use crate::sys::guard;
use crate::types::FaultPolicy;

/// Lengths of every class.
const LENGTHS: [usize; 26] = [
    1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257, 512, 513, 1000, 3000, 5000, 12_000, 40_000,
    150_000,
];

/// How far before the border a copy of `len` bytes begins: every distance near, some far.
fn distances(len: usize) -> impl Iterator<Item = usize> {
    (0..len.min(140)).chain((140..len).step_by((len / 11).max(1))).chain(len.saturating_sub(3).max(140)..len)
}

const HERE: usize = 10 * STEP;

#[test]
fn a_source_that_ends_too_soon() {
    guard::arm().unwrap();
    let region = Region::new(HERE, HERE);
    region.number(0);
    let (lo, hi) = region.range();
    every_way(|| {
        for len in LENGTHS {
            let mut copy = vec![0; len];
            for distance in distances(len) {
                copy.fill(0);
                let from = region.border().wrapping_sub(distance);
                // SAFETY: as many bytes in the array; those that are not there are in the range.
                let left = unsafe { guard::copy(FaultPolicy::Trap, copy.as_mut_ptr(), from, len, lo, hi) };
                assert_eq!(left, len - distance, "{len} bytes, {distance} before the border");
                let expected = region.bytes(distance, distance);
                assert!(copy[..distance] == expected, "{len} bytes, {distance} before the border");
            }
        }
    });
}

#[test]
fn a_destination_that_ends_too_soon() {
    guard::arm().unwrap();
    let region = Region::new(HERE, HERE);
    let (lo, hi) = region.range();
    let source: Vec<u8> = (0..HERE).map(|at| number(at, 7)).collect();
    every_way(|| {
        for len in LENGTHS {
            for distance in distances(len) {
                let to = region.border().wrapping_sub(distance);
                // SAFETY: the source is longer; what is not there of the destination is in the range.
                unsafe { guard::fill(FaultPolicy::Trap, to, 0, distance, lo, hi) };
                // SAFETY: as above.
                let left = unsafe { guard::copy(FaultPolicy::Trap, to, source.as_ptr(), len, lo, hi) };
                assert_eq!(left, len - distance, "{len} bytes, {distance} before the border");
                assert!(region.bytes(distance, distance) == source[..distance]);

                // SAFETY: as above.
                let left = unsafe { guard::fill(FaultPolicy::Trap, to, 0xee, len, lo, hi) };
                assert_eq!(left, len - distance, "fill of {len} bytes, {distance} before the border");
                assert!(region.bytes(distance, distance).iter().all(|&byte| byte == 0xee));
            }
        }
    });
}

#[test]
fn nothing_is_there_at_all() {
    guard::arm().unwrap();
    let region = Region::new(STEP, HERE);
    let (lo, hi) = region.range();
    every_way(|| {
        for len in LENGTHS {
            let mut copy = vec![1; len];
            let gone = region.border().wrapping_add(5);
            // SAFETY: as many bytes in the array; those that are not there are in the range.
            let left = unsafe { guard::copy(FaultPolicy::Trap, copy.as_mut_ptr(), gone, len, lo, hi) };
            assert_eq!(left, len);
            // SAFETY: what is not there is in the range.
            assert_eq!(unsafe { guard::fill(FaultPolicy::Trap, gone, 1, len, lo, hi) }, len);
        }
    });
    // SAFETY: no byte is touched.
    assert_eq!(unsafe { guard::copy(FaultPolicy::Trap, region.border(), region.border(), 0, lo, hi) }, 0);
}

/// Both sides are shared, as when one mapping is copied to another.
#[test]
fn either_side_may_be_gone_when_both_are_shared() {
    guard::arm().unwrap();
    let (one, other) = (Region::new(STEP, STEP), Region::new(STEP, STEP));
    one.number(3);
    let (to, from) = (other.border().wrapping_sub(100), one.border().wrapping_sub(300));
    // SAFETY: every address is in the range.
    assert_eq!(unsafe { guard::copy(FaultPolicy::Trap, to, from, 1000, 0, usize::MAX) }, 900);
    assert_eq!(other.bytes(100, 100), one.bytes(300, 100));
    let (to, from) = (other.border().wrapping_sub(300), one.border().wrapping_sub(100));
    // SAFETY: as above.
    assert_eq!(unsafe { guard::copy(FaultPolicy::Trap, to, from, 1000, 0, usize::MAX) }, 900);
}

#[test]
fn threads_that_fault_at_once_do_not_disturb_each_other() {
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            scope.spawn(move || {
                guard::arm().unwrap();
                let region = Region::new(STEP, STEP);
                region.number(thread);
                let (lo, hi) = region.range();
                let mut copy = [0; 700];
                for round in 0..3000_usize {
                    let distance = round % 600;
                    let from = region.border().wrapping_sub(distance);
                    // SAFETY: as many bytes in the array; those that are not there are in the range.
                    let left = unsafe { guard::copy(FaultPolicy::Trap, copy.as_mut_ptr(), from, 700, lo, hi) };
                    assert_eq!(left, 700 - distance);
                    assert!(copy[..distance] == region.bytes(distance, distance)[..]);
                }
            });
        }
    });
}

/// A buffer of the caller's that is not there is the caller's mistake, and kills as it always does.
#[test]
fn a_fault_outside_the_range_is_not_swallowed() {
    let name = "sys::guard::tests::faults::a_fault_outside_the_range_is_not_swallowed";
    let Some(case) = super::case() else {
        for case in ["copy from", "copy to", "fill", "unguarded"] {
            let status = super::child(name, case);
            #[cfg(unix)]
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGBUS), "{case}");
            #[cfg(windows)]
            assert_eq!(status.code().map(|code| code & 0xff), Some(5), "{case}");
        }
        return;
    };
    guard::arm().unwrap();
    let (mine, theirs) = (Region::new(STEP, STEP), Region::new(STEP, STEP));
    let (lo, hi) = mine.range();
    let (here, gone) = (mine.base(), theirs.border());
    match case.as_str() {
        // SAFETY: this process shall die here.
        "copy from" => unsafe { guard::copy(FaultPolicy::Trap, here, gone, 100, lo, hi) },
        // SAFETY: this process shall die here.
        "copy to" => unsafe { guard::copy(FaultPolicy::Trap, gone, here, 100, lo, hi) },
        // SAFETY: this process shall die here.
        "fill" => unsafe { guard::fill(FaultPolicy::Trap, gone, 1, 100, lo, hi) },
        // SAFETY: this process shall die here.
        _ => unsafe { guard::copy(FaultPolicy::Unguarded, here, gone, 100, 0, usize::MAX) },
    };
    std::process::exit(0);
}

#[test]
fn a_fault_takes_microseconds() {
    guard::arm().unwrap();
    let region = Region::new(STEP, STEP);
    let (lo, hi) = region.range();
    let rounds = 100_000;
    let mut copy = [0_u8; 64];
    let start = Instant::now();
    let mut left = 0;
    for _ in 0..rounds {
        // SAFETY: as many bytes in the array; those that are not there are in the range.
        left += unsafe { guard::copy(FaultPolicy::Trap, copy.as_mut_ptr(), black_box(region.border()), 64, lo, hi) };
    }
    println!("{rounds} copies that fault: {:?} each", start.elapsed() / rounds);
    assert_eq!(left, 64 * rounds as usize);
}

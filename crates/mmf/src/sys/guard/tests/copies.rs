//! Copies and fills that meet no fault: the bytes, all of them and no others.

use super::every_way;
use super::region::number;
use crate::sys::guard::{self, portable};
use crate::types::FaultPolicy;

/// Room before and behind, to see that nothing else is touched.
const MARGIN: usize = 64;

/// A length, and where source and destination begin relative to a line of the cache.
fn check_copy(policy: FaultPolicy, len: usize, to: usize, from: usize, room: &mut Room) {
    let Room { source, found, expected, .. } = room;
    found.fill(0xa5);
    expected.fill(0xa5);
    let (to, from) = (MARGIN + to, MARGIN + from);
    assert!(to + len + MARGIN <= found.len() && from + len <= source.len());
    // SAFETY: within both arrays, as asserted.
    let left = unsafe { guard::copy(policy, found[to..].as_mut_ptr(), source[from..].as_ptr(), len, 0, usize::MAX) };
    // SAFETY: as above.
    unsafe { portable::copy(expected[to..].as_mut_ptr(), source[from..].as_ptr(), len, 0, 0) };
    assert_eq!(left, 0);
    assert!(found == expected, "copy of {len} bytes, {from} to {to}");
}

fn check_fill(policy: FaultPolicy, len: usize, to: usize, room: &mut Room) {
    let Room { found, expected, .. } = room;
    found.fill(0xa5);
    expected.fill(0xa5);
    let to = MARGIN + to;
    assert!(to + len + MARGIN <= found.len());
    // SAFETY: within the array, as asserted.
    let left = unsafe { guard::fill(policy, found[to..].as_mut_ptr(), 0x5c, len, 0, usize::MAX) };
    // SAFETY: as above.
    unsafe { portable::fill(expected[to..].as_mut_ptr(), 0x5c, len, 0, 0) };
    assert_eq!(left, 0);
    assert!(found == expected, "fill of {len} bytes to {to}");
}

struct Room {
    source: Vec<u8>,
    found: Vec<u8>,
    expected: Vec<u8>,
}

impl Room {
    fn new(len: usize) -> Self {
        let whole = len + 4 * MARGIN;
        Room { source: (0..whole).map(|at| number(at, 1)).collect(), found: vec![0; whole], expected: vec![0; whole] }
    }
}

#[test]
fn every_length_at_every_kind_of_alignment() {
    every_way(|| {
        for len in 0..=4200_usize {
            // Small lengths have the most cases; each of the longer ones meets some of the alignments.
            let mut room = Room::new(len);
            let step = if len <= 300 { 1 } else { 5 };
            for case in (len % step..8).step_by(step) {
                let offsets = [(0, 0), (1, 0), (0, 1), (63, 63), (15, 33), (32, 16), (33, 62), (7, 8)];
                check_copy(FaultPolicy::Trap, len, offsets[case].0, offsets[case].1, &mut room);
                check_fill(FaultPolicy::Trap, len, offsets[case].0, &mut room);
            }
        }
    });
}

#[test]
fn long_ones() {
    every_way(|| {
        for len in [8191, 16384, 16385, 40_000, 65_537, 200_003, 1 << 20] {
            let mut room = Room::new(len);
            for (to, from) in [(0, 0), (1, 0), (0, 1), (63, 62)] {
                check_copy(FaultPolicy::Trap, len, to, from, &mut room);
                check_fill(FaultPolicy::Trap, len, to, &mut room);
            }
        }
    });
}

#[test]
fn every_policy_does_the_same() {
    for policy in [FaultPolicy::Unguarded, FaultPolicy::SystemCalls] {
        if policy == FaultPolicy::SystemCalls && guard::probe_system_calls().is_err() {
            continue;
        }
        for len in [0, 1, 8, 63, 64, 65, 4096, 10_000, 100_000] {
            let mut room = Room::new(len);
            check_copy(policy, len, 3, 5, &mut room);
            check_fill(policy, len, 3, &mut room);
        }
    }
}

//! Looks at several places in a row, each by itself: for processors without routines of ours for that, and for the tests to
//! compare with.

#![allow(dead_code, reason = "some processors need a part of it, or nothing")]

use std::sync::atomic::{Ordering, fence};

use super::{Fault, Matches, Word};
use crate::spec::FaultPolicy;

/// # Safety
///
/// As [`load_four`](super::load_four).
pub(in crate::sys::guard) unsafe fn load_four(src: *const u8) -> Result<[u64; 4], Fault> {
    let mut words = [0; 4];
    for (nth, word) in words.iter_mut().enumerate() {
        // SAFETY: one of the words of which the caller speaks.
        *word = unsafe { u64::load(src.wrapping_add(8 * nth).cast()) }?;
    }
    Ok(words)
}

/// # Safety
///
/// As [`match_eight`](super::match_eight).
pub(in crate::sys::guard) unsafe fn match_eight(src: *const u8, mask: u32, wanted: u32) -> Result<Matches, Fault> {
    let mut matches = Matches { bits: 0, word: 0 };
    for nth in 0..8 {
        // SAFETY: one of the words of which the caller speaks.
        let word = unsafe { u64::load(src.wrapping_add(8 * nth).cast()) }?;
        if matches.bits == 0 {
            matches.word = word;
        }
        matches.bits |= u64::from((word >> 32) & u64::from(mask) == u64::from(wanted)) << nth;
    }
    Ok(matches)
}

/// # Safety
///
/// As [`copy_between`](super::copy_between).
pub(in crate::sys::guard) unsafe fn copy_between(
    [first, second]: [*const u64; 2],
    src: *const u8,
    to: [*mut [u8]; 2],
) -> Result<Option<[u64; 2]>, Fault> {
    // SAFETY: the caller's promise.
    let one = unsafe { u64::load(first) }?;
    // SAFETY: as above.
    let other = unsafe { u64::load(second) }?;
    // Both are acquires, so what is copied is from after them.
    let mut from = src;
    for to in to {
        let (lo, hi) = (from.addr(), from.addr() + to.len());
        // SAFETY: as above.
        if unsafe { super::copy(FaultPolicy::Trap, to.cast(), from, to.len(), lo, hi) } != 0 {
            return Err(Fault);
        }
        from = from.wrapping_add(to.len());
    }
    // And from before what is loaded after this.
    fence(Ordering::Acquire);
    // SAFETY: as above.
    let is_same = unsafe { u64::load(second) }? == other;
    // SAFETY: as above.
    let is_same = is_same && unsafe { u64::load(first) }? == one;
    Ok(is_same.then_some([one, other]))
}

/// See [`prefetch`](super::prefetch).
#[inline(always)]
pub(in crate::sys::guard) fn prefetch(_: *const u8) {}

//! Looks at several places in a row, each by itself: for processors without routines of ours for that, and for the tests to
//! compare with.

#![allow(dead_code, reason = "some processors need a part of it, or nothing")]

use std::sync::atomic::{Ordering, fence};

use super::{Fault, Matches, Word};
use crate::types::FaultPolicy;

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
/// As [`copy_validated`](super::copy_validated).
pub(in crate::sys::guard) unsafe fn copy_validated(
    (first, expected): (*const u64, u64),
    second: *const u64,
    src: *const u64,
    key: &[u8],
    to: *mut [u8],
) -> Result<Option<[u64; 4]>, Fault> {
    let mut words = [0; 4];
    // Each is an acquire, so what is looked at behind it is from after it.
    for (word, from) in words.iter_mut().zip([second, src, src.wrapping_add(1), src.wrapping_add(2)]) {
        // SAFETY: the caller's promise.
        *word = unsafe { u64::load(from) }?;
    }
    let mut from: *const u8 = src.wrapping_add(3).cast();
    let mut is_same = true;
    let mut some = [0; 64];
    for key in key.chunks(some.len()) {
        // SAFETY: as above; `some` is this function's, and no shorter.
        unsafe { copy(some.as_mut_ptr(), from, key.len()) }?;
        is_same &= some[..key.len()] == *key;
        from = from.wrapping_add(key.len());
    }
    // SAFETY: as above.
    unsafe { copy(to.cast(), from, to.len()) }?;
    // And from before what is loaded after this.
    fence(Ordering::Acquire);
    // SAFETY: as above.
    is_same &= unsafe { u64::load(first) }? == expected;
    // SAFETY: as above.
    is_same &= unsafe { u64::load(second) }? == words[0];
    Ok(is_same.then_some(words))
}

/// # Safety
///
/// As [`copy`](super::copy), with a fault in the source alone.
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    let left = unsafe { super::copy(FaultPolicy::Trap, to, from, len, from.addr(), from.addr() + len) };
    if left == 0 { Ok(()) } else { Err(Fault) }
}

/// See [`prefetch`](super::prefetch).
#[inline(always)]
pub(in crate::sys::guard) fn prefetch(_: *const u8) {}

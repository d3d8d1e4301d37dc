//! Reads several places one by one. Serves processors without routines for that, and the tests
//! compare results with it.

#![allow(dead_code, reason = "some processors need a part of it, or nothing")]

use std::sync::atomic::{Ordering, fence};

use super::{Fault, Matches, Word};
use crate::types::FaultPolicy;

/// # Safety
///
/// The conditions of [`load_four`](super::load_four) hold.
pub(in crate::sys::guard) unsafe fn load_four(src: *const u8) -> Result<[u64; 4], Fault> {
    let mut words = [0; 4];
    for (nth, word) in words.iter_mut().enumerate() {
        // SAFETY: this is one of the words that the caller's promise covers.
        *word = unsafe { u64::load(src.wrapping_add(8 * nth).cast()) }?;
    }
    Ok(words)
}

/// # Safety
///
/// The conditions of [`match_eight`](super::match_eight) hold.
pub(in crate::sys::guard) unsafe fn match_eight(src: *const u8, mask: u32, wanted: u32) -> Result<Matches, Fault> {
    let mut matches = Matches { bits: 0, word: 0 };
    for nth in 0..8 {
        // SAFETY: this is one of the words that the caller's promise covers.
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
/// The conditions of [`copy_validated`](super::copy_validated) hold.
pub(in crate::sys::guard) unsafe fn copy_validated(
    (first, expected): (*const u64, u64),
    second: *const u64,
    src: *const u64,
    key: &[u8],
    to: *mut [u8],
) -> Result<Option<[u64; 4]>, Fault> {
    let mut words = [0; 4];
    // Each load is an acquire, so all later accesses see memory as of this load or newer.
    for (word, from) in words.iter_mut().zip([second, src, src.wrapping_add(1), src.wrapping_add(2)]) {
        // SAFETY: the caller's promise.
        *word = unsafe { u64::load(from) }?;
    }
    let mut from: *const u8 = src.wrapping_add(3).cast();
    let mut is_same = true;
    let mut some = [0; 64];
    for key in key.chunks(some.len()) {
        // SAFETY: the caller's promise covers the source. `some` is a local array of at least this
        // length.
        unsafe { copy(some.as_mut_ptr(), from, key.len()) }?;
        is_same &= some[..key.len()] == *key;
        from = from.wrapping_add(key.len());
    }
    // SAFETY: the caller's promise covers the source and `to`.
    unsafe { copy(to.cast(), from, to.len()) }?;
    // The fence orders the copies before the two loads that follow.
    fence(Ordering::Acquire);
    // SAFETY: the caller's promise covers this word.
    is_same &= unsafe { u64::load(first) }? == expected;
    // SAFETY: the caller's promise covers this word.
    is_same &= unsafe { u64::load(second) }? == words[0];
    Ok(is_same.then_some(words))
}

/// # Safety
///
/// The conditions of [`copy`](super::copy) hold, and only the source can fault.
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    let left = unsafe { super::copy(FaultPolicy::Trap, to, from, len, from.addr(), from.addr() + len) };
    if left == 0 { Ok(()) } else { Err(Fault) }
}

/// Does nothing. See [`prefetch`](super::prefetch).
#[inline(always)]
pub(in crate::sys::guard) fn prefetch(_: *const u8) {}

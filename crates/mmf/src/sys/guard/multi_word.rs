//! Stores of many words, each by itself: for processors without routines of ours for that, and for the tests to compare with.

use super::{Fault, Word};

/// # Safety
///
/// As [`store_words`](super::store_words).
pub(in crate::sys::guard) unsafe fn store_words(dst: *mut u8, words: &[u64]) -> Result<(), Fault> {
    for (nth, word) in words.iter().enumerate() {
        // SAFETY: one of the words of which the caller speaks.
        unsafe { u64::store_release(dst.wrapping_add(8 * nth).cast(), *word) }?;
    }
    Ok(())
}

/// # Safety
///
/// As [`store_pairs`](super::store_pairs).
pub(in crate::sys::guard) unsafe fn store_pairs(base: *mut u8, last: u64, pairs: &[[u64; 2]]) -> Result<usize, Fault> {
    for (nth, [offset, value]) in pairs.iter().enumerate() {
        let Some(offset) = usize::try_from(*offset).ok().filter(|at| *offset <= last && at % 8 == 0) else {
            return Ok(nth);
        };
        // SAFETY: one of the words of which the caller speaks.
        unsafe { u64::store_release(base.wrapping_add(offset).cast(), *value) }?;
    }
    Ok(pairs.len())
}

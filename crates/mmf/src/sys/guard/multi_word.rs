//! Stores many words one by one. Serves processors without routines for that, and the tests compare
//! results with it.

use super::{Fault, Word};

/// # Safety
///
/// The conditions of [`store_words`](super::store_words) hold.
pub(in crate::sys::guard) unsafe fn store_words(dst: *mut u8, words: &[u64]) -> Result<(), Fault> {
    for (nth, word) in words.iter().enumerate() {
        // SAFETY: this is one of the words that the caller's promise covers.
        unsafe { u64::store_release(dst.wrapping_add(8 * nth).cast(), *word) }?;
    }
    Ok(())
}

/// # Safety
///
/// The conditions of [`store_pairs`](super::store_pairs) hold.
pub(in crate::sys::guard) unsafe fn store_pairs(base: *mut u8, last: u64, pairs: &[[u64; 2]]) -> Result<usize, Fault> {
    for (nth, [offset, value]) in pairs.iter().enumerate() {
        let Some(offset) = usize::try_from(*offset).ok().filter(|at| *offset <= last && at % 8 == 0) else {
            return Ok(nth);
        };
        // SAFETY: this is one of the words that the caller's promise covers.
        unsafe { u64::store_release(base.wrapping_add(offset).cast(), *value) }?;
    }
    Ok(pairs.len())
}

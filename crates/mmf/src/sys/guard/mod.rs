//! Copies and atomic operations on shared bytes that return, instead of killing the process, when a page
//! is gone.
//!
//! # The contract
//!
//! A copy is per-byte relaxed atomics in no fixed order. When a page is gone, the bytes before the first that
//! cannot be reached are copied and the count of those left is exact; a few behind it may be copied too.
//! Atomic operations are sequentially consistent, `store_release` excepted. Loads do not write: they work on
//! read-only views.
//!
//! Under [`FaultPolicy::Trap`] a fault is caught only if its address is in `lo..hi`, so that the program's own
//! mistakes (a buffer that is not there) stay visible. [`arm`] must have succeeded in this process before.
//! Under [`FaultPolicy::SystemCalls`] the system does not say which side failed, so `lo..hi` means nothing.
//!
//! # How it is made
//!
//! - `trap`: assembly with fix-ups, and what leads a fault there: a signal handler (`signal`),
//!   unwind data (`seh`) or a vectored handler (`vectored`).
//! - `syscalls`: the system copies and reports.
//! - `portable`: Rust's own atomics, for processors without assembly of ours, and for the tests to compare with.

#[cfg(any(test, not(trap64)))]
mod multi_word;
#[cfg(any(test, not(trap)))]
mod portable;
#[cfg(trap)]
mod trap;
mod validated_read;

#[cfg_attr(linux_like, path = "syscalls_linux.rs")]
#[cfg_attr(target_os = "macos", path = "syscalls_macos.rs")]
#[cfg_attr(windows, path = "syscalls_windows.rs")]
#[cfg_attr(not(any(linux_like, target_os = "macos", windows)), path = "syscalls_none.rs")]
mod syscalls;

#[cfg(not(trap))]
use portable as imp;
#[cfg(trap)]
use trap as imp;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::types::FaultPolicy;

/// A page is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault;

/// Copies and returns how many bytes at the end were not copied.
///
/// # Safety
///
/// - `src..src + len` may be read and `dst..dst + len` written, but for pages that are gone and, under
///   [`FaultPolicy::Trap`], lie in `lo..hi`.
/// - Nobody holds a reference to the destination, or an exclusive one to the source, where others may write
///   at the same time they do so as shared memory allows: no reference of this process covers such bytes.
/// - Where the two overlap, the caller can do with any of the bytes that either held.
#[inline]
pub(crate) unsafe fn copy(
    policy: FaultPolicy,
    dst: *mut u8,
    src: *const u8,
    len: usize,
    lo: usize,
    hi: usize,
) -> usize {
    match policy {
        // SAFETY: the caller's promise, passed on.
        FaultPolicy::Trap => unsafe { imp::copy(dst, src, len, lo, hi) },
        // SAFETY: the caller's promise, passed on.
        FaultPolicy::SystemCalls => unsafe { in_pieces(dst, src, len) },
        // SAFETY: the caller's promise, passed on; no address is in the empty range.
        FaultPolicy::Unguarded => unsafe { imp::copy(dst, src, len, usize::MAX, 0) },
    }
}

/// Sets bytes and returns how many at the end were not set.
///
/// # Safety
///
/// As [`copy`], without a source.
#[inline]
pub(crate) unsafe fn fill(policy: FaultPolicy, dst: *mut u8, byte: u8, len: usize, lo: usize, hi: usize) -> usize {
    match policy {
        // SAFETY: the caller's promise, passed on.
        FaultPolicy::Trap => unsafe { imp::fill(dst, byte, len, lo, hi) },
        // SAFETY: the caller's promise, passed on.
        FaultPolicy::SystemCalls => unsafe { fill_in_pieces(dst, byte, len) },
        // SAFETY: the caller's promise, passed on; no address is in the empty range.
        FaultPolicy::Unguarded => unsafe { imp::fill(dst, byte, len, usize::MAX, 0) },
    }
}

/// Makes faults be caught in this process, again if somebody took that away. Cheap when they are already.
///
/// # Errors
///
/// [`Unsupported`](crate::ErrorKind::Unsupported) where there are no routines for the processor or the system.
pub(crate) fn arm() -> Result<()> {
    imp::arm()
}

/// Whether [`FaultPolicy::SystemCalls`] works here.
///
/// # Errors
///
/// [`Unsupported`](crate::ErrorKind::Unsupported), with the reason.
pub(crate) fn probe_system_calls() -> Result<()> {
    let (source, mut copy) = (*b"probe", [0; 5]);
    // SAFETY: both are arrays of that length, and the system alone writes to the one.
    let outcome = unsafe { syscalls::copy(copy.as_mut_ptr(), source.as_ptr(), source.len()) };
    match outcome {
        Ok(5) if copy == source => Ok(()),
        Ok(_) => Err(Error::unsupported("copy by system calls", "this system's copies are incomplete")),
        Err(source) => Err(Error::unsupported("copy by system calls", syscalls::NEEDS).with_source(source)),
    }
}

/// Whether the page of this address can be read; the page is brought in for it. A page that is gone
/// is no signal.
#[cfg(any(linux_like, apple))]
pub(crate) fn can_be_read(address: *const u8) -> bool {
    syscalls::can_be_read(address)
}

/// A word of shared memory. A fault at its address is an error.
///
/// # Safety of its functions
///
/// The address is a multiple of the word's size; the word may be read, and written unless the function is
/// [`load`](Word::load), but for pages that are gone. No reference that excludes sharing covers it.
/// [`arm`] has succeeded, or no page of it can go.
pub(crate) trait Word: Copy {
    unsafe fn load(src: *const Self) -> Result<Self, Fault>;
    unsafe fn store(dst: *mut Self, value: Self) -> Result<(), Fault>;
    /// What this thread did before is seen by whoever loads the value; nothing more.
    unsafe fn store_release(dst: *mut Self, value: Self) -> Result<(), Fault>;
    unsafe fn swap(dst: *mut Self, value: Self) -> Result<Self, Fault>;
    unsafe fn add(dst: *mut Self, value: Self) -> Result<Self, Fault>;
    /// `Ok(old)`: equal to `current` if it was exchanged.
    unsafe fn compare_exchange(dst: *mut Self, current: Self, new: Self) -> Result<Self, Fault>;
}

/// Stores words one by one, each as [`Word::store_release`] does, to `dst`.
///
/// # Safety
///
/// As for [`Word`], for each word of `dst`.
#[inline]
pub(crate) unsafe fn store_words(dst: *mut u8, words: &[u64]) -> Result<(), Fault> {
    // SAFETY: the caller's promise, passed on.
    unsafe { imp::store_words(dst, words) }
}

/// Stores pairs of an offset from `base` and a word, in their order and each as [`Word::store_release`] does, and gives how many:
/// all, or those before one whose offset is larger than `last` or no multiple of 8.
///
/// # Safety
///
/// As for [`Word`], for each word at a multiple of 8 up to `last` from `base`.
#[inline]
pub(crate) unsafe fn store_pairs(base: *mut u8, last: u64, pairs: &[[u64; 2]]) -> Result<usize, Fault> {
    // SAFETY: the caller's promise, passed on.
    unsafe { imp::store_pairs(base, last, pairs) }
}

/// Loads four words that follow each other, in their order and each as [`Word::load`] does.
///
/// # Safety
///
/// As for [`Word`], for each of the four.
#[inline]
pub(crate) unsafe fn load_four(src: *const u8) -> Result<[u64; 4], Fault> {
    // SAFETY: the caller's promise, passed on.
    unsafe { imp::load_four(src) }
}

/// What [`match_eight`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matches {
    /// A bit for each word that matches.
    pub(crate) bits: u64,
    /// The first that does; where there is none, the eighth. It may be from later than the bits.
    pub(crate) word: u64,
}

/// Which of eight words that follow each other have `wanted` in their upper halves, of those bits that `mask` has. Each is loaded
/// whole, in no fixed order; the one that is given is loaded once more, as [`Word::load`] does.
///
/// # Safety
///
/// As for [`Word`], for each of the eight.
#[inline(always)]
pub(crate) unsafe fn match_eight(src: *const u8, mask: u32, wanted: u32) -> Result<Matches, Fault> {
    // SAFETY: the caller's promise, passed on.
    unsafe { imp::match_eight(src, mask, wanted) }
}

/// Loads a word at `second`, then three words at `src`, compares the bytes behind those with `key`, copies what is behind them to `to`,
/// and loads the word at `first` and then that at `second` again: all of that in no fixed order, but nothing before the first of these
/// loads is complete, nor the last two before all else is. Gives the second word and the three if the bytes are the
/// key's, the second was the same both times, and the first is `expected`.
///
/// `to` has at least 16 bytes, or none.
///
/// # Safety
///
/// As for [`Word`], for each of the five words and for each byte that is compared or copied. `to` may be written, is there, and
/// nobody else has it.
#[inline(always)]
pub(crate) unsafe fn copy_validated(
    first: (*const u64, u64),
    second: *const u64,
    src: *const u64,
    key: &[u8],
    to: *mut [u8],
) -> Result<Option<[u64; 4]>, Fault> {
    debug_assert!(to.len() == 0 || to.len() >= 16);
    // SAFETY: the caller's promise, passed on.
    unsafe { imp::copy_validated(first, second, src, key, to) }
}

/// Has the line of an address fetched into the caches, if the processor sees fit. Nothing else comes of it, whatever the
/// address.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    imp::prefetch(at);
}

/// The smallest page of any system here: what lies within one is there or not, as a whole.
const PAGE: usize = 4096;

/// More than this at once Linux cuts short.
const LONGEST: usize = 1 << 30;

/// [`copy`] by system calls. The system may stop anywhere before a page that is gone, and count less than it
/// copied; so from its first stop on it is asked page by page.
///
/// # Safety
///
/// As [`copy`].
#[inline(never)]
unsafe fn in_pieces(dst: *mut u8, src: *const u8, len: usize) -> usize {
    let mut done = 0;
    let mut stopped = false;
    while done < len {
        let (to, from) = (dst.wrapping_add(done), src.wrapping_add(done));
        let longest = if stopped { PAGE - (to.addr() % PAGE).max(from.addr() % PAGE) } else { LONGEST };
        let piece = longest.min(len - done);
        // SAFETY: the piece is a part of the run that the caller speaks of.
        let copied = unsafe { syscalls::copy(to, from, piece) }.unwrap_or(0).min(piece);
        done += copied;
        if stopped && copied == 0 {
            break;
        }
        stopped |= copied < piece;
    }
    len - done
}

/// [`fill`] by system calls.
///
/// # Safety
///
/// As [`fill`].
#[inline(never)]
unsafe fn fill_in_pieces(dst: *mut u8, byte: u8, len: usize) -> usize {
    let pattern = [byte; PAGE];
    let mut done = 0;
    while done < len {
        let piece = PAGE.min(len - done);
        // SAFETY: the piece is a part of the run that the caller speaks of, and the pattern is as long.
        let left = unsafe { in_pieces(dst.wrapping_add(done), pattern.as_ptr(), piece) };
        done += piece - left;
        if left != 0 {
            break;
        }
    }
    len - done
}

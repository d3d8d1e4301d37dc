//! Copies and atomic operations on shared bytes that return an error, instead of ending the
//! process, when a page is gone.
//!
//! # Problem
//!
//! A peer process can truncate a file while this process has it mapped. The next access to a page
//! behind the new end raises a signal (Unix) or an exception (Windows), which ends the process by
//! default.
//!
//! # Algorithm
//!
//! [`FaultPolicy`] selects one of three ways:
//!
//! 1. `Trap`: `trap` runs assembly routines. A handler moves the program counter from a faulting
//!    instruction to a fix-up, and the routine returns the fault. The handler is a signal handler
//!    (`signal`), a function named by unwind data (`seh`) or a vectored handler (`vectored`).
//! 2. `SystemCalls`: `syscalls` has the kernel copy the bytes. The kernel reports the bytes that it
//!    cannot reach.
//! 3. `Unguarded`: the routines of `trap` run, and a fault ends the process.
//!
//! `portable` uses Rust's atomics. It serves processors without assembly routines, and the tests
//! compare results with it.
//!
//! # Contract
//!
//! - A copy consists of relaxed atomic accesses to single bytes, in no fixed order.
//! - When a page is gone, the copy transfers all bytes before the first unreachable byte. The
//!   returned count of the remaining bytes is exact. A few bytes after the first unreachable byte
//!   may be copied too.
//! - Atomic operations are sequentially consistent, except `store_release`.
//! - Loads do not write, so they work on read-only views.
//! - Under [`FaultPolicy::Trap`], the handler catches a fault only if its address is in `lo..hi`.
//!   Faults caused by defects of the program, such as an invalid buffer, stay visible. [`arm`] must
//!   have succeeded in this process before.
//! - Under [`FaultPolicy::SystemCalls`], `lo..hi` has no meaning, because the kernel does not
//!   report which side failed.
//!
//! # Cost
//!
//! Under `Trap`, an access without a fault costs a function call. Under `SystemCalls`, a copy costs
//! at least one system call for each GiB.

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

/// Reports that a page is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault;

/// Copies bytes and returns how many bytes at the end were not copied.
///
/// # Safety
///
/// - `src..src + len` is readable and `dst..dst + len` is writable, except for pages that are gone
///   and, under [`FaultPolicy::Trap`], lie in `lo..hi`.
/// - No reference covers the destination, and no exclusive reference covers the source.
/// - Other threads and processes write to these bytes at the same time only as shared memory
///   allows: no reference of this process covers bytes that they write.
/// - Where source and destination overlap, the caller accepts either old or new bytes.
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

/// Sets bytes and returns how many bytes at the end were not set.
///
/// # Safety
///
/// The conditions of [`copy`] for the destination hold.
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

/// Installs the handler that catches faults in this process, and installs it again if other code
/// has replaced it. Costs one query if the handler is installed.
///
/// # Errors
///
/// Returns [`Unsupported`](crate::ErrorKind::Unsupported) if there are no routines for the
/// processor or the system.
pub(crate) fn arm() -> Result<()> {
    imp::arm()
}

/// Checks that [`FaultPolicy::SystemCalls`] works on this system.
///
/// # Errors
///
/// Returns [`Unsupported`](crate::ErrorKind::Unsupported), with the reason.
pub(crate) fn probe_system_calls() -> Result<()> {
    let (source, mut copy) = (*b"probe", [0; 5]);
    // SAFETY: both arrays have the length passed, and only the system writes to `copy`.
    let outcome = unsafe { syscalls::copy(copy.as_mut_ptr(), source.as_ptr(), source.len()) };
    match outcome {
        Ok(5) if copy == source => Ok(()),
        Ok(_) => Err(Error::unsupported("copy by system calls", "this system's copies are incomplete")),
        Err(source) => Err(Error::unsupported("copy by system calls", syscalls::NEEDS).with_source(source)),
    }
}

/// Returns whether the page of this address is readable, and brings the page into memory. Raises no
/// signal if the page is gone.
#[cfg(any(linux_like, apple))]
pub(crate) fn can_be_read(address: *const u8) -> bool {
    syscalls::can_be_read(address)
}

/// A word of shared memory. A fault at its address is an error.
///
/// # Safety of its functions
///
/// - The address is a multiple of the word's size.
/// - The word is readable, and is writable unless the function is [`load`](Word::load), except for
///   pages that are gone.
/// - No reference that excludes sharing covers the word.
/// - [`arm`] has succeeded, or no page of the word can disappear.
pub(crate) trait Word: Copy {
    unsafe fn load(src: *const Self) -> Result<Self, Fault>;
    unsafe fn store(dst: *mut Self, value: Self) -> Result<(), Fault>;
    /// Stores with release ordering only: a thread that loads the value with acquire ordering sees
    /// all earlier writes of this thread.
    unsafe fn store_release(dst: *mut Self, value: Self) -> Result<(), Fault>;
    unsafe fn swap(dst: *mut Self, value: Self) -> Result<Self, Fault>;
    unsafe fn add(dst: *mut Self, value: Self) -> Result<Self, Fault>;
    /// Returns the old value. The exchange happened if it equals `current`.
    unsafe fn compare_exchange(dst: *mut Self, current: Self, new: Self) -> Result<Self, Fault>;
}

/// Stores `words` to `dst` one by one, each as [`Word::store_release`] does.
///
/// # Safety
///
/// The conditions of [`Word`] hold for each word of `dst`.
#[inline]
pub(crate) unsafe fn store_words(dst: *mut u8, words: &[u64]) -> Result<(), Fault> {
    // SAFETY: the caller's promise, passed on.
    unsafe { imp::store_words(dst, words) }
}

/// Stores pairs of an offset from `base` and a word, in order, each as [`Word::store_release`]
/// does.
///
/// Stops before the first pair whose offset is larger than `last` or not a multiple of 8. Returns
/// the number of pairs stored.
///
/// # Safety
///
/// The conditions of [`Word`] hold for each word whose offset from `base` is a multiple of 8 and at
/// most `last`.
#[inline]
pub(crate) unsafe fn store_pairs(base: *mut u8, last: u64, pairs: &[[u64; 2]]) -> Result<usize, Fault> {
    // SAFETY: the caller's promise, passed on.
    unsafe { imp::store_pairs(base, last, pairs) }
}

/// Loads four consecutive words in order, each as [`Word::load`] does.
///
/// # Safety
///
/// The conditions of [`Word`] hold for each of the four words.
#[inline]
pub(crate) unsafe fn load_four(src: *const u8) -> Result<[u64; 4], Fault> {
    // SAFETY: the caller's promise, passed on.
    unsafe { imp::load_four(src) }
}

/// The result of [`match_eight`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matches {
    /// One bit for each word that matches.
    pub(crate) bits: u64,
    /// The first word that matches, or the eighth word if none does. It may be newer than the bits.
    pub(crate) word: u64,
}

/// Compares the upper halves of eight consecutive words with `wanted`, in the bits of `mask`.
///
/// Loads each word whole, in no fixed order. Loads the returned word a second time, as
/// [`Word::load`] does.
///
/// # Safety
///
/// The conditions of [`Word`] hold for each of the eight words.
#[inline(always)]
pub(crate) unsafe fn match_eight(src: *const u8, mask: u32, wanted: u32) -> Result<Matches, Fault> {
    // SAFETY: the caller's promise, passed on.
    unsafe { imp::match_eight(src, mask, wanted) }
}

/// Reads a key and a value between two loads of the words that validate them:
///
/// 1. Loads a word at `second`, and then three words at `src`.
/// 2. Compares the bytes after those three words with `key`, and copies the bytes after the key to
///    `to`.
/// 3. Loads the word at `first`, and then the word at `second` again.
///
/// The accesses have no fixed order, with two exceptions. None starts before the first load is
/// complete, and the two loads of step 3 start after all other accesses are complete.
///
/// Returns the first value of `second` and the three words if all of these hold: the bytes equal
/// `key`, both loads of `second` gave one value, and `first` is `expected`.
///
/// `to` has no bytes, or at least 16.
///
/// # Safety
///
/// The conditions of [`Word`] hold for each of the five words, and for each byte that is compared
/// or copied. `to` is writable, none of its pages is gone, and only the caller accesses it.
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

/// Hints that the processor should fetch the cache line of an address. Has no other effect, and
/// accepts any address.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    imp::prefetch(at);
}

/// The smallest page size of all supported systems. The bytes within one such page are all present
/// or all gone.
const PAGE: usize = 4096;

/// Linux transfers at most about 2 GiB in one call, so each call transfers at most this many bytes.
const LONGEST: usize = 1 << 30;

/// Copies as [`copy`] does, by system calls.
///
/// The system may stop at any byte before a page that is gone, and may report fewer bytes than it
/// copied. After its first stop, each further call copies at most one page.
///
/// # Safety
///
/// The conditions of [`copy`] hold.
#[inline(never)]
unsafe fn in_pieces(dst: *mut u8, src: *const u8, len: usize) -> usize {
    let mut done = 0;
    let mut stopped = false;
    while done < len {
        let (to, from) = (dst.wrapping_add(done), src.wrapping_add(done));
        let longest = if stopped { PAGE - (to.addr() % PAGE).max(from.addr() % PAGE) } else { LONGEST };
        let piece = longest.min(len - done);
        // SAFETY: the piece is part of the range that the caller's promise covers.
        let copied = unsafe { syscalls::copy(to, from, piece) }.unwrap_or(0).min(piece);
        done += copied;
        if stopped && copied == 0 {
            break;
        }
        stopped |= copied < piece;
    }
    len - done
}

/// Fills as [`fill`] does, by system calls.
///
/// # Safety
///
/// The conditions of [`fill`] hold.
#[inline(never)]
unsafe fn fill_in_pieces(dst: *mut u8, byte: u8, len: usize) -> usize {
    let pattern = [byte; PAGE];
    let mut done = 0;
    while done < len {
        let piece = PAGE.min(len - done);
        // SAFETY: the piece is part of the range that the caller's promise covers, and the pattern
        // is at least as long.
        let left = unsafe { in_pieces(dst.wrapping_add(done), pattern.as_ptr(), piece) };
        done += piece - left;
        if left != 0 {
            break;
        }
    }
    len - done
}

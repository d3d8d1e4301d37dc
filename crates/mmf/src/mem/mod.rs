//! Words and bytes of shared memory: the only module that loads, stores and copies them.
//!
//! # By offset or by address
//!
//! - An [`Accessor`] has the operations by offset. It checks bounds and alignment once, and turns
//!   the offset into an address. `&Mapping` is the checked one: its error gives the reason, and it
//!   follows an object that has grown. [`FastAccess`] is the one for fast paths: its error is
//!   [`Miss`], and then the slow path finds out the reason.
//! - A [`SharedWord`] is a word whose place was checked before, for the words of locks and queues,
//!   which are at fixed offsets.
//!
//! # Three forms
//!
//! | form | an operation is | where |
//! | --- | --- | --- |
//! | real | a guarded access, which reports a page that is gone | [`guard`](crate::sys::guard) |
//! | loom | an access to loom's words, in every order | `sys::model::memory` |
//! | traced | the real one, then a record of what was stored | [`trace`] |
//!
//! `sys::memory` is the real form, or loom's in the models. The traced form is the real one in
//! tests, where [`trace`] is more than empty functions: the power-cut tests replay what a thread
//! has stored and synced. Operations of a [`SharedWord`] are not recorded, since a dict keeps
//! nothing in such words that has to survive a power cut.

mod fast_access;
mod shared_word;
#[cfg(test)]
pub(crate) mod trace;
#[cfg(not(test))]
#[path = "untraced.rs"]
pub(crate) mod trace;

pub(crate) use fast_access::{FastAccess, FastAccessMut, Miss};
pub(crate) use shared_word::{SharedWord, SharedWords};

use crate::sys::guard::Fault;
use crate::sys::memory;
pub(crate) use crate::sys::memory::Word;
use crate::types::FaultPolicy;

/// Loads and copies by offset.
///
/// `doing` is the operation's name in an error.
///
/// # Safety
///
/// - `bytes` and `words` return as `Ok` the address of `len` bytes or `count` words that lie in a
///   view; the address of words is a multiple of 8.
/// - The view stays mapped while the accessor can be used.
/// - A fault in it is caught under `policy`, or no page of it can go. No words are accessed under
///   [`FaultPolicy::SystemCalls`].
pub(crate) unsafe trait Accessor: Copy {
    /// The failure of an operation: the range is invalid, or a page of it is gone.
    type Error;

    /// Returns how the view survives a page that is gone.
    fn policy(self) -> FaultPolicy;

    /// Returns the address of `len` bytes at `offset`.
    fn bytes(self, offset: usize, len: usize, doing: &'static str) -> Result<*mut u8, Self::Error>;

    /// Returns the address of `count` words at `offset`.
    fn words(self, offset: usize, count: usize, doing: &'static str) -> Result<*mut u8, Self::Error>;

    /// Returns the error of an operation at `offset` that met a missing page after `done` bytes.
    fn fault(self, doing: &'static str, offset: usize, done: usize) -> Self::Error;

    /// Loads the word at `offset`, sequentially consistent.
    #[inline(always)]
    fn word(self, offset: usize) -> Result<u64, Self::Error> {
        let at = self.words(offset, 1, "read")?;
        // SAFETY: `words` has checked the place and the alignment; the view is mapped.
        let loaded = unsafe { u64::load(at.cast_const().cast()) };
        loaded.map_err(|Fault| self.fault("read", offset, 0))
    }

    /// Loads four words that follow each other, in their order and each as
    /// [`word`](Accessor::word) does.
    #[inline(always)]
    fn four_words(self, offset: usize) -> Result<[u64; 4], Self::Error> {
        let at = self.words(offset, 4, "read")?;
        // SAFETY: `words` has checked the place and the alignment of all four; the view is mapped.
        let loaded = unsafe { memory::load_four(at) };
        loaded.map_err(|Fault| self.fault("read", offset, 0))
    }

    /// Copies `len` bytes at `offset` to `to`.
    ///
    /// # Safety
    ///
    /// `to` may be written for `len` bytes, and no page of it can go.
    #[inline(always)]
    unsafe fn read_to(self, offset: usize, to: *mut u8, len: usize) -> Result<(), Self::Error> {
        let src = self.bytes(offset, len, "read")?;
        // SAFETY: `bytes` has checked that the source lies in a view, which is mapped; `to` is the
        // caller's promise.
        let left = unsafe { memory::copy(self.policy(), to, src, len, src.addr(), src.addr() + len) };
        if left == 0 { Ok(()) } else { Err(self.fault("read", offset, len - left)) }
    }
}

/// Stores and copies by offset.
///
/// # Safety
///
/// The conditions of [`Accessor`] hold. If `require_writable` returns `Ok`, the view may be
/// written.
pub(crate) unsafe trait AccessorMut: Accessor {
    /// Returns an error if the view may only be read.
    fn require_writable(self, doing: &'static str) -> Result<(), Self::Error>;

    /// Stores the word at `offset`, with release ordering.
    #[inline(always)]
    fn put_word(self, offset: usize, value: u64) -> Result<(), Self::Error> {
        self.require_writable("write")?;
        let at = self.words(offset, 1, "write")?;
        // SAFETY: `words` has checked the place and the alignment; the view is mapped and may be
        // written.
        let stored = unsafe { u64::store_release(at.cast(), value) };
        trace::words(offset, &[value]);
        stored.map_err(|Fault| self.fault("write", offset, 0))
    }

    /// Stores words from `offset` on, one after the other and each as
    /// [`put_word`](AccessorMut::put_word) does. A copy would load `words` in larger pieces, which
    /// stalls if they have just been stored one by one.
    #[inline(always)]
    fn put_words(self, offset: usize, words: &[u64]) -> Result<(), Self::Error> {
        self.require_writable("write")?;
        let at = self.words(offset, words.len(), "write")?;
        // SAFETY: `words` has checked the place and the alignment of all words; the view is mapped
        // and may be written.
        let stored = unsafe { memory::store_words(at, words) };
        trace::words(offset, words);
        stored.map_err(|Fault| self.fault("write", offset, 0))
    }

    /// Copies bytes to `offset`.
    #[inline(always)]
    fn write(self, offset: usize, bytes: &[u8]) -> Result<(), Self::Error> {
        let (src, len) = (bytes.as_ptr(), bytes.len());
        self.require_writable("write")?;
        let dst = self.bytes(offset, len, "write")?;
        // SAFETY: `bytes` has checked the place; the view is mapped and may be written; the source
        // is a slice.
        let left = unsafe { memory::copy(self.policy(), dst, src, len, dst.addr(), dst.addr() + len) };
        trace::bytes(offset, || bytes.to_vec());
        if left == 0 { Ok(()) } else { Err(self.fault("write", offset, len - left)) }
    }

    /// Sets `len` bytes from `offset` on to `value`.
    #[inline(always)]
    fn fill(self, offset: usize, len: usize, value: u8) -> Result<(), Self::Error> {
        self.require_writable("fill")?;
        let dst = self.bytes(offset, len, "fill")?;
        // SAFETY: `bytes` has checked the place; the view is mapped and may be written.
        let left = unsafe { memory::fill(self.policy(), dst, value, len, dst.addr(), dst.addr() + len) };
        trace::bytes(offset, || vec![value; len]);
        if left == 0 { Ok(()) } else { Err(self.fault("fill", offset, len - left)) }
    }

    /// Makes the page of the byte at `offset` dirty: adds 0 to the byte, atomically, which changes
    /// no byte, whatever peers store meanwhile.
    #[inline]
    fn make_dirty(self, offset: usize, doing: &'static str) -> Result<(), Self::Error> {
        self.require_writable(doing)?;
        let byte = self.bytes(offset, 1, doing)?;
        // SAFETY: `bytes` has checked the place; the view is mapped and may be written; a byte is
        // always aligned.
        let value = unsafe { u8::add(byte, 0) }.map_err(|Fault| self.fault(doing, offset, 0))?;
        trace::bytes(offset, || vec![value]);
        Ok(())
    }
}

/// Stores pairs of an offset from `base` and a word, in their order and each as
/// [`put_word`](AccessorMut::put_word) does. Returns how many: all, or those before the first whose
/// offset is larger than `last` or no multiple of 8.
///
/// # Safety
///
/// - From `base` on, `last + 8` bytes lie in a view that is mapped and may be written.
/// - `base` is a multiple of 8.
/// - A fault in the view is caught.
#[inline]
pub(crate) unsafe fn put_pairs(base: *mut u8, last: u64, pairs: &[[u64; 2]]) -> Result<usize, Fault> {
    // SAFETY: the caller's promise, passed on.
    let done = unsafe { memory::store_pairs(base, last, pairs) }?;
    trace::pairs(pairs, done);
    Ok(done)
}

/// The range whose page is gone in a copy from one view to another, with the number of bytes that
/// were copied before.
pub(crate) enum LostPage {
    Source(usize),
    Target(usize),
}

/// Copies `len` bytes from one view to another.
///
/// # Safety
///
/// - The source lies in a view that is mapped, the target in one that may be written as well.
/// - Faults in both are caught under `policy`.
/// - If the two overlap, the caller accepts any mixture of the bytes that either held.
#[inline]
pub(crate) unsafe fn copy_between(
    policy: FaultPolicy,
    dst: *mut u8,
    src: *const u8,
    len: usize,
) -> Result<(), LostPage> {
    // SAFETY: the caller's promise, passed on.
    let left = unsafe { memory::copy(policy, dst, src, len, 0, usize::MAX) };
    if left == 0 {
        return Ok(());
    }
    let done = len - left;
    // A fault of the source repeats. Without one, the target's page is the one that is gone.
    let (mut byte, at) = (0, src.wrapping_add(done));
    // SAFETY: at least one byte of the source was left, and `byte` is one.
    match unsafe { memory::copy(policy, &raw mut byte, at, 1, at.addr(), at.addr() + 1) } {
        0 => Err(LostPage::Target(done)),
        _ => Err(LostPage::Source(done)),
    }
}

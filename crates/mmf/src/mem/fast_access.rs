//! [`FastAccess`]: access by offset for fast paths, with the bounds of a mapping read once.

use std::mem::MaybeUninit;
use std::ops::Deref;

use super::{Accessor, AccessorMut};
use crate::sys::guard::Matches;
use crate::sys::memory;
use crate::types::FaultPolicy;

/// The outcome of a fast path that cannot handle a case. The caller takes the slow path, which
/// handles it or returns the error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Miss;

/// The length of a line, the unit in which bounds are checked, in bytes.
const LINE_LEN: usize = 64;

/// Access to a mapping's bytes up to its length of one moment. Each failure is a [`Miss`] or
/// `None`; the slow path reports the error.
///
/// Each check is one comparison. Up to eight words are within bounds if a line of 64 bytes fits
/// at their start. A longer range is within bounds if a line fits after its end. So valid ranges
/// in the last 64 bytes of the mapping are missed.
#[derive(Clone, Copy)]
pub(crate) struct FastAccess<'a> {
    /// The address of the first byte, a multiple of 8.
    base: *mut u8,
    /// The last offset at which a line fits.
    last_line: usize,
    /// The mapping's policy. The borrow keeps the mapping and its views.
    policy: &'a FaultPolicy,
}

// SAFETY: `new` has checked the base's alignment; `bytes` and `words` compare with the length that
// the view has, and round offsets of words down to multiples of 8. The view is mapped and its
// faults are caught, as the maker of the accessor promised.
unsafe impl Accessor for FastAccess<'_> {
    type Error = Miss;

    #[inline(always)]
    fn policy(self) -> FaultPolicy {
        *self.policy
    }

    #[inline(always)]
    fn bytes(self, offset: usize, len: usize, _doing: &'static str) -> Result<*mut u8, Miss> {
        if self.has(offset, len) { Ok(self.base.wrapping_add(offset)) } else { Err(Miss) }
    }

    /// Returns the address of the words from the one that `offset` lies in. Fast paths use only
    /// words at multiples of 8.
    #[inline(always)]
    fn words(self, offset: usize, count: usize, _doing: &'static str) -> Result<*mut u8, Miss> {
        let len = size_of::<u64>() * count;
        let is_there = if len <= LINE_LEN { offset <= self.last_line } else { self.has(offset, len) };
        if is_there { Ok(self.base.wrapping_add(offset & !7)) } else { Err(Miss) }
    }

    #[inline(always)]
    fn fault(self, _doing: &'static str, _offset: usize, _done: usize) -> Miss {
        Miss
    }
}

impl<'a> FastAccess<'a> {
    /// Returns `None` if the view is shorter than a line, or `base` is not a multiple of 8.
    ///
    /// # Safety
    ///
    /// - The `len` bytes at `base` lie in a view that stays mapped for `'a`.
    /// - A fault in it is caught under `policy`.
    #[inline(always)]
    pub(crate) unsafe fn new(base: *mut u8, len: usize, policy: &'a FaultPolicy) -> Option<FastAccess<'a>> {
        let last_line = len.checked_sub(LINE_LEN)?;
        (base.addr() % 8 == 0).then_some(FastAccess { base, last_line, policy })
    }

    /// Returns whether the `len` bytes from `offset` on, and a line after them, are within bounds.
    #[inline(always)]
    pub(crate) fn has(self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.last_line)
    }

    /// Loads a word like [`Accessor::word`].
    #[inline(always)]
    pub(crate) fn word(self, offset: usize) -> Option<u64> {
        Accessor::word(self, offset).ok()
    }

    /// Loads four words like [`Accessor::four_words`].
    #[inline(always)]
    pub(crate) fn four_words(self, offset: usize) -> Option<[u64; 4]> {
        Accessor::four_words(self, offset).ok()
    }

    /// Prefetches the line of an offset into the caches.
    #[inline(always)]
    pub(crate) fn prefetch(self, offset: usize) {
        memory::prefetch(self.base.wrapping_add(offset));
    }

    /// Compares eight words, see [`match_eight`](crate::sys::guard::match_eight).
    #[inline(always)]
    pub(crate) fn match_eight(self, offset: usize, mask: u32, wanted: u32) -> Option<Matches> {
        let at = self.words(offset, 8, "read").ok()?;
        // SAFETY: `words` has checked the place and the alignment; the view is mapped.
        unsafe { memory::match_eight(at, mask, wanted) }.ok()
    }

    /// Performs a validated read, see [`copy_validated`](crate::sys::guard::copy_validated).
    ///
    /// Returns the word at `second` and the three words from `offset` on, and fills `to` with the
    /// bytes after `key`. Returns `None` if other bytes than `key` follow the three words, if the
    /// word at `second` differs after the copy, or if the word at `first` is not `expected` then.
    /// `to` has at least 16 bytes, or none.
    #[inline(always)]
    pub(crate) fn read_validated(
        self,
        (first, expected): (usize, u64),
        second: usize,
        offset: usize,
        key: &[u8],
        to: &mut [MaybeUninit<u8>],
    ) -> Option<[u64; 4]> {
        let first = self.words(first, 1, "read").ok()?.cast_const().cast();
        let second = self.words(second, 1, "read").ok()?.cast_const().cast();
        // Both are slices, so the sum of their lengths does not overflow.
        if !self.has(offset, key.len() + to.len()) {
            return None;
        }
        let src = self.base.wrapping_add(offset & !7).cast_const().cast();
        let to = &raw mut *to as *mut [u8];
        // SAFETY: `words` has checked the two words. `has` has checked `key.len() + to.len()` bytes
        // and a line after them, which has room for the three words as well. Rounding down to a
        // multiple of 8 keeps all of them in bounds and aligned. The view is mapped; `to` is a
        // slice of the caller.
        unsafe { memory::copy_validated((first, expected), second, src, key, to) }.ok()?
    }
}

/// A [`FastAccess`] that may store as well.
#[derive(Clone, Copy)]
pub(crate) struct FastAccessMut<'a>(FastAccess<'a>);

// SAFETY: all methods call those of the `FastAccess` within, which fulfils the conditions.
unsafe impl Accessor for FastAccessMut<'_> {
    type Error = Miss;

    #[inline(always)]
    fn policy(self) -> FaultPolicy {
        self.0.policy()
    }

    #[inline(always)]
    fn bytes(self, offset: usize, len: usize, doing: &'static str) -> Result<*mut u8, Miss> {
        self.0.bytes(offset, len, doing)
    }

    #[inline(always)]
    fn words(self, offset: usize, count: usize, doing: &'static str) -> Result<*mut u8, Miss> {
        self.0.words(offset, count, doing)
    }

    #[inline(always)]
    fn fault(self, doing: &'static str, offset: usize, done: usize) -> Miss {
        self.0.fault(doing, offset, done)
    }
}

// SAFETY: the `FastAccess` within fulfils the conditions of `Accessor`. The caller of `new` has
// promised that the view may be written.
unsafe impl AccessorMut for FastAccessMut<'_> {
    #[inline(always)]
    fn require_writable(self, _doing: &'static str) -> Result<(), Miss> {
        Ok(())
    }
}

impl<'a> Deref for FastAccessMut<'a> {
    type Target = FastAccess<'a>;

    #[inline(always)]
    fn deref(&self) -> &FastAccess<'a> {
        &self.0
    }
}

impl<'a> FastAccessMut<'a> {
    /// Returns access for loads and stores.
    ///
    /// # Safety
    ///
    /// The view may be written.
    #[inline(always)]
    pub(crate) unsafe fn new(access: FastAccess<'a>) -> FastAccessMut<'a> {
        FastAccessMut(access)
    }
}

//! [`FastAccess`]: access by offset for fast paths, to a mapping as long as it was at one moment.

use std::mem::MaybeUninit;
use std::ops::Deref;

use super::{Accessor, AccessorMut};
use crate::sys::guard::Matches;
use crate::sys::memory;
use crate::types::FaultPolicy;

/// A fast path cannot do it: the slow path finds out whether it can be done, and why not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Miss;

/// Bytes of a line, the unit in which bounds are checked.
const LINE_LEN: usize = 64;

/// A mapping as it is now, for fast paths whose slow path reports errors: everything else is
/// `None`.
///
/// Up to eight words are there if a line of 64 bytes is there from their beginning on, and a longer
/// range if a line is there behind its end: one comparison, for which some ranges near the end of
/// the mapping are missed.
#[derive(Clone, Copy)]
pub(crate) struct FastAccess<'a> {
    /// At a multiple of 8.
    base: *mut u8,
    /// The last offset at which a line is there.
    last_line: usize,
    /// Borrowed from the mapping, which keeps its views while it is.
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

    /// The words that `offset` lies in: fast paths use words at multiples of 8 alone.
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
    /// `None` where there is no line, or where words are not at multiples of 8.
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

    /// Whether the `len` bytes from `offset` on, and a line behind them, are there.
    #[inline(always)]
    pub(crate) fn has(self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.last_line)
    }

    /// As [`Accessor::word`].
    #[inline(always)]
    pub(crate) fn word(self, offset: usize) -> Option<u64> {
        Accessor::word(self, offset).ok()
    }

    /// As [`Accessor::four_words`].
    #[inline(always)]
    pub(crate) fn four_words(self, offset: usize) -> Option<[u64; 4]> {
        Accessor::four_words(self, offset).ok()
    }

    /// Has the line of an offset fetched into the caches.
    #[inline(always)]
    pub(crate) fn prefetch(self, offset: usize) {
        memory::prefetch(self.base.wrapping_add(offset));
    }

    /// See [`match_eight`](crate::sys::guard::match_eight).
    #[inline(always)]
    pub(crate) fn match_eight(self, offset: usize, mask: u32, wanted: u32) -> Option<Matches> {
        let at = self.words(offset, 8, "read").ok()?;
        // SAFETY: `words` has checked the place and the alignment; the view is mapped.
        unsafe { memory::match_eight(at, mask, wanted) }.ok()
    }

    /// The word at `second`, and the three from `offset` on, if behind these there is `key`; `to`
    /// is filled with what is behind that. The word is the same before and after, and that at
    /// `first` is then the one that is expected. `to` has at least 16 bytes, or none.
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
        // Neither is longer than memory, so the sum of these does not pass the end.
        if !self.has(offset, key.len() + to.len()) {
            return None;
        }
        let src = self.base.wrapping_add(offset & !7).cast_const().cast();
        let to = &raw mut *to as *mut [u8];
        // SAFETY: the places and the alignment were checked, and a line that is there behind the
        // last of them has the three words; the view is mapped; `to` is the caller's.
        unsafe { memory::copy_validated((first, expected), second, src, key, to) }.ok()?
    }
}

/// A [`FastAccess`] that stores, too.
#[derive(Clone, Copy)]
pub(crate) struct FastAccessMut<'a>(FastAccess<'a>);

// SAFETY: as of the access within.
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

// SAFETY: as of the access within; `new` was promised that the view may be written.
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
    /// # Safety
    ///
    /// The view may be written.
    #[inline(always)]
    pub(crate) unsafe fn new(access: FastAccess<'a>) -> FastAccessMut<'a> {
        FastAccessMut(access)
    }
}

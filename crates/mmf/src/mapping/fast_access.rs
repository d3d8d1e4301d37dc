//! Fast loads and stores of words in a mapping, for fast paths: `None` for whatever the slow path
//! has to handle.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::atomic::Ordering;

use super::Mapping;
use crate::sys::guard::Matches;
use crate::sys::mem::{self, Word};
use crate::types::Access;

impl Mapping {
    /// For several looks in a row; `None` for what has no words at all.
    #[inline(always)]
    pub(crate) fn fast_access(&self) -> Option<FastAccess<'_>> {
        // In this order: the base is that of a view of this length at least.
        let len = self.len.load(Ordering::Acquire);
        let base = self.base.load(Ordering::Relaxed).cast_const();
        let last_line = len.checked_sub(LINE_LEN)?;
        (base.addr() % 8 == 0).then_some(FastAccess { base, last_line, of: PhantomData })
    }

    /// The same to be stored to as well; `None` for what may not be.
    #[inline(always)]
    pub(crate) fn fast_access_mut(&self) -> Option<FastAccessMut<'_>> {
        let access = self.fast_access()?;
        (self.access != Access::ReadOnly).then_some(FastAccessMut { access, of: self })
    }
}

/// A mapping as it is now, for fast paths whose slow path reports errors: everything else is
/// `None`.
#[derive(Clone, Copy)]
pub(crate) struct FastAccess<'a> {
    /// At a multiple of 8.
    base: *const u8,
    /// From where on there are so many bytes at the most as a line has.
    last_line: usize,
    of: PhantomData<&'a Mapping>,
}

/// Bytes of a line, the unit in which bounds are checked.
const LINE_LEN: usize = 64;

impl FastAccess<'_> {
    /// The address of the word that an offset lies in, with a line behind it. Fast paths use words
    /// at multiples of 8 alone.
    #[inline(always)]
    fn line(self, offset: usize) -> Option<*const u8> {
        (offset <= self.last_line).then(|| self.base.wrapping_add(offset & !7))
    }

    /// The word at `offset`, loaded as [`Mapping::word`] does.
    #[inline(always)]
    pub(crate) fn word(self, offset: usize) -> Option<u64> {
        let at = self.line(offset)?;
        // SAFETY: the place and the alignment were checked; the view lives as long as its mapping.
        unsafe { u64::load(at.cast()) }.ok()
    }

    /// Whether the `len` bytes from `offset` on, and a line behind them, are there.
    #[inline(always)]
    pub(crate) fn has(self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.last_line)
    }

    /// Has the line of an offset fetched into the caches.
    #[inline(always)]
    pub(crate) fn prefetch(self, offset: usize) {
        mem::prefetch(self.base.wrapping_add(offset));
    }

    /// Four words that follow each other, loaded in their order.
    #[inline(always)]
    pub(crate) fn four_words(self, offset: usize) -> Option<[u64; 4]> {
        let at = self.line(offset)?;
        // SAFETY: as in `word`.
        unsafe { mem::load_four(at) }.ok()
    }

    /// See [`mem::match_eight`].
    #[inline(always)]
    pub(crate) fn match_eight(self, offset: usize, mask: u32, wanted: u32) -> Option<Matches> {
        let at = self.line(offset)?;
        // SAFETY: as in `word`.
        unsafe { mem::match_eight(at, mask, wanted) }.ok()
    }

    /// The word at `second`, and the three from `offset` on, if behind these there is `key`; `to` is filled with what is behind that. The word
    /// is the same before and after, and that at `first` is then the one that is expected. `to` has at least 16 bytes, or none.
    #[inline(always)]
    pub(crate) fn read_validated(
        self,
        (first, expected): (usize, u64),
        second: usize,
        offset: usize,
        key: &[u8],
        to: &mut [MaybeUninit<u8>],
    ) -> Option<[u64; 4]> {
        let first = self.line(first)?.cast();
        let second = self.line(second)?.cast();
        // Neither is longer than memory, so the sum of these does not pass the end.
        let end = offset.checked_add(key.len() + to.len())?;
        if end > self.last_line {
            return None;
        }
        let src = self.base.wrapping_add(offset & !7).cast();
        let to = &raw mut *to as *mut [u8];
        // SAFETY: the places and the alignment were checked, and a line that is there behind the last of them has the three words;
        // the view lives as long as its mapping; `to` is the caller's.
        unsafe { mem::copy_validated((first, expected), second, src, key, to) }.ok()?
    }
}

/// A [`FastAccess`] that stores, too.
#[derive(Clone, Copy)]
pub(crate) struct FastAccessMut<'a> {
    access: FastAccess<'a>,
    of: &'a Mapping,
}

impl<'a> Deref for FastAccessMut<'a> {
    type Target = FastAccess<'a>;

    #[inline(always)]
    fn deref(&self) -> &FastAccess<'a> {
        &self.access
    }
}

impl FastAccessMut<'_> {
    /// Stores the word at `offset`: a release.
    #[inline(always)]
    pub(crate) fn put_word(self, offset: usize, value: u64) -> Option<()> {
        let at = self.access.line(offset)?.cast_mut();
        // SAFETY: the place and the alignment were checked; the view lives as long as its mapping, and may be written.
        let stored = unsafe { u64::store_release(at.cast(), value) };
        #[cfg(test)]
        super::trace::stored(offset, &value.to_le_bytes());
        stored.ok()
    }

    /// Stores words from `offset` on, one after the other, each as
    /// [`put_word`](FastAccessMut::put_word) does.
    #[inline(always)]
    pub(crate) fn put_words(self, offset: usize, words: &[u64]) -> Option<()> {
        if !self.has(offset, size_of_val(words)) {
            return None;
        }
        let at = self.access.line(offset)?.cast_mut();
        // SAFETY: as in `put_word`, for each of the words.
        let stored = unsafe { mem::store_words(at, words) };
        #[cfg(test)]
        words.iter().zip(0..).for_each(|(word, nth)| super::trace::stored(offset + 8 * nth, &word.to_le_bytes()));
        stored.ok()
    }

    /// Copies bytes to `offset`, as [`Mapping::write_at`] does.
    #[inline(always)]
    pub(crate) fn write(self, offset: usize, bytes: &[u8]) -> Option<()> {
        if !self.has(offset, bytes.len()) {
            return None;
        }
        let at = self.access.base.wrapping_add(offset).cast_mut();
        // SAFETY: the place was checked; the view lives as long as its mapping, and may be written; the source is a slice.
        let left =
            unsafe { mem::copy(self.of.policy, at, bytes.as_ptr(), bytes.len(), at.addr(), at.addr() + bytes.len()) };
        #[cfg(test)]
        super::trace::stored(offset, bytes);
        (left == 0).then_some(())
    }
}

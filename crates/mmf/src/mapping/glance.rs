//! Looks at a mapping, and stores to it, for structures that are in a hurry.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::atomic::Ordering;

use super::Mapping;
use crate::spec::Access;
use crate::sys::guard::Matches;
use crate::sys::reach::{self, Word};

impl Mapping {
    /// For several looks in a row; `None` for what has no words at all.
    #[inline(always)]
    pub(crate) fn glance(&self) -> Option<Glance<'_>> {
        // In this order: the base is that of a view of this length at least.
        let len = self.len.load(Ordering::Acquire);
        let base = self.base.load(Ordering::Relaxed).cast_const();
        let last_line = len.checked_sub(LINE)?;
        (base.addr() % 8 == 0).then_some(Glance { base, last_line, of: PhantomData })
    }

    /// The same to be stored to as well; `None` for what may not be.
    #[inline(always)]
    pub(crate) fn glance_mut(&self) -> Option<GlanceMut<'_>> {
        let glance = self.glance()?;
        (self.access != Access::ReadOnly).then_some(GlanceMut { glance, of: self })
    }
}

/// A mapping as it is now, for those who are in a hurry and have another way, which tells what is wrong: all that is not as
/// usual is `None`.
#[derive(Clone, Copy)]
pub(crate) struct Glance<'a> {
    /// At a multiple of 8.
    base: *const u8,
    /// From where on there are so many bytes at the most as a line has.
    last_line: usize,
    of: PhantomData<&'a Mapping>,
}

/// Bytes of a line, the unit in which a glance looks whether something is there.
const LINE: usize = 64;

impl Glance<'_> {
    /// The address of the word that an offset lies in, with a line behind it. Who is in a hurry has words at multiples of 8 alone.
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

    /// Has the line of an offset fetched into the caches.
    #[inline(always)]
    pub(crate) fn prefetch(self, offset: usize) {
        reach::prefetch(self.base.wrapping_add(offset));
    }

    /// Four words that follow each other, loaded in their order.
    #[inline(always)]
    pub(crate) fn four_words(self, offset: usize) -> Option<[u64; 4]> {
        let at = self.line(offset)?;
        // SAFETY: as in `word`.
        unsafe { reach::load_four(at) }.ok()
    }

    /// See [`reach::match_eight`].
    #[inline(always)]
    pub(crate) fn match_eight(self, offset: usize, mask: u32, wanted: u32) -> Option<Matches> {
        let at = self.line(offset)?;
        // SAFETY: as in `word`.
        unsafe { reach::match_eight(at, mask, wanted) }.ok()
    }

    /// The word at `second`, and the three from `offset` on, if behind these there is `key`; `to` is filled with what is behind that. The word
    /// is the same before and after, and that at `first` is then the one that is expected. `to` has at least 16 bytes, or none.
    #[inline(always)]
    pub(crate) fn read_between(
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
        unsafe { reach::copy_between((first, expected), second, src, key, to) }.ok()?
    }
}

/// A [`Glance`] that stores, too.
#[derive(Clone, Copy)]
pub(crate) struct GlanceMut<'a> {
    glance: Glance<'a>,
    of: &'a Mapping,
}

impl<'a> Deref for GlanceMut<'a> {
    type Target = Glance<'a>;

    #[inline(always)]
    fn deref(&self) -> &Glance<'a> {
        &self.glance
    }
}

impl GlanceMut<'_> {
    /// Whether the `len` bytes from `offset` on, and a line behind them, are there.
    #[inline(always)]
    pub(crate) fn has(self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.glance.last_line)
    }

    /// Stores the word at `offset`: a release.
    #[inline(always)]
    pub(crate) fn put_word(self, offset: usize, value: u64) -> Option<()> {
        let at = self.glance.line(offset)?.cast_mut();
        // SAFETY: the place and the alignment were checked; the view lives as long as its mapping, and may be written.
        let stored = unsafe { u64::store_release(at.cast(), value) };
        #[cfg(test)]
        super::trace::stored(offset, &value.to_le_bytes());
        stored.ok()
    }

    /// Stores words from `offset` on, one after the other, each as [`put_word`](GlanceMut::put_word) does.
    #[inline(always)]
    pub(crate) fn put_words(self, offset: usize, words: &[u64]) -> Option<()> {
        if !self.has(offset, size_of_val(words)) {
            return None;
        }
        let at = self.glance.line(offset)?.cast_mut();
        // SAFETY: as in `put_word`, for each of the words.
        let stored = unsafe { reach::store_words(at, words) };
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
        let at = self.glance.base.wrapping_add(offset).cast_mut();
        // SAFETY: the place was checked; the view lives as long as its mapping, and may be written; the source is a slice.
        let left =
            unsafe { reach::copy(self.of.policy, at, bytes.as_ptr(), bytes.len(), at.addr(), at.addr() + bytes.len()) };
        #[cfg(test)]
        super::trace::stored(offset, bytes);
        (left == 0).then_some(())
    }
}

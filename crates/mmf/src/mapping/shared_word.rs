//! [`SharedWord`]: a word of a mapping whose place was checked once. [`Cells`]: many of them.

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::guard::Fault;
#[cfg(not(all(test, loom)))]
use crate::sys::guard::Word;
#[cfg(all(test, loom))]
use crate::sys::model::Word;
use crate::types::{Access, FaultPolicy};

/// A word of shared memory. It and its clones must not outlive the mapping it was taken from, whose owner keeps both together.
pub(crate) struct SharedWord<W>(*mut W);

// SAFETY: a cell is only reached through atomic operations.
unsafe impl<W> Send for SharedWord<W> {}
// SAFETY: as above.
unsafe impl<W> Sync for SharedWord<W> {}

impl<W> Clone for SharedWord<W> {
    fn clone(&self) -> SharedWord<W> {
        SharedWord(self.0)
    }
}

/// Words of shared memory at equal distances, whose places were checked once.
///
/// As a [`SharedWord`], it must not outlive the mapping it was taken from.
pub(crate) struct Cells<W> {
    first: SharedWord<W>,
    /// Bytes from the beginning of one word to that of the next.
    stride: usize,
    count: usize,
}

impl<W> Cells<W> {
    /// The `nth` word, counted from 0; the last one where there are not so many.
    #[inline]
    pub(crate) fn nth(&self, nth: usize) -> SharedWord<W> {
        SharedWord(self.first.0.wrapping_byte_add(self.stride * nth.min(self.count - 1)))
    }
}

impl Mapping {
    /// The word at `offset`, for as long as this mapping lives.
    ///
    /// # Safety
    ///
    /// - The cell is dropped before the mapping.
    /// - Nothing is written through it if the mapping is read-only.
    pub(crate) unsafe fn shared_word<W: Word>(&self, offset: usize) -> Result<SharedWord<W>> {
        // SAFETY: the caller's promise, passed on.
        Ok(unsafe { self.cells(offset, size_of::<W>(), 1) }?.first)
    }

    /// As many words as `count`, at least one, of which the first is at `offset` and each next one
    /// begins `stride` bytes farther.
    ///
    /// # Safety
    ///
    /// As [`shared_word`](Mapping::shared_word), for each of them.
    pub(crate) unsafe fn cells<W: Word>(&self, offset: usize, stride: usize, count: usize) -> Result<Cells<W>> {
        let count = count.max(1);
        // What is too long for a number is behind all that can be mapped.
        let len = stride.saturating_mul(count - 1).saturating_add(size_of::<W>());
        let at = self.locate(offset, len, "open")?;
        if at.addr() % size_of::<W>() != 0 || stride % size_of::<W>() != 0 {
            let kind = ErrorKind::Misaligned { offset, align: size_of::<W>() };
            return Err(Error::new(kind, "open"));
        }
        if self.policy == FaultPolicy::SystemCalls || self.access == Access::CopyOnWrite {
            let what = "structures under the fault policy of system calls, or in a copy-on-write mapping";
            return Err(Error::unsupported("open", what));
        }
        Ok(Cells { first: SharedWord(at.cast()), stride, count })
    }
}

/// All are sequentially consistent but `store`, which is a release.
impl<W: Word> SharedWord<W> {
    #[inline]
    pub(crate) fn load(&self) -> Result<W, Fault> {
        // SAFETY: `Mapping::shared_word` checked the place and the alignment, and the mapping
        // outlives the cell.
        unsafe { W::load(self.0) }
    }

    #[inline]
    pub(crate) fn store(&self, value: W) -> Result<(), Fault> {
        // SAFETY: as in `load`; the maker of the cell promised that it may be written.
        unsafe { W::store_release(self.0, value) }
    }

    #[inline]
    pub(crate) fn swap(&self, value: W) -> Result<W, Fault> {
        // SAFETY: as in `store`.
        unsafe { W::swap(self.0, value) }
    }

    #[inline]
    pub(crate) fn add(&self, value: W) -> Result<W, Fault> {
        // SAFETY: as in `store`.
        unsafe { W::add(self.0, value) }
    }

    /// The word that was there; it is `current` if `new` was stored.
    #[inline]
    pub(crate) fn compare_exchange(&self, current: W, new: W) -> Result<W, Fault> {
        // SAFETY: as in `store`.
        unsafe { W::compare_exchange(self.0, current, new) }
    }

    /// Puts in its place what comes of it, however others change it meanwhile.
    pub(crate) fn change(&self, new: impl Fn(W) -> W) -> Result<(), Fault>
    where
        W: PartialEq,
    {
        let mut word = self.load()?;
        loop {
            let seen = self.compare_exchange(word, new(word))?;
            if seen == word {
                return Ok(());
            }
            word = seen;
        }
    }

    /// Where the system may wait on it.
    pub(crate) fn address(&self) -> *mut W {
        self.0
    }
}

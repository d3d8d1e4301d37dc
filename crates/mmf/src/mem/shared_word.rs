//! [`SharedWord`]: a word whose place was checked once. [`SharedWords`]: several of them at equal
//! distances.

use super::Word;
use crate::sys::guard::Fault;

/// A word of shared memory.
///
/// All operations are sequentially consistent, except for [`store`](SharedWord::store), which has
/// release ordering.
pub(crate) struct SharedWord<W>(*mut W);

// SAFETY: the word is only reached through atomic operations.
unsafe impl<W> Send for SharedWord<W> {}
// SAFETY: the word is only reached through atomic operations.
unsafe impl<W> Sync for SharedWord<W> {}

impl<W> Clone for SharedWord<W> {
    fn clone(&self) -> SharedWord<W> {
        SharedWord(self.0)
    }
}

impl<W: Word> SharedWord<W> {
    /// Returns the word at an address.
    ///
    /// # Safety
    ///
    /// - The word lies in a view, at a multiple of its size.
    /// - The view stays mapped while this or a clone of it is used, and faults in it are caught.
    /// - Nothing is stored through this or a clone of it unless the view may be written.
    #[inline(always)]
    pub(crate) unsafe fn new(at: *mut u8) -> SharedWord<W> {
        SharedWord(at.cast())
    }

    #[inline]
    pub(crate) fn load(&self) -> Result<W, Fault> {
        // SAFETY: the maker of the word promised place, alignment and a view that is mapped.
        unsafe { W::load(self.0) }
    }

    #[inline]
    pub(crate) fn store(&self, value: W) -> Result<(), Fault> {
        // SAFETY: as in `load`; the maker of the word promised that it may be written.
        unsafe { W::store_release(self.0, value) }
    }

    #[inline]
    pub(crate) fn store_seq_cst(&self, value: W) -> Result<(), Fault> {
        // SAFETY: as in `store`.
        unsafe { W::store(self.0, value) }
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

    /// Stores `new` if the word is `current`. Returns the previous word, which is `current` if
    /// `new` was stored.
    #[inline]
    pub(crate) fn compare_exchange(&self, current: W, new: W) -> Result<W, Fault> {
        // SAFETY: as in `store`.
        unsafe { W::compare_exchange(self.0, current, new) }
    }

    /// Replaces the word with the result of `new`, and returns the previous word. It repeats its
    /// CAS until no other store comes between.
    #[inline]
    pub(crate) fn update(&self, new: impl Fn(W) -> W) -> Result<W, Fault>
    where
        W: PartialEq,
    {
        let mut word = self.load()?;
        loop {
            let seen = self.compare_exchange(word, new(word))?;
            if seen == word {
                return Ok(seen);
            }
            word = seen;
        }
    }

    /// Replaces the word like [`update`](SharedWord::update), without returning the previous one.
    #[inline]
    pub(crate) fn change(&self, new: impl Fn(W) -> W) -> Result<(), Fault>
    where
        W: PartialEq,
    {
        self.update(new).map(drop)
    }

    /// Returns the word's address, on which the system can wait.
    pub(crate) fn address(&self) -> *mut W {
        self.0
    }
}

/// Words of shared memory at equal distances.
pub(crate) struct SharedWords<W> {
    first: SharedWord<W>,
    /// The distance in bytes between the starts of two consecutive words.
    stride: usize,
    /// The number of words, at least 1.
    count: usize,
}

impl<W: Word> SharedWords<W> {
    /// Returns `count` words. `count` is at least 1.
    ///
    /// # Safety
    ///
    /// The conditions of [`SharedWord::new`] hold for each of the words.
    pub(crate) unsafe fn new(first: *mut u8, stride: usize, count: usize) -> SharedWords<W> {
        // SAFETY: the caller's promise, passed on.
        SharedWords { first: unsafe { SharedWord::new(first) }, stride, count }
    }

    /// Returns the `nth` word, counted from 0, or the last one if there are fewer.
    #[inline]
    pub(crate) fn nth(&self, nth: usize) -> SharedWord<W> {
        SharedWord(self.first.0.wrapping_byte_add(self.stride * nth.min(self.count - 1)))
    }
}

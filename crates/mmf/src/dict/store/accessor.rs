//! [`Accessor`]: one form of an algorithm over shared words for the fast path and the slow path.
//!
//! A slow path runs over the [`Mapping`]: each access is checked on its own, and a failure is the
//! [`Error`] that the caller gets. A fast path runs over a [`FastAccess`]: its bounds were read
//! once, and a failure is a [`Miss`], without a reason. On a miss the slow path runs the same
//! algorithm again, and finds the reason if there is one.

use crate::error::{Error, ErrorKind, Result};
use crate::mapping::{FastAccess, FastAccessMut, Mapping};

/// The fast path does not handle this case.
#[derive(Debug)]
pub(in crate::dict) struct Miss;

impl From<Error> for Miss {
    #[inline(always)]
    fn from(_: Error) -> Miss {
        Miss
    }
}

/// Loads words of the mapping.
pub(in crate::dict) trait Accessor: Copy {
    /// What a failed access returns.
    type Failure: From<Error>;

    /// Whether this is the fast path.
    const IS_FAST: bool;

    /// Loads the word at `offset`, as [`Mapping::word`] does.
    fn word(self, offset: usize) -> Result<u64, Self::Failure>;

    /// Loads four words, as [`Mapping::four_words`] does.
    fn four_words(self, offset: usize) -> Result<[u64; 4], Self::Failure>;

    /// Begins a step that only the slow path takes: a miss on the fast path.
    fn require_slow_path(self) -> Result<(), Self::Failure>;

    /// Requires that the `len` bytes from `offset` on are there before anything is planned: a miss
    /// on the fast path if they are not. The slow path checks each access by itself.
    fn require(self, offset: usize, len: usize) -> Result<(), Self::Failure>;

    /// Returns the failure for damage.
    fn damaged(self, reason: impl FnOnce() -> String) -> Self::Failure;
}

/// Stores words and bytes, too.
pub(in crate::dict) trait AccessorMut: Accessor {
    /// Stores the word at `offset`, as [`Mapping::put_word`] does.
    fn put_word(self, offset: usize, value: u64) -> Result<(), Self::Failure>;

    /// Stores words from `offset` on, as [`Mapping::put_words`] does.
    fn put_words(self, offset: usize, words: &[u64]) -> Result<(), Self::Failure>;

    /// Copies bytes to `offset`, as [`Mapping::write_at`] does.
    fn write(self, offset: usize, bytes: &[u8]) -> Result<(), Self::Failure>;
}

impl Accessor for &Mapping {
    type Failure = Error;

    const IS_FAST: bool = false;

    #[inline(always)]
    fn word(self, offset: usize) -> Result<u64> {
        Mapping::word(self, offset)
    }

    #[inline(always)]
    fn four_words(self, offset: usize) -> Result<[u64; 4]> {
        Mapping::four_words(self, offset)
    }

    #[inline(always)]
    fn require_slow_path(self) -> Result<()> {
        Ok(())
    }

    #[inline(always)]
    fn require(self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn damaged(self, reason: impl FnOnce() -> String) -> Error {
        self.name_error(Error::new(ErrorKind::Damaged { reason: reason() }, "use"))
    }
}

impl AccessorMut for &Mapping {
    #[inline(always)]
    fn put_word(self, offset: usize, value: u64) -> Result<()> {
        Mapping::put_word(self, offset, value)
    }

    #[inline(always)]
    fn put_words(self, offset: usize, words: &[u64]) -> Result<()> {
        Mapping::put_words(self, offset, words)
    }

    #[inline(always)]
    fn write(self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.write_at(offset, bytes)
    }
}

impl Accessor for FastAccess<'_> {
    type Failure = Miss;

    const IS_FAST: bool = true;

    #[inline(always)]
    fn word(self, offset: usize) -> Result<u64, Miss> {
        FastAccess::word(self, offset).ok_or(Miss)
    }

    #[inline(always)]
    fn four_words(self, offset: usize) -> Result<[u64; 4], Miss> {
        FastAccess::four_words(self, offset).ok_or(Miss)
    }

    #[inline(always)]
    fn require_slow_path(self) -> Result<(), Miss> {
        Err(Miss)
    }

    #[inline(always)]
    fn require(self, offset: usize, len: usize) -> Result<(), Miss> {
        if self.has(offset, len) { Ok(()) } else { Err(Miss) }
    }

    #[inline(always)]
    fn damaged(self, _: impl FnOnce() -> String) -> Miss {
        Miss
    }
}

impl Accessor for FastAccessMut<'_> {
    type Failure = Miss;

    const IS_FAST: bool = true;

    #[inline(always)]
    fn word(self, offset: usize) -> Result<u64, Miss> {
        Accessor::word(*self, offset)
    }

    #[inline(always)]
    fn four_words(self, offset: usize) -> Result<[u64; 4], Miss> {
        Accessor::four_words(*self, offset)
    }

    #[inline(always)]
    fn require_slow_path(self) -> Result<(), Miss> {
        Err(Miss)
    }

    #[inline(always)]
    fn require(self, offset: usize, len: usize) -> Result<(), Miss> {
        Accessor::require(*self, offset, len)
    }

    #[inline(always)]
    fn damaged(self, _: impl FnOnce() -> String) -> Miss {
        Miss
    }
}

impl AccessorMut for FastAccessMut<'_> {
    #[inline(always)]
    fn put_word(self, offset: usize, value: u64) -> Result<(), Miss> {
        FastAccessMut::put_word(self, offset, value).ok_or(Miss)
    }

    #[inline(always)]
    fn put_words(self, offset: usize, words: &[u64]) -> Result<(), Miss> {
        FastAccessMut::put_words(self, offset, words).ok_or(Miss)
    }

    #[inline(always)]
    fn write(self, offset: usize, bytes: &[u8]) -> Result<(), Miss> {
        FastAccessMut::write(self, offset, bytes).ok_or(Miss)
    }
}

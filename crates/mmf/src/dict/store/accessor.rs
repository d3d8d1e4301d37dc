//! [`Accessor`]: one form of an algorithm over shared words for the fast path and the slow path.
//!
//! A slow path runs over the [`Mapping`]: each access is checked on its own, and a failure is the
//! [`Error`] that the caller gets. A fast path runs over a [`FastAccess`]: its bounds were read
//! once, and a failure is a [`Miss`], without a reason. On a miss the slow path runs the same
//! algorithm again, and finds the reason if there is one.

use crate::error::{Error, Result};
use crate::mapping::{FastAccess, Mapping};

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

    /// Loads the word at `offset`, as [`Mapping::word`] does.
    fn word(self, offset: usize) -> Result<u64, Self::Failure>;
}

impl Accessor for &Mapping {
    type Failure = Error;

    #[inline(always)]
    fn word(self, offset: usize) -> Result<u64> {
        Mapping::word(self, offset)
    }
}

impl Accessor for FastAccess<'_> {
    type Failure = Miss;

    #[inline(always)]
    fn word(self, offset: usize) -> Result<u64, Miss> {
        FastAccess::word(self, offset).ok_or(Miss)
    }
}

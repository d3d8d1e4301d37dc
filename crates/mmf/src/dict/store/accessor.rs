//! [`PathAccess`]: one form of an algorithm over shared words for the fast path and the slow path.
//!
//! A slow path runs over the [`Mapping`]: each access is checked on its own, and a failure is the
//! [`Error`] that the caller gets. A fast path runs over a [`FastAccess`]: its bounds were read
//! once, and a failure is a [`Miss`], without a reason. On a miss the slow path runs the same
//! algorithm again, and finds the reason if there is one.
//!
//! An algorithm that only loads, stores and copies is generic over
//! [`Accessor`]. One that also reports damage, or has steps that only the
//! slow path takes, is generic over this trait.

use crate::error::{Error, ErrorKind, Result};
use crate::mapping::Mapping;
use crate::mem::{Accessor, FastAccess, FastAccessMut, Miss};

impl From<Error> for Miss {
    #[inline(always)]
    fn from(_: Error) -> Miss {
        Miss
    }
}

/// An accessor that knows which of the two paths it belongs to.
pub(in crate::dict) trait PathAccess: Accessor<Error: From<Error>> {
    /// Whether this is the fast path.
    const IS_FAST: bool;

    /// Requires that the `len` bytes from `offset` on are there before anything is planned: a miss
    /// on the fast path if they are not. The slow path checks each access by itself.
    fn require(self, offset: usize, len: usize) -> Result<(), Self::Error>;

    /// Returns the failure for damage.
    fn damaged(self, reason: impl FnOnce() -> String) -> Self::Error;

    /// Begins a step that only the slow path takes: a miss on the fast path.
    #[inline(always)]
    fn require_slow_path(self) -> Result<(), Self::Error> {
        if Self::IS_FAST { Err(self.damaged(String::new)) } else { Ok(()) }
    }
}

impl PathAccess for &Mapping {
    const IS_FAST: bool = false;

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

impl PathAccess for FastAccess<'_> {
    const IS_FAST: bool = true;

    #[inline(always)]
    fn require(self, offset: usize, len: usize) -> Result<(), Miss> {
        if self.has(offset, len) { Ok(()) } else { Err(Miss) }
    }

    #[inline(always)]
    fn damaged(self, _: impl FnOnce() -> String) -> Miss {
        Miss
    }
}

impl PathAccess for FastAccessMut<'_> {
    const IS_FAST: bool = true;

    #[inline(always)]
    fn require(self, offset: usize, len: usize) -> Result<(), Miss> {
        PathAccess::require(*self, offset, len)
    }

    #[inline(always)]
    fn damaged(self, _: impl FnOnce() -> String) -> Miss {
        Miss
    }
}

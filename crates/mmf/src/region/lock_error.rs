//! [`LockError`]: a lock that was not obtained, or was obtained with poison.

use std::fmt;

use super::contents;
use super::guards::{ReadGuard, WriteGuard};
use crate::error::{Error, Result};

/// A guard of a region's lock: [`ReadGuard`] or [`WriteGuard`]. An error that it is converted to
/// names the region.
pub trait LockGuard: sealed::Sealed {
    #[doc(hidden)]
    fn poison_error(&self) -> Error;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ReadGuard<'_> {}
    impl Sealed for super::WriteGuard<'_> {}
}

impl LockGuard for ReadGuard<'_> {
    fn poison_error(&self) -> Error {
        contents::poisoned(self.segment(), "lock")
    }
}

impl LockGuard for WriteGuard<'_> {
    fn poison_error(&self) -> Error {
        contents::poisoned(self.segment(), "lock")
    }
}

/// The failure of a lock, or a lock with poison.
///
/// It converts into [`Error`], so that `?` treats poison as a failure.
pub enum LockError<G> {
    /// A writer died or panicked with a change half made. The guard holds the lock, so that the
    /// caller can examine and mend the contents.
    Poisoned(G),
    /// The lock was not obtained.
    Failed(Error),
}

impl<G> LockError<G> {
    /// Returns the guard, with or without poison.
    ///
    /// # Errors
    ///
    /// The error of a lock that was not obtained.
    pub fn into_guard(self) -> Result<G> {
        match self {
            LockError::Poisoned(guard) => Ok(guard),
            LockError::Failed(error) => Err(error),
        }
    }
}

impl<G> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Poisoned(_) => f.write_str("Poisoned(..)"),
            LockError::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}

impl<G: LockGuard> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Poisoned(guard) => guard.poison_error().fmt(f),
            LockError::Failed(error) => error.fmt(f),
        }
    }
}

impl<G: LockGuard> std::error::Error for LockError<G> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LockError::Poisoned(_) => None,
            LockError::Failed(error) => error.source(),
        }
    }
}

impl<G: LockGuard> From<LockError<G>> for Error {
    fn from(error: LockError<G>) -> Error {
        match error {
            LockError::Poisoned(guard) => guard.poison_error(),
            LockError::Failed(error) => error,
        }
    }
}

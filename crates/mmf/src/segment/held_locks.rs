//! Which segments a thread has locked.

use std::marker::PhantomData;

use super::{Container, Segment};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::LockMode;
use crate::lock::threads::{Refusal, Thread};

/// A mark that this thread has a segment's lock, or tries to get it: for writing if `WRITES`. It
/// stays in its thread. It exists from before the first attempt until after the release, as
/// [`threads`](crate::lock::threads) asks for.
pub(crate) struct ThreadLockMark<'a, C: Container, const WRITES: bool> {
    segment: &'a Segment<C>,
    _not_send: PhantomData<*const ()>,
}

impl<'a, C: Container, const WRITES: bool> ThreadLockMark<'a, C, WRITES> {
    const MODE: LockMode = if WRITES { LockMode::Write } else { LockMode::Read };

    /// The mark, unless this thread has any: the usual case.
    #[inline]
    pub(crate) fn first(segment: &'a Segment<C>) -> Option<Self> {
        // Not `then_some`: a mark that is dropped ends a use.
        Thread::begin_first(segment.lock.handle(), Self::MODE)
            .then(|| ThreadLockMark { segment, _not_send: PhantomData })
    }

    /// `Deadlock` if this thread has it already, by whichever handle.
    #[inline]
    pub(crate) fn mark(segment: &'a Segment<C>, doing: &'static str) -> Result<Self> {
        ThreadLockMark::first(segment).map_or_else(|| ThreadLockMark::add(segment, doing), Ok)
    }

    #[cold]
    #[inline(never)]
    fn add(segment: &'a Segment<C>, doing: &'static str) -> Result<Self> {
        let (kind, help) = match Thread::begin(segment.lock.handle(), Self::MODE) {
            Ok(()) => return Ok(ThreadLockMark { segment, _not_send: PhantomData }),
            Err(Refusal::Deadlock) => {
                (ErrorKind::Deadlock, "end the guard, transaction or snapshot that this thread has, or use that")
            }
            Err(Refusal::Full) => (ErrorKind::Full, "a thread can have 64 locks at a time"),
        };
        Err(segment.name_error(Error::new(kind, doing)).with_help(help))
    }

    #[inline]
    pub(crate) fn segment(&self) -> &'a Segment<C> {
        self.segment
    }
}

impl<C: Container, const WRITES: bool> Drop for ThreadLockMark<'_, C, WRITES> {
    #[inline]
    fn drop(&mut self) {
        Thread::end(self.segment.lock.handle());
    }
}

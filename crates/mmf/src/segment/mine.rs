//! Which segments a thread has locked.

use std::marker::PhantomData;

use super::Segment;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Mode;
use crate::lock::threads::{Refusal, Thread};

/// A mark that this thread has a segment's lock, or tries to get it: for writing if `WRITES`. It
/// stays in its thread. It exists from before the first attempt until after the release, as
/// [`threads`](crate::lock::threads) asks for.
pub(crate) struct Mine<'a, const WRITES: bool> {
    segment: &'a Segment,
    _here: PhantomData<*const ()>,
}

impl<'a, const WRITES: bool> Mine<'a, WRITES> {
    const MODE: Mode = if WRITES { Mode::Write } else { Mode::Read };

    /// The mark, unless this thread has any: the usual case.
    #[inline]
    pub(crate) fn first(segment: &'a Segment) -> Option<Self> {
        // Not `then_some`: a mark that is dropped ends a use.
        Thread::begin_first(segment.lock.handle(), Self::MODE).then(|| Mine { segment, _here: PhantomData })
    }

    /// `Deadlock` if this thread has it already, by whichever handle.
    #[inline]
    pub(crate) fn mark(segment: &'a Segment, doing: &'static str) -> Result<Self> {
        Mine::first(segment).map_or_else(|| Mine::one_of_many(segment, doing), Ok)
    }

    #[cold]
    #[inline(never)]
    fn one_of_many(segment: &'a Segment, doing: &'static str) -> Result<Self> {
        let (kind, help) = match Thread::begin(segment.lock.handle(), Self::MODE) {
            Ok(()) => return Ok(Mine { segment, _here: PhantomData }),
            Err(Refusal::Deadlock) => {
                (ErrorKind::Deadlock, "end the guard, transaction or snapshot that this thread has, or use that")
            }
            Err(Refusal::Full) => (ErrorKind::Full, "a thread can have 64 locks at a time"),
        };
        Err(segment.name_it(Error::new(kind, doing)).with_help(help))
    }

    #[inline]
    pub(crate) fn segment(&self) -> &'a Segment {
        self.segment
    }
}

impl<const WRITES: bool> Drop for Mine<'_, WRITES> {
    #[inline]
    fn drop(&mut self) {
        Thread::end(self.segment.lock.handle());
    }
}

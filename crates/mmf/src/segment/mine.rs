//! Which segments a thread has locked.

use std::marker::PhantomData;

use super::Segment;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Mode;
use crate::lock::threads::{MOST, NO_RECORD, Thread};

/// A mark that this thread has a segment's lock, or tries to get it: for writing if `WRITES`. It
/// stays in its thread. It exists from before the first attempt until after the release, as
/// [`threads`](crate::lock::threads) asks for.
pub(crate) struct Mine<'a, const WRITES: bool> {
    segment: &'a Segment,
    _here: PhantomData<*const ()>,
}

impl<'a, const WRITES: bool> Mine<'a, WRITES> {
    const MODE: Mode = if WRITES { Mode::Write } else { Mode::Read };

    #[inline]
    fn new(this: &Thread, segment: &'a Segment) -> Self {
        this.record().begin(segment.lock.place(), Self::MODE);
        Mine { segment, _here: PhantomData }
    }

    /// The mark, unless this thread has any: the usual case.
    #[inline]
    pub(crate) fn first(segment: &'a Segment) -> Option<Self> {
        Thread::with(|this| {
            if this.count.get() != 0 {
                return None;
            }
            this.marks[0].set(segment.mark);
            this.count.set(1);
            Some(Mine::new(this, segment))
        })
    }

    /// `Deadlock` if this thread has it already, by whichever handle.
    #[inline]
    pub(crate) fn mark(segment: &'a Segment, doing: &'static str) -> Result<Self> {
        Mine::first(segment).map_or_else(|| Mine::one_of_many(segment, doing), Ok)
    }

    #[cold]
    #[inline(never)]
    fn one_of_many(segment: &'a Segment, doing: &'static str) -> Result<Self> {
        let got = Thread::with(|this| {
            if this.count.get() == NO_RECORD {
                this.ensure_record();
            }
            let count = this.count.get();
            if this.marks[..count].iter().any(|known| known.get() == segment.mark) {
                return Err((
                    ErrorKind::Deadlock,
                    "end the guard, transaction or snapshot that this thread has, or use that",
                ));
            }
            if count == MOST {
                return Err((ErrorKind::Full, "a thread can have 64 locks at a time"));
            }
            this.marks[count].set(segment.mark);
            this.count.set(count + 1);
            Ok(Mine::new(this, segment))
        });
        got.map_err(|(kind, help)| segment.name_it(Error::new(kind, doing)).with_help(help))
    }

    #[inline]
    pub(crate) fn segment(&self) -> &'a Segment {
        self.segment
    }

    #[cold]
    #[inline(never)]
    fn forget_one_of_many(&self, this: &Thread) {
        let last = this.count.get().saturating_sub(1);
        // Mostly the last; else the last takes its place.
        if let Some(at) = this.marks[..=last].iter().rposition(|known| known.get() == self.segment.mark) {
            this.marks[at].set(this.marks[last].get());
            this.count.set(last);
        }
    }
}

impl<const WRITES: bool> Drop for Mine<'_, WRITES> {
    #[inline]
    fn drop(&mut self) {
        Thread::with(|this| {
            this.record().end(self.segment.lock.place(), Self::MODE);
            // A mark that is alone in its thread is this one.
            if this.count.get() == 1 { this.count.set(0) } else { self.forget_one_of_many(this) }
        });
    }
}

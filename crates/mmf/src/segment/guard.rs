//! The guards of a segment's lock, for all containers. A guard is one word, so that it is returned in
//! a register.
//!
//! A guard is made in three steps, and dropped in the reverse order:
//!
//! 1. It marks the thread ([`Mine`]), which finds a deadlock of a thread with itself.
//! 2. It takes the lock: in one attempt if no participant is in the way, else by waiting.
//! 3. The caller reads or changes the contents. A change is announced by
//!    [`begin_change`](Segment::begin_change), which makes a death poison, or afterwards by
//!    [`has_changed`](Segment::has_changed) where the container has no torn contents.
//!
//! The first lock of a handle attaches it, which takes a slot. The lock and all of that together take
//! no longer than the caller's deadline.
//!
//! After a fork the child has copies of its parent's guards. They release nothing: the lock is the
//! parent's.

use super::{Held, Mine, Seat, Segment, Until};
use crate::error::Result;
use crate::sys::guard::Fault;

/// The lock for reading. Dropped, it is released.
pub(crate) struct ReadLock<'a> {
    mine: Mine<'a, false>,
}

/// The lock for writing. Dropped, it is released, and waiters are woken if there was a change.
pub(crate) struct WriteLock<'a> {
    mine: Mine<'a, true>,
}

macro_rules! lock {
    ($guard:ident, $attempt:ident, $wait:ident) => {
        impl<'a> $guard<'a> {
            /// Takes the lock. Calls `until` only if it has to wait.
            ///
            /// # Errors
            ///
            /// Deadlock if this thread has it already, a timeout, or what attaching reports.
            #[inline]
            pub(crate) fn lock(
                segment: &'a Segment,
                until: impl FnOnce() -> Until,
                doing: &'static str,
            ) -> Result<(Self, Held)> {
                let Some(seat) = segment.seat() else { return $guard::attach(segment, until(), doing) };
                let Some(mine) = Mine::first(segment) else { return $guard::mark(segment, until(), doing) };
                match segment.$attempt(seat) {
                    Ok(Some(held)) => Ok(($guard { mine }, held)),
                    Ok(None) | Err(Fault) => $guard::wait(mine, until(), doing),
                }
            }

            /// This handle's first lock.
            #[cold]
            #[inline(never)]
            fn attach(segment: &'a Segment, until: Until, doing: &'static str) -> Result<(Self, Held)> {
                let (_, until) = segment.participant_until(until, doing)?;
                $guard::mark(segment, until, doing)
            }

            /// This thread has other locks.
            #[cold]
            #[inline(never)]
            fn mark(segment: &'a Segment, until: Until, doing: &'static str) -> Result<(Self, Held)> {
                $guard::wait(Mine::mark(segment, doing)?, until, doing)
            }

            /// A participant is in the way, or was.
            #[cold]
            #[inline(never)]
            fn wait(mine: Mine<'a, { $guard::WRITES }>, until: Until, doing: &'static str) -> Result<(Self, Held)> {
                let held = mine.segment().$wait(until, doing)?;
                Ok(($guard { mine }, held))
            }

            /// The segment that is locked.
            #[inline]
            pub(crate) fn segment(&self) -> &'a Segment {
                self.mine.segment()
            }
        }
    };
}
lock!(ReadLock, try_read_as, wait_to_read);
lock!(WriteLock, try_write_as, wait_to_write);

impl ReadLock<'_> {
    const WRITES: bool = false;
}

impl WriteLock<'_> {
    const WRITES: bool = true;
}

impl Drop for ReadLock<'_> {
    #[inline]
    fn drop(&mut self) {
        let segment = self.mine.segment();
        // A forked child has no seat, and neither has a handle with a lock of the user's own.
        // Where the page is gone, so is the lock.
        let _ = match segment.seat() {
            Some(seat) => segment.lock.unlock_read(seat),
            None => segment.unlock_own(false),
        };
    }
}

impl Drop for WriteLock<'_> {
    #[inline]
    fn drop(&mut self) {
        let segment = self.mine.segment();
        // As for reading.
        let _ = match segment.seat() {
            Some(seat) => segment.release_write(seat),
            None => segment.unlock_own(true),
        };
    }
}

impl Segment {
    #[inline]
    fn try_read_as(&self, seat: &Seat) -> Result<Option<Held>, Fault> {
        self.lock.try_read(seat)
    }

    #[inline]
    fn try_write_as(&self, seat: &Seat) -> Result<Option<Held>, Fault> {
        Ok(self.lock.try_write(seat)?.then_some(Held { poisoned: false }))
    }

    /// Releases the lock for writing: ends the change, if there was one, and wakes waiters after it.
    #[inline]
    pub(super) fn release_write(&self, seat: &Seat) -> Result<(), Fault> {
        if self.is_changing() { self.end_and_release(seat) } else { self.lock.unlock_write(seat).map(drop) }
    }

    #[inline(never)]
    fn end_and_release(&self, seat: &Seat) -> Result<(), Fault> {
        self.end_change()?;
        // The exchange stands between the store of the version and the look at the waiters.
        if self.lock.unlock_write(seat)? { self.changes.ring() } else { Ok(()) }
    }
}

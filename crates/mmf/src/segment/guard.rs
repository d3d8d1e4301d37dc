//! The guards of a segment's lock, for all containers. A guard is one word, so that it is returned
//! in a register.
//!
//! A guard is made in three steps, and dropped in the reverse order:
//!
//! 1. It marks the thread ([`ThreadLockMark`]), which finds a deadlock of a thread with itself.
//! 2. It takes the lock: in one attempt if no participant is in the way, else by waiting.
//! 3. The caller reads or changes the contents. A change is announced by
//!    [`begin_change`](Segment::begin_change), which makes a death poison, or afterwards by
//!    [`set_changed`](Segment::set_changed) where the container has no torn contents.
//!
//! The first lock of a handle attaches it, which takes a slot. The lock and all of that together
//! take no longer than the caller's deadline.
//!
//! After a fork the child has copies of its parent's guards. They release nothing: the lock is the
//! parent's.

use super::{Acquired, Deadline, Segment, SlotHandle, ThreadLockMark};
use crate::error::Result;
use crate::sys::guard::Fault;

/// The lock for reading. Dropped, it is released.
pub(crate) struct ReadLock<'a> {
    mark: ThreadLockMark<'a, false>,
}

/// The lock for writing. Dropped, it is released, and waiters are woken if there was a change.
pub(crate) struct WriteLock<'a> {
    mark: ThreadLockMark<'a, true>,
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
                until: impl FnOnce() -> Deadline,
                doing: &'static str,
            ) -> Result<(Self, Acquired)> {
                let Some(slot_handle) = segment.slot_handle() else { return $guard::attach(segment, until(), doing) };
                let Some(mark) = ThreadLockMark::first(segment) else { return $guard::mark(segment, until(), doing) };
                match segment.$attempt(slot_handle) {
                    Ok(Some(held)) => Ok(($guard { mark }, held)),
                    Ok(None) | Err(Fault) => $guard::wait(mark, until(), doing),
                }
            }

            /// This handle's first lock.
            #[cold]
            #[inline(never)]
            fn attach(segment: &'a Segment, until: Deadline, doing: &'static str) -> Result<(Self, Acquired)> {
                let (_, until) = segment.participant_until(until, doing)?;
                $guard::mark(segment, until, doing)
            }

            /// This thread has other locks.
            #[cold]
            #[inline(never)]
            fn mark(segment: &'a Segment, until: Deadline, doing: &'static str) -> Result<(Self, Acquired)> {
                $guard::wait(ThreadLockMark::mark(segment, doing)?, until, doing)
            }

            /// A participant is in the way, or was.
            #[cold]
            #[inline(never)]
            fn wait(
                mark: ThreadLockMark<'a, { $guard::WRITES }>,
                until: Deadline,
                doing: &'static str,
            ) -> Result<(Self, Acquired)> {
                let held = mark.segment().$wait(until, doing)?;
                Ok(($guard { mark }, held))
            }

            /// The segment that is locked.
            #[inline]
            pub(crate) fn segment(&self) -> &'a Segment {
                self.mark.segment()
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
        let segment = self.mark.segment();
        // A forked child has no seat, and neither has a handle with a lock of the user's own.
        // Where the page is gone, so is the lock.
        let _ = match segment.slot_handle() {
            Some(slot_handle) => segment.lock.unlock_read(slot_handle),
            None => segment.unlock_custom(false),
        };
    }
}

impl Drop for WriteLock<'_> {
    #[inline]
    fn drop(&mut self) {
        let segment = self.mark.segment();
        // As for reading.
        let _ = match segment.slot_handle() {
            Some(slot_handle) => segment.release_write(slot_handle),
            None => segment.unlock_custom(true),
        };
    }
}

impl Segment {
    #[inline]
    fn try_read_as(&self, slot_handle: &SlotHandle) -> Result<Option<Acquired>, Fault> {
        self.lock.try_read(slot_handle)
    }

    #[inline]
    fn try_write_as(&self, slot_handle: &SlotHandle) -> Result<Option<Acquired>, Fault> {
        Ok(self.lock.try_write(slot_handle)?.then_some(Acquired { poisoned: false }))
    }

    /// Releases the lock for writing: ends the change, if there was one, and wakes waiters after
    /// it.
    #[inline]
    pub(super) fn release_write(&self, slot_handle: &SlotHandle) -> Result<(), Fault> {
        if self.is_changing() {
            self.end_and_release(slot_handle)
        } else {
            self.lock.unlock_write(slot_handle).map(drop)
        }
    }

    #[inline(never)]
    fn end_and_release(&self, slot_handle: &SlotHandle) -> Result<(), Fault> {
        self.end_change()?;
        // The exchange stands between the store of the version and the look at the waiters.
        if self.lock.unlock_write(slot_handle)? { self.change_queue.wake_flagged() } else { Ok(()) }
    }
}

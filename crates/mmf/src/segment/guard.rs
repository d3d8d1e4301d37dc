//! The guards of a segment's lock, for all containers. A guard is one word, so that it is returned
//! in a register.
//!
//! A guard is made in three steps, and dropped in the reverse order:
//!
//! 1. It marks the thread ([`ThreadLockMark`]), which finds a deadlock of a thread with itself.
//! 2. It takes the lock: in one attempt if no participant is in the way, else by waiting.
//! 3. The caller reads or changes the contents, and notes a change by
//!    [`set_changed`](Segment::set_changed). The release then ends the change as the
//!    [container](Container) does that, and wakes waiters.
//!
//! The first lock of a handle attaches it, which takes a slot. The lock and all of that together
//! take no longer than the caller's deadline.
//!
//! After a fork the child has copies of its parent's guards. They release nothing: the lock is the
//! parent's.
//!
//! # Cost
//!
//! The fast path is inlined into the caller and makes one guarded exchange. The slow path is a
//! function of its own, and both end with the container's `finish`: if their results were one value
//! before that, the fast path would store the guard to memory and load it again.

use super::waiter_counts::{WaitReason, WaiterCount};
use super::{Acquired, AttachedParticipant, Container, Deadline, Segment, SlotHandle, ThreadLockMark, participants};
use crate::error::Result;
use crate::lock::LockFailure;
use crate::sys::guard::Fault;

/// The lock, for writing if `WRITES`. Dropped, it is released; for writing, waiters are woken if
/// there was a change.
pub(crate) struct SegmentLock<'a, C: Container, const WRITES: bool> {
    mark: ThreadLockMark<'a, C, WRITES>,
}

/// The lock for reading.
pub(crate) type ReadLock<'a, C> = SegmentLock<'a, C, false>;

/// The lock for writing.
pub(crate) type WriteLock<'a, C> = SegmentLock<'a, C, true>;

impl<'a, C: Container, const WRITES: bool> SegmentLock<'a, C, WRITES> {
    /// Takes the lock, and returns what `finish` makes of that. Calls `until` only if the fast path
    /// fails.
    ///
    /// # Errors
    ///
    /// `finish` gets them: deadlock if this thread has the lock already, a timeout, or what
    /// attaching reports.
    #[inline(always)]
    pub(crate) fn lock<T>(
        segment: &'a Segment<C>,
        until: impl FnOnce() -> Deadline,
        doing: &'static str,
        finish: impl FnOnce(Result<(Self, Acquired)>) -> T,
    ) -> T {
        match SegmentLock::try_lock(segment) {
            Ok(locked) => finish(Ok(locked)),
            Err(mark) => SegmentLock::lock_slow(segment, mark, until(), doing, finish),
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow<T>(
        segment: &'a Segment<C>,
        mark: Option<ThreadLockMark<'a, C, WRITES>>,
        until: Deadline,
        doing: &'static str,
        finish: impl FnOnce(Result<(Self, Acquired)>) -> T,
    ) -> T {
        finish(SegmentLock::wait(segment, mark, until, doing))
    }

    /// Takes the lock if the handle is attached, the thread has no lock, and no participant is in
    /// the way. Otherwise returns the mark, if it was made.
    #[inline(always)]
    fn try_lock(segment: &'a Segment<C>) -> Result<(Self, Acquired), Option<ThreadLockMark<'a, C, WRITES>>> {
        let Some(slot_handle) = segment.slot_handle() else { return Err(None) };
        let Some(mark) = ThreadLockMark::first(segment) else { return Err(None) };
        let acquired = if WRITES {
            let is_taken = segment.lock.try_write(slot_handle);
            // What it takes has no poison.
            is_taken.map(|is_taken| is_taken.then_some(Acquired { poisoned: false }))
        } else {
            segment.lock.try_read(slot_handle)
        };
        match acquired {
            Ok(Some(acquired)) => Ok((SegmentLock { mark }, acquired)),
            Ok(None) | Err(Fault) => Err(Some(mark)),
        }
    }

    /// Takes the lock after a [`try_lock`](Self::try_lock) that failed and left `mark`.
    fn wait(
        segment: &'a Segment<C>,
        mark: Option<ThreadLockMark<'a, C, WRITES>>,
        until: Deadline,
        doing: &'static str,
    ) -> Result<(Self, Acquired)> {
        // Before the mark, since attaching may take this lock.
        let (participant, until) = segment.participant_until(until, doing)?;
        let mark = match mark {
            Some(mark) => mark,
            None => ThreadLockMark::mark(segment, doing)?,
        };
        match segment.lock_as::<WRITES>(participant, until) {
            Ok(acquired) => Ok((SegmentLock { mark }, acquired)),
            Err(failure) => Err(segment.lock_error(failure, until, doing)),
        }
    }

    /// The segment that is locked.
    #[inline]
    pub(crate) fn segment(&self) -> &'a Segment<C> {
        self.mark.segment()
    }
}

impl<C: Container, const WRITES: bool> Drop for SegmentLock<'_, C, WRITES> {
    #[inline]
    fn drop(&mut self) {
        let segment = self.mark.segment();
        // `None` in a forked child, and where the lock is the user's own. Where the page is gone,
        // so is the lock.
        let _ = match segment.slot_handle() {
            Some(slot_handle) if WRITES => segment.release_write(slot_handle),
            Some(slot_handle) => segment.lock.unlock_read(slot_handle),
            None => segment.unlock_custom(WRITES),
        };
    }
}

impl<C: Container> Segment<C> {
    /// Takes the lock as that participant, waiting for it: mmf's own or the user's.
    #[inline]
    pub(super) fn lock_as<const WRITES: bool>(
        &self,
        participant: &AttachedParticipant,
        until: Deadline,
    ) -> Result<Acquired, LockFailure> {
        let me = participant.slot_handle();
        let waits = WaiterCount::new(self, me.slot(), WaitReason::Lock);
        // Called after 1 ms of waiting.
        let reap = |slot| waits.begin().and_then(|()| participants::reap(self, participant, slot));
        match &self.custom_lock {
            None if WRITES => self.lock.write(me, until, &reap),
            None => self.lock.read(me, until, &reap),
            Some(custom) => self.lock_custom(custom, me, WRITES, until, &reap),
        }
    }

    /// Releases the lock for writing: ends the change, if there was one, and wakes waiters after
    /// it.
    #[inline]
    fn release_write(&self, slot_handle: &SlotHandle) -> Result<(), Fault> {
        if self.is_changed() {
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

//! How a participant waits for a lock:
//!
//! 1. It looks at the lock [`SPINS`] times, with growing pauses.
//! 2. It sleeps in the lock's queue until a release wakes it, for at most [`MIN_SLEEP`] at first.
//! 3. After a sleep that took its whole bound, it checks whether the participant in the way is
//!    alive, and clears the slot of a dead one. The bound doubles up to [`MAX_SLEEP`].
//! 4. After [`STARVED_AFTER`] it may set and pass STARVED, see [`lock`](super).
//!
//! Optimistic reads have another mechanism, `segment/retry.rs`, since no process wakes a reader
//! without a lock, and it asks for no holder: its pauses go by the clock alone.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::sys;
use crate::sys::guard::Fault;
use crate::wait::{PARTICIPANT_SLOTS, Ticket, WaitQueue};

/// The time after which a waiter counts as starved.
const STARVED_AFTER: Duration = Duration::from_millis(1);
/// The bound of the first sleep, and the longest time between two checks whether a holder is alive.
const MIN_SLEEP: Duration = Duration::from_millis(1);
const MAX_SLEEP: Duration = Duration::from_millis(20);
/// Attempts before the first sleep, which take about as long as a sleep and a wake-up. Models make
/// one, since each more multiplies the orders of events.
const SPINS: u32 = if cfg!(all(test, loom)) { 1 } else { 60 };

/// Why a lock was not obtained.
#[derive(Debug)]
pub(crate) enum LockFailure {
    /// The deadline passed.
    Timeout {
        /// The slot that was in the way, if one was seen.
        holder: Option<usize>,
        /// For how long this participant has seen it there.
        seen_for: Duration,
    },
    /// The page with the lock is gone.
    Gone,
    /// The system could not tell whether a holder lives.
    Failed(Error),
}

impl From<Fault> for LockFailure {
    fn from(Fault: Fault) -> LockFailure {
        LockFailure::Gone
    }
}

/// How long a call may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    /// Do not wait.
    Now,
    /// This long. Only a call that has to wait reads the clock.
    After(Duration),
    At(Instant),
    Never,
}

impl Deadline {
    /// Returns the deadline by the clock; `None` without one, or if the clock cannot tell such a
    /// time.
    pub(crate) fn instant(self) -> Option<Instant> {
        match self {
            Deadline::Now => Some(sys::now()),
            Deadline::After(timeout) => sys::now().checked_add(timeout),
            Deadline::At(deadline) => Some(deadline),
            Deadline::Never => None,
        }
    }

    /// Returns the same deadline by the clock, so that several waits together take no longer.
    pub(crate) fn resolve(self) -> Deadline {
        match self {
            Deadline::After(_) => self.instant().map_or(Deadline::Never, Deadline::At),
            Deadline::Now | Deadline::At(_) | Deadline::Never => self,
        }
    }

    /// Returns a deadline that is at most that far away.
    pub(crate) fn limit_to(self, most: Duration) -> Deadline {
        match self {
            Deadline::Now => Deadline::Now,
            Deadline::After(timeout) => Deadline::After(timeout.min(most)),
            Deadline::At(deadline) => Deadline::After(deadline.saturating_duration_since(sys::now()).min(most)),
            Deadline::Never => Deadline::After(most),
        }
    }

    /// Returns a duration that is at least that long; a moment and no limit stay as they are.
    pub(crate) fn at_least(self, least: Duration) -> Deadline {
        match self {
            Deadline::Now => Deadline::After(least),
            Deadline::After(timeout) => Deadline::After(timeout.max(least)),
            Deadline::At(_) | Deadline::Never => self,
        }
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_over(self) -> bool {
        self.instant().is_some_and(|deadline| sys::now() >= deadline)
    }
}

/// Clears a slot if its participant is dead, and tells whether it was.
pub(crate) type ReapFn<'a> = &'a dyn Fn(usize) -> Result<bool>;

/// One wait for a lock.
pub(super) struct Backoff {
    pub(super) until: Deadline,
    /// `until` by the clock, from the first time on that the clock was read.
    deadline: Option<Instant>,
    spins: u32,
    since: Option<Instant>,
    sleep: Duration,
    /// The deadline has passed, and no participant is in the way.
    pub(super) last_try: bool,
    /// How many dead participants were cleared since the deadline.
    reaped_late: usize,
    /// When this waiter last checked whether the participant in the way is alive, or when the wait
    /// began.
    asked: Option<Instant>,
    /// Whether that participant was dead.
    reaped: bool,
    /// The participant that is in the way, and since when without a break.
    blocker: Option<(usize, Instant)>,
}

impl Backoff {
    pub(super) fn new(until: Deadline) -> Backoff {
        Backoff {
            until,
            deadline: None,
            spins: 0,
            since: None,
            sleep: MIN_SLEEP,
            last_try: false,
            reaped_late: 0,
            asked: None,
            reaped: false,
            blocker: None,
        }
    }

    /// Whether the spins are over.
    pub(super) fn has_slept(&self) -> bool {
        self.since.is_some()
    }

    pub(super) fn is_long(&self) -> bool {
        self.since.is_some_and(|since| sys::now() - since >= STARVED_AFTER)
    }

    /// Takes the ticket for the next sleep. None while this waiter spins: releases would wake a
    /// participant that does not sleep.
    pub(super) fn ticket(&self, queue: &WaitQueue, me: usize) -> Result<Option<Ticket>, Fault> {
        if self.spins < SPINS { Ok(None) } else { queue.ticket(me).map(Some) }
    }

    pub(super) fn pause(
        &mut self,
        queue: &WaitQueue,
        ticket: Option<Ticket>,
        blocker: Option<usize>,
        reap: ReapFn<'_>,
    ) -> Result<(), LockFailure> {
        if self.spins < SPINS {
            self.spins += 1;
            for _ in 0..self.spins {
                std::hint::spin_loop();
            }
            // Reading the clock takes longer than most holders keep the lock.
            if !matches!(self.until, Deadline::Now) {
                return Ok(());
            }
        }
        if self.since.is_none() {
            self.deadline = self.until.instant();
            self.until = self.deadline.map_or(Deadline::Never, Deadline::At);
        }
        let now = sys::now();
        self.since.get_or_insert(now);
        self.blocker = match (blocker, self.blocker) {
            (Some(slot), Some((known, since))) if slot == known => Some((slot, since)),
            (Some(slot), _) => Some((slot, now)),
            (None, _) => None,
        };
        let left = match self.deadline {
            Some(deadline) if deadline <= now => {
                if self.may_try_again(queue, blocker, reap)? {
                    return Ok(());
                }
                let holder = self.blocker.map(|(slot, _)| slot);
                let seen_for = self.blocker.map_or(Duration::ZERO, |(_, since)| now - since);
                return Err(LockFailure::Timeout { holder, seen_for });
            }
            Some(deadline) => deadline - now,
            None => MAX_SLEEP,
        };
        let Some(ticket) = ticket else { return Ok(()) };
        // All handles of a program die with it, so after a dead participant the next one in the way
        // is checked at once.
        if !self.reaped {
            queue.sleep(ticket, self.sleep.min(left));
        }
        // By the clock, since releases may wake this waiter often while a dead one is in the way.
        let asked = *self.asked.get_or_insert(now);
        if self.reaped || sys::now() - asked >= self.sleep {
            self.reaped = match blocker {
                Some(slot) => reap(slot).map_err(LockFailure::Failed)?,
                None => false,
            };
            self.asked = Some(sys::now());
            self.sleep = (self.sleep * 2).min(MAX_SLEEP);
        }
        Ok(())
    }

    /// Whether another attempt makes sense though the deadline has passed. A caller that only tries
    /// never waits long: it would otherwise never find a holder dead, nor pass STARVED whose setter
    /// is gone.
    fn may_try_again(
        &mut self,
        queue: &WaitQueue,
        blocker: Option<usize>,
        reap: ReapFn<'_>,
    ) -> Result<bool, LockFailure> {
        match blocker {
            // There are at most this many, unless a peer forges them.
            Some(_) if self.reaped_late >= PARTICIPANT_SLOTS => Ok(false),
            Some(slot) => {
                self.reaped_late += 1;
                reap(slot).map_err(LockFailure::Failed)
            }
            None if self.last_try => Ok(false),
            // The waiters for which STARVED is set are woken first: the living ones take the lock,
            // or set STARVED again.
            None if queue.has_waiters()? => {
                queue.wake_all()?;
                Ok(false)
            }
            None => {
                self.last_try = true;
                Ok(true)
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed check is a failed test")]

    use std::sync::Arc;

    use super::super::{Lock, LockOffsets};
    use super::*;
    use crate::Mapping;

    #[test]
    fn readers_that_a_peer_makes_up_as_fast_as_they_are_cleared_end_no_later_than_the_deadline() {
        let map = Mapping::anonymous(32 << 10).unwrap();
        let offsets = LockOffsets { word: 0, queue: 64, occupied: 128, readers: 4096, stride: 64 };
        let parker = Arc::new(sys::Parker::new(&[0; 16]));
        // SAFETY: the mapping outlives the lock and its places are within it.
        let lock = unsafe { Lock::new(&map, offsets, &parker, 0) }.unwrap();
        let (me, other) = (lock.readers().slot_handle(0).unwrap(), lock.readers().slot_handle(1).unwrap());
        lock.readers().set_occupied(1, true).unwrap();
        lock.try_read(&other).unwrap().unwrap();
        let reaped = std::cell::Cell::new(0);
        for until in [Deadline::Now, Deadline::After(Duration::from_millis(1))] {
            // The reader is there again at once.
            let failure = lock.write(&me, until, &|slot| {
                assert_eq!(slot, 1);
                reaped.set(reaped.get() + 1);
                assert!(reaped.get() < 10_000, "it goes on for ever");
                Ok(true)
            });
            assert!(matches!(failure, Err(LockFailure::Timeout { holder: Some(1), .. })), "{failure:?}");
            assert!(
                reaped.get() >= PARTICIPANT_SLOTS,
                "a program that died with a lock in each slot is in nobody's way"
            );
        }
    }
}

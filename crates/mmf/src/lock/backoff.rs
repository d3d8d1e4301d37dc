//! How a lock is waited for, and for how long.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::sys;
use crate::sys::guard::Fault;
use crate::wait::{PARTICIPANT_SLOTS, Ticket, WaitQueue};

/// When a wait has become long.
const STARVED_AFTER: Duration = Duration::from_millis(1);
/// How long the first sleep is, and the longest between two looks at whether the holders live.
const MIN_SLEEP: Duration = Duration::from_millis(1);
const MAX_SLEEP: Duration = Duration::from_millis(20);
/// Looks at the lock before the first sleep: about what a sleep and a wake-up cost.
/// Models take one, since each more multiplies what they have to go through.
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
    /// The page that the lock is in is gone.
    Gone,
    /// The system could not tell whether a holder lives.
    Failed(Error),
}

impl From<Fault> for LockFailure {
    fn from(Fault: Fault) -> LockFailure {
        LockFailure::Gone
    }
}

/// Until when to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    /// Do not wait.
    Now,
    /// For so long. The clock is asked only by those who wait.
    After(Duration),
    At(Instant),
    Never,
}

impl Deadline {
    /// `None` is for ever, as is what no clock can tell.
    pub(crate) fn instant(self) -> Option<Instant> {
        match self {
            Deadline::Now => Some(sys::now()),
            Deadline::After(timeout) => sys::now().checked_add(timeout),
            Deadline::At(deadline) => Some(deadline),
            Deadline::Never => None,
        }
    }

    /// The same by the clock, so that several waits together take no longer.
    pub(crate) fn resolve(self) -> Deadline {
        match self {
            Deadline::After(_) => self.instant().map_or(Deadline::Never, Deadline::At),
            Deadline::Now | Deadline::At(_) | Deadline::Never => self,
        }
    }

    /// For so long at the most.
    pub(crate) fn limit_to(self, most: Duration) -> Deadline {
        match self {
            Deadline::Now => Deadline::Now,
            Deadline::After(timeout) => Deadline::After(timeout.min(most)),
            Deadline::At(deadline) => Deadline::After(deadline.saturating_duration_since(sys::now()).min(most)),
            Deadline::Never => Deadline::After(most),
        }
    }

    /// At least for that long, unless it is a moment or for ever.
    pub(crate) fn at_least(self, least: Duration) -> Deadline {
        match self {
            Deadline::Now => Deadline::After(least),
            Deadline::After(timeout) => Deadline::After(timeout.max(least)),
            Deadline::At(_) | Deadline::Never => self,
        }
    }

    /// Whether there is nothing left to wait for.
    pub(crate) fn is_over(self) -> bool {
        self.instant().is_some_and(|deadline| sys::now() >= deadline)
    }
}

/// Clears a slot if its participant is dead, and tells whether it was.
pub(crate) type ReapFn<'a> = &'a dyn Fn(usize) -> Result<bool>;

/// One wait for a lock: spins, then sleeps with growing bounds, and asks who in the way still lives.
pub(super) struct Backoff {
    pub(super) until: Deadline,
    /// The same by the clock, once that was asked.
    deadline: Option<Instant>,
    spins: u32,
    since: Option<Instant>,
    sleep: Duration,
    /// The deadline has passed, and nobody is in the way.
    pub(super) last_try: bool,
    /// How many dead participants were cleared since.
    reaped_late: usize,
    /// When it was last asked whether who is in the way lives, or when the wait began.
    asked: Option<Instant>,
    /// Who was in the way when it was last asked was dead.
    reaped: bool,
    /// Who was in the way, and since when without a break.
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

    /// Whether it is more than a few looks.
    pub(super) fn has_slept(&self) -> bool {
        self.since.is_some()
    }

    pub(super) fn is_long(&self) -> bool {
        self.since.is_some_and(|since| sys::now() - since >= STARVED_AFTER)
    }

    /// What the sleep that comes next needs; none while there is none to come, since others would then wake one who does
    /// not sleep.
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
            // Mostly it is free before the clock has told the time.
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
        // A program that dies takes all its handles along: who comes next in the way is asked about at once.
        if !self.reaped {
            queue.sleep(ticket, self.sleep.min(left));
        }
        // However often others wake us meanwhile, who is in the way may be dead.
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

    /// Whether there is a reason to look once more though the deadline has passed. Who never waits
    /// long, because it only tries, would otherwise never learn that a holder is dead, nor pass
    /// STARVED that nobody is left to take away.
    fn may_try_again(
        &mut self,
        queue: &WaitQueue,
        blocker: Option<usize>,
        reap: ReapFn<'_>,
    ) -> Result<bool, LockFailure> {
        match blocker {
            // There are no more than so many, unless somebody makes them up.
            Some(_) if self.reaped_late >= PARTICIPANT_SLOTS => Ok(false),
            Some(slot) => {
                self.reaped_late += 1;
                reap(slot).map_err(LockFailure::Failed)
            }
            None if self.last_try => Ok(false),
            // Those for whom STARVED stands are woken first: if they live, they come, or ask for
            // their places anew.
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
            // It is there again at once.
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

//! A segment whose lock is the user's own.

use std::time::{Duration, Instant};

use super::participants::poison_if_half_made;
use super::{Held, Participant, Seat, Segment, Until, layout};
use crate::error::{Error, Result};
use crate::lock::{LockWords, OwnLock, Reap, Refused};
use crate::sys::guard::Fault;

/// How often it is looked whether the system has released the rest of what a dead participant had.
const LOOK: Duration = Duration::from_micros(200);

impl Segment {
    fn words(&self) -> LockWords<'_> {
        // SAFETY: only participants come here, whose mapping may be written.
        unsafe { LockWords::new(&self.map, layout::LOCK_WORDS) }
    }

    pub(super) fn lock_own(
        &self,
        own: &OwnLock,
        me: &Seat,
        writes: bool,
        until: Until,
        reap: Reap<'_>,
    ) -> Result<Held, Refused> {
        let attempt = || own.try_lock(self.words(), me.slot(), writes);
        let mut until = until;
        if !attempt().map_err(Refused::Failed)? {
            // What this takes is not there for what follows.
            until = until.fixed();
            self.lock.wait_for(me, until, &attempt, reap)?;
        }
        let inside = self.inherit(me, until, reap).and_then(|()| {
            self.lock.tell_inside(me, writes)?;
            Ok(Held { poisoned: self.lock.is_poisoned()? })
        });
        if inside.is_err() {
            own.unlock(self.words(), me.slot(), writes).map_err(Refused::Failed)?;
            // Whoever found it taken meanwhile may try again.
            self.lock.wake()?;
        }
        inside
    }

    /// A writer that is still told to be inside is dead, and the system released its lock: its change is looked at before
    /// anybody makes another. The system may release the token later.
    fn inherit(&self, me: &Seat, until: Until, reap: Reap<'_>) -> Result<(), Refused> {
        let deadline = until.deadline();
        let since = Instant::now();
        while let Some(gone) = self.lock.writer()? {
            let cleared = if gone == me.slot() {
                // The caller has the user's lock, so none of this handle's threads is inside to
                // write: a peer stored this.
                poison_if_half_made(self, gone)?;
                self.lock.tell_leaving(me, true)?;
                true
            } else {
                reap(gone).map_err(Refused::Failed)?
            };
            if cleared && self.lock.writer()?.is_none() {
                break;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Refused::Timeout { holder: Some(gone), seen_for: since.elapsed() });
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    pub(super) fn unlock_as(&self, participant: &Participant) -> Result<(), Fault> {
        match &self.own_lock {
            None => self.lock.unlock_write(participant.seat()).map(drop),
            Some(own) => self.unlock_own_as(own, participant.seat(), true),
        }
    }

    /// Ends a guard's lock that is the user's own.
    #[cold]
    #[inline(never)]
    pub(crate) fn unlock_own(&self, writes: bool) -> Result<(), Fault> {
        let (Some(own), Some(participant), true) = (&self.own_lock, self.own_participant.get(), self.is_ours()) else {
            return Ok(());
        };
        let changed = writes && self.is_changing();
        // Its lock may be where no page is missing, and is given back in any case.
        let ended = if changed { self.end_change() } else { Ok(()) };
        self.unlock_own_as(own, participant.seat(), writes)?;
        ended?;
        if changed { self.changes.wake_all() } else { Ok(()) }
    }

    /// Told before it is done: who finds the lock free finds nobody inside.
    fn unlock_own_as(&self, own: &OwnLock, me: &Seat, writes: bool) -> Result<(), Fault> {
        let told = self.lock.tell_leaving(me, writes);
        // Like a page that is gone, it is nothing that a guard's drop could tell anybody.
        let unlocked = own.unlock(self.words(), me.slot(), writes).map_err(|_| Fault);
        told.and(unlocked)?;
        self.lock.wake()
    }

    /// Gives back what a participant has of the user's own lock. The caller has its token, and has told of poison before.
    pub(super) fn recover_own(&self, slot: usize) -> Result<()> {
        let Some(own) = &self.own_lock else { return Ok(()) };
        // The word is anybody's to write, and may name a slot that no segment has.
        if slot >= LockWords::PARTICIPANTS {
            return Ok(());
        }
        own.recover(self.words(), slot).map_err(|error| self.name_it(error))?;
        self.or_gone(self.lock.wake(), "recover")
    }

    /// Refuses a segment that has another lock than this handle. Who only reads takes none.
    pub(super) fn check_lock(header: &str, own: Option<&OwnLock>, writable: bool) -> Result<()> {
        let text = |name: &str| if name.is_empty() { "mmf's own".to_owned() } else { format!("{name:?}") };
        let wanted = own.map_or(Ok(String::new()), OwnLock::checked_name)?;
        if header == wanted || (own.is_none() && !writable) {
            return Ok(());
        }
        Err(Error::mismatch("its lock", text(&wanted), text(header)))
    }
}

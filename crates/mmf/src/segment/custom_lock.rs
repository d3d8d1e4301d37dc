//! A segment whose lock is the user's own.

use std::time::{Duration, Instant};

use super::{Acquired, AttachedParticipant, Container, Deadline, Segment, SlotHandle, layout};
use crate::error::{Error, Result};
use crate::lock::{CustomLock, LockFailure, LockWords, ReapFn};
use crate::sys::guard::Fault;

/// How often it is looked whether the system has released the rest of what a dead participant had.
const RELEASE_POLL: Duration = Duration::from_micros(200);

impl<C: Container> Segment<C> {
    fn words(&self) -> LockWords<'_> {
        // SAFETY: only participants come here, whose mapping may be written.
        unsafe { LockWords::new(&self.map, layout::LOCK_WORDS) }
    }

    pub(super) fn lock_custom(
        &self,
        custom: &CustomLock,
        me: &SlotHandle,
        writes: bool,
        until: Deadline,
        reap: ReapFn<'_>,
    ) -> Result<Acquired, LockFailure> {
        let attempt = || custom.try_lock(self.words(), me.slot(), writes);
        let mut until = until;
        if !attempt().map_err(LockFailure::Failed)? {
            // What this takes is not there for what follows.
            until = until.resolve();
            self.lock.wait_for(me, until, &attempt, reap)?;
        }
        let inside = self.reap_dead_writer(me, until, reap).and_then(|()| {
            self.lock.record_holder(me, writes)?;
            Ok(Acquired { poisoned: self.lock.is_poisoned()? })
        });
        if inside.is_err() {
            custom.unlock(self.words(), me.slot(), writes).map_err(LockFailure::Failed)?;
            // Whoever found it taken meanwhile may try again.
            self.lock.wake()?;
        }
        inside
    }

    /// A writer that is still told to be inside is dead, and the system released its lock: its change is looked at before
    /// anybody makes another. The system may release the token later.
    fn reap_dead_writer(&self, me: &SlotHandle, until: Deadline, reap: ReapFn<'_>) -> Result<(), LockFailure> {
        let deadline = until.instant();
        let since = Instant::now();
        while let Some(gone) = self.lock.writer()? {
            let cleared = if gone == me.slot() {
                // The caller has the user's lock, so none of this handle's threads is inside to
                // write: a peer stored this.
                self.container.poison_half_made(&self.lock, gone)?;
                self.lock.clear_holder(me, true)?;
                true
            } else {
                reap(gone).map_err(LockFailure::Failed)?
            };
            if cleared && self.lock.writer()?.is_none() {
                break;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(LockFailure::Timeout { holder: Some(gone), seen_for: since.elapsed() });
            }
            std::thread::sleep(RELEASE_POLL);
        }
        Ok(())
    }

    pub(super) fn unlock_as(&self, participant: &AttachedParticipant) -> Result<(), Fault> {
        match &self.custom_lock {
            None => self.lock.unlock_write(participant.slot_handle()).map(drop),
            Some(custom) => self.unlock_custom_as(custom, participant.slot_handle(), true),
        }
    }

    /// Ends a guard's lock that is the user's own.
    #[cold]
    #[inline(never)]
    pub(crate) fn unlock_custom(&self, writes: bool) -> Result<(), Fault> {
        let (Some(custom), Some(participant), true) =
            (&self.custom_lock, self.custom_participant.get(), self.is_current_process())
        else {
            return Ok(());
        };
        let changed = writes && self.is_changed();
        // Its lock may be where no page is missing, and is given back in any case.
        let ended = if changed { self.end_change() } else { Ok(()) };
        self.unlock_custom_as(custom, participant.slot_handle(), writes)?;
        ended?;
        if changed { self.change_queue.wake_all() } else { Ok(()) }
    }

    /// Told before it is done: who finds the lock free finds nobody inside.
    fn unlock_custom_as(&self, custom: &CustomLock, me: &SlotHandle, writes: bool) -> Result<(), Fault> {
        let told = self.lock.clear_holder(me, writes);
        // Like a page that is gone, it is nothing that a guard's drop could tell anybody.
        let unlocked = custom.unlock(self.words(), me.slot(), writes).map_err(|_| Fault);
        told.and(unlocked)?;
        self.lock.wake()
    }

    /// Gives back what a participant has of the user's own lock. The caller has its token, and has told of poison before.
    pub(super) fn recover_custom(&self, slot: usize) -> Result<()> {
        let Some(custom) = &self.custom_lock else { return Ok(()) };
        // The word is anybody's to write, and may name a slot that no segment has.
        if slot >= LockWords::PARTICIPANTS {
            return Ok(());
        }
        custom.recover(self.words(), slot).map_err(|error| self.name_error(error))?;
        self.or_fault(self.lock.wake(), "recover")
    }
}

/// Refuses a segment that has another lock than this handle. A read-only handle takes none.
pub(super) fn check_lock(header: &str, custom: Option<&CustomLock>, writable: bool) -> Result<()> {
    let text = |name: &str| if name.is_empty() { "mmf's own".to_owned() } else { format!("{name:?}") };
    let wanted = custom.map_or(Ok(String::new()), CustomLock::checked_name)?;
    if header == wanted || (custom.is_none() && !writable) {
        return Ok(());
    }
    Err(Error::mismatch("its lock", text(&wanted), text(header)))
}

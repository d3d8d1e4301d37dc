//! Which boot of which machine a segment was used in last, and which processes have checked it
//! since.
//!
//! A file outlives the machine that used it, with whatever stood in its header: a writer in the
//! lock's word, readers, a half-made change. The first participant of another boot clears all of
//! that, and writes the present boot last. A death on the way changes nothing: the next participant
//! finds the old boot and does it again.
//!
//! # Checked participants
//!
//! The boot id alone does not show that the machine stopped: containers can each be given an id of
//! their own. So a participant of a file holds a second token for its slot, from the moment at
//! which it has finished its checks of the file until it is dropped. The system takes that token
//! back when the process dies, and no token outlives the kernel. Therefore, if process P finds such
//! a token held by process Q:
//!
//! 1. Q has finished its checks under this kernel, and this kernel has not stopped since.
//! 2. So all pages of the file are in this kernel's memory as processes wrote them since those
//!    checks.
//! 3. So a boot id that differs from P's is another container's, and P has nothing to clear or to
//!    recover.
//!
//! The first token does not show that: a participant has it before its checks, since it has to lock
//! for them. Two processes that open a file after a power cut both have their first token while one
//! of them recovers. Shared memory cannot hold the mark either: a mark from before the power cut
//! would be found in a slot whose token a new process has just taken.
//!
//! The checks are: what [`Segment::renew`] does, and for a dict the check of its own BOOT
//! (`dict/open_after_crash.rs`), which a handle for writing does when it is opened. Both run under
//! the lock for writing wherever the boot differs, and a dict's handle takes the second token
//! before it releases that lock. So of several processes that come first in a new boot, one clears
//! or recovers, and the others find the present boot or the token. If that process dies, its tokens
//! are gone and the boot is still the old one, and the next process does it all.
//!
//! If a checked participant lives, the boot in the file stays as it is. So two containers do not
//! overwrite each other's id, and a participant need not wait for the lock when it attaches. If
//! none lives, and the ids differ, the next participant clears what dead ones left, which costs
//! time and changes nothing that lives: the tokens alone show which slots are dead.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::layout::{PARTICIPANT_SLOTS, at};
use super::participants::{AttachedParticipant, reap_dead};
use super::{Container, Deadline, Segment, ThreadLockMark};
use crate::error::Result;
use crate::lock::LockFailure;
use crate::mapping::{Mapping, SharedWord};
use crate::name::Source;
use crate::sys;
use crate::sys::guard::Fault;

/// The words that tell the boot.
pub(super) struct BootWords {
    machine: [SharedWord<u64>; 2],
    boot: [SharedWord<u64>; 2],
}

impl BootWords {
    /// # Safety
    ///
    /// As [`Mapping::shared_word`].
    pub(super) unsafe fn new(map: &Mapping) -> Result<BootWords> {
        // SAFETY: the caller's promise, passed on.
        let word = |n: usize| unsafe { map.shared_word(at::BOOT + 8 * n) };
        Ok(BootWords { machine: [word(0)?, word(1)?], boot: [word(2)?, word(3)?] })
    }

    /// Whether it is this boot. The machine does not matter: each boot has an id of its own, and
    /// containers of
    /// one boot may be told different machines.
    fn is(&self, this: &sys::Boot) -> Result<bool, Fault> {
        let this = words(this.boot);
        Ok(this == [0; 2] || [self.boot[0].load()?, self.boot[1].load()?] == this)
    }

    fn set_to(&self, this: &sys::Boot) -> Result<(), Fault> {
        for (word, id) in self.machine.iter().zip(words(this.machine)) {
            word.swap(id)?;
        }
        for (word, id) in self.boot.iter().zip(words(this.boot)) {
            word.swap(id)?;
        }
        Ok(())
    }
}

fn words(id: [u8; 16]) -> [u64; 2] {
    let (low, high) = id.split_at(8);
    [low, high].map(|half| u64::from_le_bytes(half.try_into().unwrap_or_default()))
}

/// This process's boot, once a call has found it: two words of the machine, two of the boot.
static BOOT: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
/// Whether `BOOT` is there.
static KNOWN: AtomicU32 = AtomicU32::new(UNKNOWN);
const UNKNOWN: u32 = 0;
/// One thread is storing the words.
const STORING: u32 = 1;
const STORED: u32 = 2;

/// Returns the present boot, which stays the same for as long as the machine runs. Errors are not
/// cached.
///
/// No thread waits for another, so a fork at any moment leaves the child nothing to wait for. A
/// child that was forked while another thread stored the words asks the system each time.
pub(crate) fn this_boot() -> Result<sys::Boot> {
    if KNOWN.load(Ordering::Acquire) == STORED {
        let words = [0, 1, 2, 3].map(|n: usize| BOOT[n].load(Ordering::Relaxed));
        return Ok(sys::Boot { machine: bytes([words[0], words[1]]), boot: bytes([words[2], words[3]]) });
    }
    let found = sys::boot()?;
    if KNOWN.compare_exchange(UNKNOWN, STORING, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        for (word, value) in BOOT.iter().zip(words(found.machine).into_iter().chain(words(found.boot))) {
            word.store(value, Ordering::Relaxed);
        }
        KNOWN.store(STORED, Ordering::Release);
    }
    Ok(found)
}

fn bytes([low, high]: [u64; 2]) -> [u8; 16] {
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}

impl<C: Container> Segment<C> {
    /// Whether a participant was there that was told this boot. If not, those who are there may all be dead.
    pub(crate) fn is_of_this_boot(&self) -> Result<bool> {
        if !self.is_file() {
            return Ok(true);
        }
        self.or_fault(self.boot_words.is(&this_boot()?), "examine")
    }

    /// Whether it is a file, which outlives the machine's boot. Memory does not.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.map.source(), Some(Source::File(_)))
    }

    /// Whether a participant lives that has finished its checks, so that the machine has not
    /// stopped since. To be asked by a handle before its own.
    pub(crate) fn has_checked_participant(&self) -> Result<bool> {
        let held = sys::is_any_checked_token_held(self.map.object(), &self.header.id);
        held.map_err(|error| self.name_error(error))
    }

    /// Has this handle's participant wait with its second token for
    /// [`end_checks`](Segment::end_checks).
    pub(crate) fn has_more_checks(&mut self) {
        *self.checked.get_mut() = false;
    }

    /// This handle's checks of the file are done: its participant takes the second token, now if it
    /// is there, or when it attaches.
    pub(crate) fn end_checks(&self) -> Result<()> {
        self.checked.store(true, Ordering::Relaxed);
        match self.participant.get().or(self.custom_participant.get()) {
            Some(participant) => self.confirm(participant),
            None => Ok(()),
        }
    }

    /// Has a participant hold its second token, if the checks are done.
    pub(super) fn confirm(&self, participant: &AttachedParticipant) -> Result<()> {
        if self.is_file() && self.checked.load(Ordering::Relaxed) { participant.confirm(self) } else { Ok(()) }
    }

    /// Whether somebody has that slot, as the system knows.
    pub(crate) fn is_alive(&self, slot: usize) -> Result<bool> {
        // The lock's word is anybody's to write, and may name a slot that there is not.
        let held = if slot < PARTICIPANT_SLOTS {
            sys::is_token_held(self.map.object(), &self.header.id, slot)
        } else {
            Ok(false)
        };
        held.map_err(|error| self.name_error(error))
    }

    /// Clears what other boots left, unless that is done or a checked participant shows that there
    /// is nothing.
    pub(super) fn renew(&self, participant: &AttachedParticipant, until: Deadline) -> Result<(), LockFailure> {
        if self.is_of_this_boot().map_err(LockFailure::Failed)? {
            return Ok(());
        }
        let this = this_boot().map_err(LockFailure::Failed)?;
        let mut others_live = false;
        for slot in self.lock.readers().occupied()? {
            let is_dead = reap_dead(self, participant, slot).map_err(LockFailure::Failed)?;
            others_live |= !is_dead && slot != participant.slot();
        }
        if others_live && self.has_checked_participant().map_err(LockFailure::Failed)? {
            return Ok(());
        }
        let mark = ThreadLockMark::<C, true>::mark(self, "open").map_err(LockFailure::Failed)?;
        let done =
            self.lock_as::<true>(participant, until).map(|_| (self.renew_locked(&this), self.unlock_as(participant)));
        drop(mark);
        let (renewed, unlocked) = done?;
        Ok(renewed.and(unlocked).and_then(|()| self.change_queue.wake_all())?)
    }

    /// What is left is no living participant's, who would have to be in the lock to change anything.
    fn renew_locked(&self, this: &sys::Boot) -> Result<(), Fault> {
        if self.boot_words.is(this)? {
            return Ok(());
        }
        self.container.poison_after_boot(&self.lock)?;
        self.boot_words.set_to(this)
    }
}

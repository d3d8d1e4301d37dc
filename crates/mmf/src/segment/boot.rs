//! In which boot of which machine a segment was used last. What participants left there is nobody's any more.
//!
//! A file outlives the machine that used it, with whatever stood in its header: a writer in the lock's word, readers, a
//! change half made. The first participant of another boot clears all of that, and writes the present boot last. Death on
//! the way changes nothing: the next one finds the old boot and does it again.
//!
//! No life depends on it. Who is dead is told by tokens alone, so that a boot which is told wrongly, as containers may be told
//! one each, costs some time and no more.

use std::sync::OnceLock;

use super::layout::{SLOTS, at};
use super::participants::{Participant, reap};
use super::{Segment, Until};
use crate::error::Result;
use crate::lock::{Mode, Refused};
use crate::mapping::{Cell, Mapping};
use crate::sys;
use crate::sys::guard::Fault;

/// The words that tell the boot.
pub(super) struct LastBoot {
    machine: [Cell<u64>; 2],
    boot: [Cell<u64>; 2],
}

impl LastBoot {
    /// # Safety
    ///
    /// As [`Mapping::cell`].
    pub(super) unsafe fn new(map: &Mapping) -> Result<LastBoot> {
        // SAFETY: the caller's promise, passed on.
        let word = |n: usize| unsafe { map.cell(at::BOOT + 8 * n) };
        Ok(LastBoot { machine: [word(0)?, word(1)?], boot: [word(2)?, word(3)?] })
    }

    /// Whether it is the present boot. The machine does not matter: each boot has an id of its own, and containers of
    /// one boot may be told different machines.
    fn is_this(&self) -> Result<bool, Fault> {
        let this = words(this_boot().boot);
        Ok(this == [0; 2] || [self.boot[0].load()?, self.boot[1].load()?] == this)
    }

    fn set_to_this(&self) -> Result<(), Fault> {
        let this = this_boot();
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

/// It stays the same for as long as a process lives.
pub(super) fn this_boot() -> &'static sys::Boot {
    static THIS: OnceLock<sys::Boot> = OnceLock::new();
    THIS.get_or_init(sys::boot)
}

impl Segment {
    /// Whether a participant was there that was told this boot. If not, those who are there may all be dead.
    pub(crate) fn is_of_this_boot(&self) -> Result<bool, Fault> {
        self.last_boot.is_this()
    }

    /// Whether a change was left half made.
    pub(crate) fn is_poisoned(&self) -> Result<bool> {
        let doing = "examine";
        let version = self.or_gone(self.version.load(), doing)?;
        if self.or_gone(self.lock.is_poisoned(), doing)? {
            return Ok(true);
        }
        // Looked at once more: somebody may have cleared up after the dead meanwhile.
        Ok(version % 2 == 1 && (self.is_abandoned(version)? || self.or_gone(self.lock.is_poisoned(), doing)?))
    }

    /// Whether nobody lives who could end the change under way, which has this odd version.
    pub(crate) fn is_abandoned(&self, version: u64) -> Result<bool> {
        let doing = "examine";
        if let Some(writer) = self.or_gone(self.lock.writer(), doing)? {
            if self.is_alive(writer)? {
                return Ok(false);
            }
        }
        // Behind the look at the token: who ends a change does so before he leaves, and who clears up before he gives
        // the token back.
        Ok(self.or_gone(self.version.load(), doing)? == version)
    }

    /// Whether somebody has that slot, as the system knows.
    pub(crate) fn is_alive(&self, slot: usize) -> Result<bool> {
        // The lock's word is anybody's to write, and may name a slot that there is not.
        let held = if slot < SLOTS { sys::token_is_held(self.map.object(), &self.header.id, slot) } else { Ok(false) };
        held.map_err(|error| self.name_it(error))
    }

    /// Clears what other boots left, unless that is done.
    pub(super) fn renew(&self, participant: &Participant, until: Until) -> Result<(), Refused> {
        if self.is_of_this_boot()? {
            return Ok(());
        }
        for slot in self.lock.readers().occupied()? {
            reap(self, participant, slot).map_err(Refused::Failed)?;
        }
        // No guard's mark does it: this handle is not attached yet.
        participant.seat().begin(Mode::Write);
        let done = self.write_lock_as(participant, until).map(|_| (self.renew_locked(), self.unlock_as(participant)));
        participant.seat().end(Mode::Write);
        let (renewed, unlocked) = done?;
        Ok(renewed.and(unlocked).and_then(|()| self.changes.wake_all())?)
    }

    /// What is left is no living participant's, who would have to be in the lock to change anything.
    fn renew_locked(&self) -> Result<(), Fault> {
        if self.is_of_this_boot()? {
            return Ok(());
        }
        // The disk may have got a part of the header only, so that the change is nobody's.
        let version = self.version.load()?;
        if version % 2 == 1 {
            self.lock.poison()?;
            self.version.store(version.wrapping_add(1))?;
        }
        self.last_boot.set_to_this()
    }
}

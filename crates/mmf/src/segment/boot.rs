//! In which boot of which machine a segment was used last. What participants left there is nobody's any more.
//!
//! A file outlives the machine that used it, with whatever stood in its header: a writer in the lock's word, readers, a
//! change half made. The first participant of another boot clears all of that, and writes the present boot last. Death on
//! the way changes nothing: the next one finds the old boot and does it again.
//!
//! No life depends on it. Those who are cleared are dead by their tokens, so that a boot which is told wrongly costs some
//! time and no more; only readers without a lock take it for true, see [`Segment::is_poisoned`].

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::layout::at;
use super::participants::{Participant, reap};
use super::{Segment, Until};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Refused;
use crate::mapping::{Cell, Mapping};
use crate::sys;
use crate::sys::guard::Fault;

/// For how long it is waited for others who clear the same segment.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether they have finished.
const LOOK: Duration = Duration::from_millis(10);

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
fn this_boot() -> &'static sys::Boot {
    static THIS: OnceLock<sys::Boot> = OnceLock::new();
    THIS.get_or_init(sys::boot)
}

impl Segment {
    /// Whether a participant of this boot was there. If not, all who are there are dead.
    pub(crate) fn is_of_this_boot(&self) -> Result<bool, Fault> {
        self.last_boot.is_this()
    }

    /// Whether a change was left half made.
    pub(crate) fn is_poisoned(&self) -> Result<bool, Fault> {
        // The version before the boot: whoever changes something has written the present one first.
        let half_made = self.version.load()? % 2 == 1;
        Ok(self.lock.is_poisoned()? || (half_made && !self.is_of_this_boot()?))
    }

    /// Clears what other boots left, unless that is done.
    pub(super) fn renew(&self, participant: &Participant) -> Result<()> {
        let doing = "attach to";
        let since = Instant::now();
        while !self.or_gone(self.is_of_this_boot(), doing)? {
            for slot in self.or_gone(self.lock.readers().occupied(), doing)? {
                reap(self, participant, slot)?;
            }
            match self.write_lock_as(participant, Until::After(LOOK)) {
                Ok(_) => {
                    let renewed = self.renew_locked();
                    let unlocked = self.unlock_as(participant);
                    return self.or_gone(renewed.and(unlocked).and_then(|()| self.changes.wake_all()), doing);
                }
                // They do the same, or have done it and use the lock already.
                Err(Refused::Timeout { .. }) if since.elapsed() < PATIENCE => {}
                Err(Refused::Timeout { .. }) => return Err(self.name_it(Error::new(ErrorKind::Busy, doing))),
                Err(refused) => return Err(self.refused(refused, Until::After(PATIENCE), doing)),
            }
        }
        Ok(())
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

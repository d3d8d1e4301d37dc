//! Participants: who has locked or waited, each with a slot and a token that dies with its process.

use super::layout::SLOTS;
use super::{Segment, nanoseconds_since_1970};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::{FREE, USED};
use crate::sys::Tokens;

/// A handle's place among the participants. Dropped with its segment, it leaves.
pub(crate) struct Participant {
    tokens: Tokens,
    slot: usize,
}

impl Participant {
    pub(super) fn attach(segment: &Segment) -> Result<Participant> {
        let tokens = Tokens::new(segment.map.object(), &segment.header.id)?;
        for slot in 0..SLOTS {
            // Somebody's, or one that a stranger has locked; there are others.
            if !tokens.take(slot)? {
                continue;
            }
            let participant = Participant { tokens, slot };
            // Before anything tells others that somebody may sleep here.
            segment.bells.hang(segment.map.object(), slot);
            // Also where it was given up: a guard that was leaked still holds then.
            segment.or_gone(scrub(segment, slot), "attach to")?;
            segment.recover_own(slot)?;
            segment.forget_waits(slot)?;
            segment.or_gone(participant.move_in(segment), "attach to")?;
            if let Err(error) = segment.renew(&participant) {
                participant.leave(segment);
                return Err(error);
            }
            return Ok(participant);
        }
        let help = format!("a segment has room for {SLOTS} writable handles that lock or wait");
        Err(segment.name_it(Error::new(ErrorKind::Full, "attach to")).with_help(help))
    }

    /// Marks the slot used.
    fn move_in(&self, segment: &Segment) -> Result<(), crate::sys::guard::Fault> {
        let slots = segment.lock.slots();
        let Some(slot) = slots.get(self.slot) else { return Ok(()) };
        slot.process.store(std::process::id())?;
        slot.since.store(nanoseconds_since_1970())?;
        slots.set_occupied(self.slot, true)?;
        slot.state.swap(USED)?;
        Ok(())
    }

    #[inline]
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Gives the slot up. What it held was given up by the guards before.
    pub(super) fn leave(&self, segment: &Segment) {
        // A guard that was leaked would keep others out of a lock that names nobody.
        let _ = segment.recover_own(self.slot);
        let _ = vacate(segment, self.slot);
        self.tokens.give(self.slot);
    }
}

/// Clears the slot of a participant if it is dead, and tells whether it was.
pub(super) fn reap(segment: &Segment, participant: &Participant, slot: usize) -> Result<bool> {
    if slot == participant.slot || participant.tokens.is_alive(slot)? {
        return Ok(false);
    }
    // Seized, nobody else clears it or moves in; if this process dies, the next does it all again.
    let Some(_seized) = participant.tokens.seize(slot)? else { return Ok(false) };
    segment.or_gone(scrub(segment, slot), "recover")?;
    segment.recover_own(slot)?;
    segment.or_gone(vacate(segment, slot), "recover")?;
    Ok(true)
}

/// Clears what a dead participant left. The caller has its token; if it dies as well, the next does it all again.
fn scrub(segment: &Segment, slot: usize) -> Result<(), crate::sys::guard::Fault> {
    let half_made = segment.lock.condemn(slot)?;
    if half_made {
        // Poisoned, the change is over as well: readers without a lock would wait for its end for ever.
        segment.end_version()?;
    }
    segment.lock.scrub(slot)?;
    // Behind the exchanges of `scrub`: before them the store of the version may still be on its way while it is looked
    // who sleeps, and a sleeper that saw the old one would be missed.
    if half_made { segment.changes.wake_all() } else { Ok(()) }
}

fn vacate(segment: &Segment, slot: usize) -> Result<(), crate::sys::guard::Fault> {
    let slots = segment.lock.slots();
    if let Some(words) = slots.get(slot) {
        words.state.swap(FREE)?;
    }
    slots.set_occupied(slot, false)
}

impl Drop for Segment {
    fn drop(&mut self) {
        // A forked child's copy only closes: the slot is its parent's.
        if self.is_ours() {
            if let Some(participant) = self.participant.get() {
                participant.leave(self);
            }
        }
    }
}

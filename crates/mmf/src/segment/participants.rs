//! Participants: who has locked or waited, each with a slot and a token that dies with its process.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::layout::{self, PARTICIPANT_SLOTS, at};
use super::{Container, Segment, nanoseconds_since_1970};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::SlotHandle;
use crate::sys::LivenessTokens;
use crate::sys::guard::Fault;

/// A handle's place among the participants. Dropped with its segment, it leaves.
pub(crate) struct AttachedParticipant {
    tokens: LivenessTokens,
    slot_handle: SlotHandle,
    /// Whether it has the second token of its slot, see `boot`.
    confirmed: AtomicBool,
}

/// How long the second token of a slot is waited for: a process that dies may lose it a moment
/// after the first.
const TOKEN_WAIT: Duration = Duration::from_millis(100);

impl AttachedParticipant {
    /// Takes a slot, with the tokens that the handle made when it was opened. Where it made none,
    /// or they were used up, they are made now; that fails in a process that has given up the
    /// rights for it since.
    pub(super) fn attach<C: Container>(
        segment: &Segment<C>,
        prepared: &mut Option<LivenessTokens>,
    ) -> Result<AttachedParticipant> {
        let tokens = match prepared.take() {
            Some(tokens) => tokens,
            None => LivenessTokens::new(segment.map.object(), &segment.header.id)?,
        };
        match AttachedParticipant::take_slot(segment, &tokens) {
            Ok(slot_handle) => Ok(AttachedParticipant::new(tokens, slot_handle)),
            Err(error) => {
                *prepared = Some(tokens);
                Err(error)
            }
        }
    }

    pub(super) fn new(tokens: LivenessTokens, slot_handle: SlotHandle) -> AttachedParticipant {
        AttachedParticipant { tokens, slot_handle, confirmed: AtomicBool::new(false) }
    }

    fn take_slot<C: Container>(segment: &Segment<C>, tokens: &LivenessTokens) -> Result<SlotHandle> {
        for slot in 0..PARTICIPANT_SLOTS {
            // Somebody's, or one that a stranger has locked; there are others.
            if !tokens.take(slot)? {
                continue;
            }
            let Some(slot_handle) = segment.lock.readers().slot_handle(slot) else {
                tokens.give(slot);
                break;
            };
            // Before anything tells others that somebody may sleep here.
            segment.parker.register(segment.map.object(), slot);
            match initialize_slot(segment, slot) {
                Ok(()) => return Ok(slot_handle),
                Err(error) => {
                    tokens.give(slot);
                    return Err(error);
                }
            }
        }
        let help = format!("a segment has room for {PARTICIPANT_SLOTS} writable handles that lock or wait");
        Err(segment.name_error(Error::new(ErrorKind::Full, "attach to")).with_help(help))
    }

    #[inline]
    pub(crate) fn slot(&self) -> usize {
        self.slot_handle.slot()
    }

    #[inline]
    pub(crate) fn slot_handle(&self) -> &SlotHandle {
        &self.slot_handle
    }

    /// Takes the second token of this participant's slot.
    pub(super) fn confirm<C: Container>(&self, segment: &Segment<C>) -> Result<()> {
        if self.confirmed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let since = Instant::now();
        while !self.tokens.take_checked(segment.map.object(), self.slot())? {
            if since.elapsed() > TOKEN_WAIT {
                let help = "another process holds the token of a slot that is not its own; end that process";
                return Err(Error::new(ErrorKind::Busy, "attach to").with_help(help));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.confirmed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the slot up. What it held was given up by the guards before.
    pub(super) fn leave<C: Container>(&self, segment: &Segment<C>) {
        // A guard that was leaked would keep others out of a lock that names nobody.
        let _ = segment.recover_custom(self.slot());
        let _ = segment.lock.readers().set_occupied(self.slot(), false);
        // Before the first token: a participant that takes the slot takes both.
        if self.confirmed.load(Ordering::Relaxed) {
            self.tokens.give_checked(self.slot());
        }
        self.tokens.give(self.slot());
    }
}

/// Clears what a slot's last owner left, and tells others of the new one.
fn initialize_slot<C: Container>(segment: &Segment<C>, slot: usize) -> Result<()> {
    let doing = "attach to";
    // Also where it was given up: a guard that was leaked still holds then.
    segment.or_fault(scrub(segment, slot), doing)?;
    segment.recover_custom(slot)?;
    segment.clear_waiter_counts(slot)?;
    segment.map.store(layout::slot(slot, at::SLOT_PROCESS), std::process::id(), Ordering::Relaxed)?;
    segment.map.store(layout::slot(slot, at::SLOT_SINCE), nanoseconds_since_1970(), Ordering::Relaxed)?;
    segment.or_fault(segment.lock.readers().set_occupied(slot, true), doing)
}

/// Clears the slot of a participant if it is dead, and of this one, whichever slot is asked about,
/// what a peer forged; whether there was either.
pub(super) fn reap<C: Container>(segment: &Segment<C>, participant: &AttachedParticipant, slot: usize) -> Result<bool> {
    let disowned = segment.or_fault(disown(segment, participant.slot_handle()), "recover")?;
    Ok(reap_dead(segment, participant, slot)? || disowned)
}

/// Clears the slot of a participant if it is dead, and tells whether it was.
pub(super) fn reap_dead<C: Container>(
    segment: &Segment<C>,
    participant: &AttachedParticipant,
    slot: usize,
) -> Result<bool> {
    if slot == participant.slot() || participant.tokens.is_alive(slot)? {
        return Ok(false);
    }
    // Seized, nobody moves in; if this process dies, the next does it all again, and so may another at the same time.
    let Some(_seized) = participant.tokens.seize(slot)? else { return Ok(false) };
    segment.or_fault(scrub(segment, slot), "recover")?;
    segment.recover_custom(slot)?;
    segment.or_fault(segment.lock.readers().set_occupied(slot, false), "recover")?;
    Ok(true)
}

/// Clears what says that this handle has the lock, where none of its threads has it.
pub(super) fn disown<C: Container>(segment: &Segment<C>, me: &SlotHandle) -> Result<bool, Fault> {
    // The forged writer may stand in the place of one that was changing something: readers are
    // told, as after a death.
    segment.lock.disown(me, || segment.container.poison_half_made(&segment.lock, me.slot()).map(drop))
}

/// Clears what a dead participant left. The caller has its token, or shares it with others who do the same; if it dies as
/// well, the next does it all again. So each step is an exchange that does nothing where another was faster, who may have
/// let a third one in since.
fn scrub<C: Container>(segment: &Segment<C>, slot: usize) -> Result<(), Fault> {
    // First of all: a process that does this again finds a change that is complete.
    let half_made = segment.container.poison_half_made(&segment.lock, slot)?;
    segment.lock.scrub(slot)?;
    if half_made { segment.change_queue.wake_all() } else { Ok(()) }
}

impl<C: Container> Drop for Segment<C> {
    fn drop(&mut self) {
        // A forked child's copy only closes: the slot is its parent's.
        if self.is_current_process() {
            let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            let ready = self.participant.get().or(self.custom_participant.get());
            if let Some(participant) = ready.or(pending.not_renewed.as_ref()) {
                participant.leave(self);
            }
        }
    }
}

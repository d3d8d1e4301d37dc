//! Wait queues: sleep until somebody wakes, without a lost wake-up, an unbounded sleep or a poll while nobody waits.
//!
//! Who sleeps, in this order: takes a ticket (reads `seq`, sets its slot's bit in `sleepers`, sets the flag), looks at its
//! condition again, and sleeps with a bound. Who wakes has changed the condition before, and if the flag is set: clears
//! it, takes the bits, moves `seq`, and unparks those slots. All of it is sequentially consistent.
//!
//! The flag is a bit of a word of somebody else's, who learns without a look of its own that nobody is to be woken.
//!
//! No wake-up is lost: a sleeper that saw the old condition had set the flag before the condition
//! changed, so the waker finds it set, unless another waker cleared it in between. That one takes
//! the bits after it clears the flag, so whoever takes the sleeper's bit does so, and moves `seq`
//! and unparks, after the sleeper's ticket.
//!
//! What the dead leave costs little: a waker that dies on its way leaves sleepers to their bound, a sleeper that dies leaves
//! a bit for which nobody answers.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::mapping::{Mapping, SharedWord};
use crate::sys::guard::Fault;
use crate::sys::{ParkToken, Parker};

/// Participants at the most.
pub(crate) const PARTICIPANT_SLOTS: usize = 256;

/// Where the parts of a queue are in its 64 bytes.
const SEQ_OFFSET: usize = 0;
const SLEEPERS_OFFSET: usize = 8;

/// Whether somebody may sleep.
pub(crate) struct WaiterFlag {
    word: SharedWord<u64>,
    bit: u64,
}

impl WaiterFlag {
    /// # Safety
    ///
    /// As [`Mapping::shared_word`].
    pub(crate) unsafe fn new(map: &Mapping, word: usize, bit: u64) -> Result<WaiterFlag> {
        // SAFETY: the caller's promise, passed on.
        Ok(WaiterFlag { word: unsafe { map.shared_word(word) }?, bit })
    }
}

/// A queue in shared memory.
pub(crate) struct WaitQueue {
    /// Moved by every wake-up.
    seq: SharedWord<u32>,
    flag: WaiterFlag,
    /// A bit per slot that may sleep.
    sleepers: [SharedWord<u64>; PARTICIPANT_SLOTS / 64],
    parker: Arc<Parker>,
}

/// The state of a queue before a condition was looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    seq: u32,
    token: ParkToken,
}

impl WaitQueue {
    /// # Safety
    ///
    /// As [`Mapping::shared_word`].
    pub(crate) unsafe fn new(
        map: &Mapping,
        offset: usize,
        flag: WaiterFlag,
        parker: &Arc<Parker>,
    ) -> Result<WaitQueue> {
        // SAFETY: the caller's promise, passed on.
        let word = |n: usize| unsafe { map.shared_word(offset + SLEEPERS_OFFSET + 8 * n) };
        Ok(WaitQueue {
            // SAFETY: the caller's promise, passed on.
            seq: unsafe { map.shared_word(offset + SEQ_OFFSET) }?,
            flag,
            sleepers: [word(0)?, word(1)?, word(2)?, word(3)?],
            parker: Arc::clone(parker),
        })
    }

    /// To be taken by slot `me` before the condition is looked at: a wake-up after this ends the sleep before it begins.
    pub(crate) fn ticket(&self, me: usize) -> Result<Ticket, Fault> {
        let ticket = Ticket { seq: self.seq.load()?, token: self.parker.prepare() };
        self.sleepers[me % PARTICIPANT_SLOTS / 64].change(|bits| bits | 1 << (me % 64))?;
        // Also where it is set: what comes next must not be done before.
        self.flag.word.change(|word| word | self.flag.bit)?;
        Ok(ticket)
    }

    /// Sleeps until a wake-up that came after the ticket, for `timeout` at the most; also wakes for no reason.
    /// Those who wake others may die in between, so a timeout is always given and the condition looked at again.
    pub(crate) fn sleep(&self, ticket: Ticket, timeout: Duration) {
        self.parker.park(self.seq.address(), ticket.seq, ticket.token, timeout);
    }

    /// Whether somebody may sleep.
    pub(crate) fn has_waiters(&self) -> Result<bool, Fault> {
        Ok(self.flag.word.load()? & self.flag.bit != 0)
    }

    /// Wakes all who sleep, if anybody does.
    pub(crate) fn wake_all(&self) -> Result<(), Fault> {
        if self.has_waiters()? { self.wake_flagged() } else { Ok(()) }
    }

    /// The same where the flag was seen.
    #[cold]
    #[inline(never)]
    pub(crate) fn wake_flagged(&self) -> Result<(), Fault> {
        self.flag.word.change(|word| word & !self.flag.bit)?;
        let mut slots = [0; PARTICIPANT_SLOTS / 64];
        for (slots, word) in slots.iter_mut().zip(&self.sleepers) {
            if word.load()? != 0 {
                *slots = word.swap(0)?;
            }
        }
        self.seq.add(1)?;
        self.parker.unpark(self.seq.address(), slots);
        Ok(())
    }
}

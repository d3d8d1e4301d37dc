//! Wait queues: sleeps until a wake-up, without a lost wake-up, an unbounded sleep, or a cost for
//! the waker while no participant sleeps.
//!
//! To sleep, a waiter:
//!
//! 1. takes a ticket: reads `seq`, sets its slot's bit in `sleepers`, sets the flag;
//! 2. checks its condition again;
//! 3. sleeps with a bound.
//!
//! To wake, a participant changes the condition, and if the flag is set:
//!
//! 1. clears the flag;
//! 2. takes the bits;
//! 3. adds 1 to `seq`;
//! 4. unparks those slots.
//!
//! All of it is sequentially consistent. The flag is a bit of a word that the waker loads anyway,
//! so it costs no load of its own.
//!
//! No wake-up is lost: a sleeper that saw the old condition had set the flag before the condition
//! changed, so the waker finds it set, unless another waker cleared it in between. That one takes
//! the bits after it clears the flag, so the waker that takes the sleeper's bit does so, and moves
//! `seq` and unparks, after the sleeper's ticket.
//!
//! A waker that dies half-way leaves sleepers to the bounds of their sleeps. A sleeper that dies
//! leaves its bit, and one wake-up of its slot has no effect.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::mapping::{Mapping, SharedWord};
use crate::sys::guard::Fault;
use crate::sys::{ParkToken, Parker};

/// The largest number of participants.
pub(crate) const PARTICIPANT_SLOTS: usize = 256;

/// Where the parts of a queue are in its 64 bytes.
const SEQ_OFFSET: usize = 0;
const SLEEPERS_OFFSET: usize = 8;

/// The flag of a queue: a participant may sleep.
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
    /// Grows with every wake-up.
    seq: SharedWord<u32>,
    flag: WaiterFlag,
    /// A bit per slot that may sleep.
    sleepers: [SharedWord<u64>; PARTICIPANT_SLOTS / 64],
    parker: Arc<Parker>,
}

/// The state of a queue before a condition was checked.
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

    /// Takes a ticket for slot `me`, before the condition is checked: a wake-up after this ends the
    /// sleep before it begins.
    pub(crate) fn ticket(&self, me: usize) -> Result<Ticket, Fault> {
        let ticket = Ticket { seq: self.seq.load()?, token: self.parker.prepare() };
        self.sleepers[me % PARTICIPANT_SLOTS / 64].change(|bits| bits | 1 << (me % 64))?;
        // Also if it is set already: the exchange orders the next load after the bit.
        self.flag.word.change(|word| word | self.flag.bit)?;
        Ok(ticket)
    }

    /// Sleeps until a wake-up after the ticket, for at most `timeout`; also wakes for no reason.
    /// The waker may die half-way, so every sleep has a timeout and the caller checks its condition
    /// again.
    pub(crate) fn sleep(&self, ticket: Ticket, timeout: Duration) {
        self.parker.park(self.seq.address(), ticket.seq, ticket.token, timeout);
    }

    /// Whether a participant may sleep.
    pub(crate) fn has_waiters(&self) -> Result<bool, Fault> {
        Ok(self.flag.word.load()? & self.flag.bit != 0)
    }

    /// Wakes all sleepers, if the flag is set.
    pub(crate) fn wake_all(&self) -> Result<(), Fault> {
        if self.has_waiters()? { self.wake_flagged() } else { Ok(()) }
    }

    /// Wakes all sleepers; the caller has seen the flag.
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

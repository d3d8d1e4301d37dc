//! Wait queues: sleep until somebody wakes, without a lost wake-up, an unbounded sleep or a poll while nobody waits.

use std::time::Duration;

use crate::error::Result;
use crate::mapping::{Cell, Mapping};
use crate::segment::layout::at;
use crate::sys;
use crate::sys::guard::Fault;

/// A queue in shared memory.
pub(crate) struct Queue {
    /// Moved by every wake-up; who sleeps, sleeps on its not moving.
    seq: Cell<u32>,
    sleepers: Cell<u32>,
}

/// The state of a queue before a condition was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

impl Queue {
    /// # Safety
    ///
    /// As [`Mapping::cell`].
    pub(crate) unsafe fn new(map: &Mapping, offset: usize) -> Result<Queue> {
        Ok(Queue {
            // SAFETY: the caller's promise, passed on.
            seq: unsafe { map.cell(offset + at::QUEUE_SEQ) }?,
            // SAFETY: the caller's promise, passed on.
            sleepers: unsafe { map.cell(offset + at::QUEUE_SLEEPERS) }?,
        })
    }

    /// To be taken before the condition is looked at: a wake-up after this ends the sleep before it begins.
    pub(crate) fn ticket(&self) -> Result<Ticket, Fault> {
        let ticket = Ticket(self.seq.load()?);
        self.sleepers.swap(1)?;
        Ok(ticket)
    }

    /// Sleeps until a wake-up that came after the ticket, for `timeout` at the most; also wakes for no reason.
    /// Those who wake others may die in between, so a timeout is always given and the condition looked at again.
    pub(crate) fn sleep(&self, ticket: Ticket, timeout: Duration) {
        sys::sleep(self.seq.address(), ticket.0, timeout);
    }

    /// Wakes all who sleep, if anybody does.
    pub(crate) fn wake_all(&self) -> Result<(), Fault> {
        if self.sleepers.load()? != 0 {
            self.sleepers.swap(0)?;
            self.seq.add(1)?;
            sys::wake_all(self.seq.address());
        }
        Ok(())
    }

    /// Whether the queue has not moved since the ticket.
    pub(crate) fn is_still(&self, ticket: Ticket) -> Result<bool, Fault> {
        Ok(self.seq.load()? == ticket.0)
    }
}

//! Waits until another participant changes a segment.
//!
//! A writer that ends a change wakes the queue of changes. A waiter:
//!
//! 1. polls its condition, and returns if it holds;
//! 2. takes a ticket of the queue, so that a writer from here on wakes it, and polls again;
//! 3. sleeps for at most [`MAX_SLEEP`], since the writer that should wake it may die first.
//!
//! A handle without write access cannot take a ticket. It polls once per [`POLL`].
//!
//! A participant counts its sleeping threads in its slot, see
//! [`waiter_counts`](super::waiter_counts).

use std::time::{Duration, Instant};

use super::waiter_counts::{WaitReason, WaiterCount};
use super::{Container, Segment};
use crate::error::Result;
use crate::lock::Deadline;
use crate::types::Access;

/// The longest sleep between two polls of a waiter that writers wake.
pub(crate) const MAX_SLEEP: Duration = Duration::from_millis(50);

/// The time between two polls of a waiter that has no write access.
pub(crate) const POLL: Duration = Duration::from_millis(5);

impl<C: Container> Segment<C> {
    /// Blocks until `poll` returns a value, and returns that; `None` if it has none at `deadline`.
    /// Without a deadline it blocks for as long as it takes.
    ///
    /// # Errors
    ///
    /// Those of `poll`; of attaching, for a handle with write access.
    pub(crate) fn wait_for_change<T>(
        &self,
        deadline: Option<Instant>,
        doing: &'static str,
        mut poll: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let slot = match self.map.access() {
            Access::ReadWrite => {
                let until = deadline.map_or(Deadline::Never, Deadline::At);
                Some(self.participant_until(until, doing)?.0.slot())
            }
            Access::ReadOnly | Access::CopyOnWrite => None,
        };
        let waits = slot.map(|slot| WaiterCount::new(self, slot, WaitReason::Change));
        loop {
            if let Some(value) = poll()? {
                return Ok(Some(value));
            }
            let ticket = slot.map(|slot| self.or_fault(self.change_queue.ticket(slot), doing)).transpose()?;
            if ticket.is_some() {
                if let Some(value) = poll()? {
                    return Ok(Some(value));
                }
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            waits.as_ref().map_or(Ok(()), WaiterCount::begin)?;
            match ticket {
                Some(ticket) => self.change_queue.sleep(ticket, left.min(MAX_SLEEP)),
                None => std::thread::sleep(left.min(POLL)),
            }
        }
    }
}

//! Who waits, for people to see: nothing depends on it.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use super::layout::{self, at};
use super::{Container, Segment};
use crate::error::Result;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitReason {
    Lock,
    Change,
}

/// A thread of a participant that may have to wait; counted from [`begin`](WaiterCount::begin) to
/// the drop.
pub(crate) struct WaiterCount<'a, C: Container> {
    segment: &'a Segment<C>,
    slot: usize,
    reason: WaitReason,
    begun: Cell<bool>,
}

fn count(slot: usize, what: WaitReason) -> usize {
    let field = match what {
        WaitReason::Lock => at::SLOT_WAITING,
        WaitReason::Change => at::SLOT_WATCHING,
    };
    layout::slot(slot, field)
}

impl<'a, C: Container> WaiterCount<'a, C> {
    #[inline]
    pub(crate) fn new(segment: &'a Segment<C>, slot: usize, reason: WaitReason) -> WaiterCount<'a, C> {
        WaiterCount { segment, slot, reason, begun: Cell::new(false) }
    }

    pub(crate) fn begin(&self) -> Result<()> {
        if !self.begun.replace(true) {
            self.segment.map.fetch_add(count(self.slot, self.reason), 1_u32, Ordering::Relaxed)?;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn end(&self) {
        // Where the page is gone, no process sees the count.
        let _ = self.segment.map.fetch_add(count(self.slot, self.reason), u32::MAX, Ordering::Relaxed);
    }
}

impl<C: Container> Drop for WaiterCount<'_, C> {
    #[inline]
    fn drop(&mut self) {
        if self.begun.get() {
            self.end();
        }
    }
}

impl<C: Container> Segment<C> {
    /// How many threads of a participant wait.
    pub(crate) fn waiting(&self, slot: usize, what: WaitReason) -> Result<u32> {
        self.map.load(count(slot, what), Ordering::Relaxed)
    }

    /// What the last owner of a slot left there.
    pub(super) fn clear_waiter_counts(&self, slot: usize) -> Result<()> {
        for what in [WaitReason::Lock, WaitReason::Change] {
            self.map.store(count(slot, what), 0_u32, Ordering::Relaxed)?;
        }
        Ok(())
    }
}

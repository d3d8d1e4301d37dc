//! What a kind of container adds to its segment: a new container plugs in here.
//!
//! A container owns a [`Segment`] of its kind and gets from it the header, the lock, the
//! participants with their liveness, and the queue of those that wait for a change:
//!
//! 1. It implements [`Container`] for a type that holds its own words of the header and what a
//!    handle keeps of them.
//! 2. It is created and opened by [`SegmentOptions`](super::SegmentOptions).
//! 3. Its calls take the lock as [`ReadLock`](super::ReadLock) or [`WriteLock`](super::WriteLock),
//!    wait for changes by [`wait_for_change`](Segment::wait_for_change), and pause between attempts
//!    of an optimistic read by [`Attempts`](super::retry::Attempts).
//! 4. A writer calls [`set_changed`](Segment::set_changed): the release of the lock then ends the
//!    change and wakes waiters.
//!
//! A container whose contents can be torn by the death of a writer also implements the functions
//! with a default below.

use std::sync::atomic::Ordering;

use super::Segment;
use super::layout::SegmentKind;
use crate::error::Result;
use crate::lock::Lock;
use crate::mapping::Mapping;
use crate::sys::guard::Fault;

/// What a container keeps beside its segment.
pub(crate) trait Container: Sized + Send + Sync + 'static {
    /// The kind that the header names.
    const KIND: SegmentKind;

    /// Takes up the container's own words of the header.
    ///
    /// # Errors
    ///
    /// As [`Mapping::shared_word`].
    ///
    /// # Safety
    ///
    /// As [`Mapping::shared_word`], for each of the words.
    unsafe fn new(map: &Mapping) -> Result<Self>;

    /// Ends the change that the holder of the lock has made, before it releases the lock.
    #[inline]
    fn end_change(&self, _lock: &Lock) -> Result<(), Fault> {
        Ok(())
    }

    /// Poisons the lock if the participant of that slot is its writer and has left a change half
    /// made. Returns whether that is so. The participant is dead, or a peer forged it.
    fn poison_half_made(&self, _lock: &Lock, _slot: usize) -> Result<bool, Fault> {
        Ok(false)
    }

    /// Poisons the lock if a change is half made, whichever participant made it: it ended with
    /// another boot. The caller has the lock for writing.
    fn poison_after_boot(&self, _lock: &Lock) -> Result<(), Fault> {
        Ok(())
    }
}

impl<C: Container> Segment<C> {
    /// Notes that the holder of the lock has changed something: the release ends the change and
    /// wakes waiters.
    #[inline]
    pub(crate) fn set_changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Whether the holder of the lock has changed something.
    #[inline]
    pub(crate) fn is_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    /// Ends the change that [`set_changed`](Self::set_changed) noted.
    #[inline]
    pub(super) fn end_change(&self) -> Result<(), Fault> {
        self.changed.store(false, Ordering::Relaxed);
        self.container.end_change(&self.lock)
    }
}

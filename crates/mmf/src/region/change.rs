//! The changes of a region: their version, and how an unfinished one becomes poison.
//!
//! The version is a word of the header:
//!
//! 1. Before the first change under a lock, the writer makes the version odd.
//! 2. It changes the contents and their length.
//! 3. The release of the lock makes the version even and larger.
//!
//! So a reader without the lock knows by an odd or a changed version that its copy may be torn.
//!
//! The death of a writer leaves an odd version, which becomes poison: the process that clears the
//! dead writer's slot sets POISON in the lock's word first, and then ends the change. A writer that
//! panics, or meets a page that is gone, sets POISON itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Result;
use crate::lock::Lock;
use crate::mapping::{Mapping, SharedWord};
use crate::segment::layout::{SegmentKind, at};
use crate::segment::{self, Container};
use crate::sys;
use crate::sys::guard::Fault;

/// The state that a region keeps beside its segment.
pub(crate) struct RegionState {
    /// `LEN`: the length of the contents in bytes.
    pub(super) len: SharedWord<u64>,
    /// `VERSION`: moved by every change, odd while one is under way.
    pub(crate) version: SharedWord<u64>,
    /// The odd version of the change that this handle makes. It is not in the guard, which is one
    /// word.
    begun: AtomicU64,
    /// Whether the thread was unwinding already when the change began.
    unwinding: AtomicBool,
    /// Whether the change has failed half-way.
    torn: AtomicBool,
}

/// A region's segment.
pub(crate) type Segment = segment::Segment<RegionState>;

impl Container for RegionState {
    const KIND: SegmentKind = SegmentKind::REGION;

    unsafe fn new(map: &Mapping) -> Result<RegionState> {
        Ok(RegionState {
            // SAFETY: the caller's promise, passed on.
            len: unsafe { map.shared_word(at::LEN) }?,
            // SAFETY: the caller's promise, passed on.
            version: unsafe { map.shared_word(at::VERSION) }?,
            begun: AtomicU64::new(0),
            unwinding: AtomicBool::new(false),
            torn: AtomicBool::new(false),
        })
    }

    /// Completes the change. After a panic or a page that is gone it will never be complete, which
    /// poisons.
    #[inline]
    fn end_change(&self, lock: &Lock) -> Result<(), Fault> {
        let panics = std::thread::panicking() && !self.unwinding.load(Ordering::Relaxed);
        if panics || self.torn.load(Ordering::Relaxed) {
            self.torn.store(false, Ordering::Relaxed);
            // Before the version shows a complete change, and before this process's death leaves
            // no odd version.
            lock.poison()?;
        }
        self.version.store(self.begun.load(Ordering::Relaxed).wrapping_add(1))
    }

    fn poison_half_made(&self, lock: &Lock, slot: usize) -> Result<bool, Fault> {
        let version = self.version.load()?;
        let is_half_made = version % 2 != 0 && lock.poison_for(slot)?;
        if is_half_made {
            // Poisoned, the change is over as well: readers without a lock would wait for its end
            // for ever.
            self.version.compare_exchange(version, version.wrapping_add(1))?;
        }
        Ok(is_half_made)
    }

    /// The disk may have got a part of the header only, so the word may name no writer.
    fn poison_after_boot(&self, lock: &Lock) -> Result<(), Fault> {
        let version = self.version.load()?;
        if version % 2 == 1 {
            lock.poison()?;
            self.version.store(version.wrapping_add(1))?;
        }
        Ok(())
    }
}

impl Segment {
    /// Begins a change, for the holder of the lock: readers without a lock see an odd version until
    /// it ends, and the holder's death poisons. Does nothing if a change is under way already.
    #[inline]
    pub(crate) fn begin_change(&self) -> Result<(), Fault> {
        if self.is_changed() {
            return Ok(());
        }
        let state = &self.container;
        let version = state.version.load()? | 1;
        state.version.store(version)?;
        state.begun.store(version, Ordering::Relaxed);
        state.unwinding.store(std::thread::panicking(), Ordering::Relaxed);
        self.set_changed();
        // The change's stores must not be seen before that.
        sys::fence(Ordering::Release);
        Ok(())
    }

    /// Notes that the change has left the contents torn, or has made them whole again.
    #[inline]
    pub(super) fn set_torn(&self, torn: bool) {
        self.container.torn.store(torn, Ordering::Relaxed);
    }

    /// Returns whether a change was left half made.
    pub(super) fn is_poisoned(&self) -> Result<bool> {
        let doing = "examine";
        let version = self.or_fault(self.container.version.load(), doing)?;
        if self.or_fault(self.lock.is_poisoned(), doing)? {
            return Ok(true);
        }
        // The second load of the lock's word: a peer may have cleared the dead writer's slot
        // meanwhile.
        Ok(version % 2 == 1 && (self.is_abandoned(version)? || self.or_fault(self.lock.is_poisoned(), doing)?))
    }

    /// Returns whether no living participant can end the change under way, which has this odd
    /// version.
    pub(super) fn is_abandoned(&self, version: u64) -> Result<bool> {
        let doing = "examine";
        if let Some(writer) = self.or_fault(self.lock.writer(), doing)? {
            if self.is_alive(writer)? {
                return Ok(false);
            }
        }
        // After the question whether the writer lives: a writer ends its change before it gives its
        // token back, and so does a process that clears a dead writer's slot.
        Ok(self.or_fault(self.container.version.load(), doing)? == version)
    }
}

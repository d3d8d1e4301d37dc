//! Who holds read locks: a count per slot.

use std::sync::atomic::AtomicU64;

use super::{FIRST_READERS, Places, tag};
use crate::error::Result;
use crate::mapping::{Cell, Mapping};
use crate::sys::guard::Fault;
use crate::wait::SLOTS;

/// Slots that share a word of bits, and a bit of READERS in the lock's word.
const GROUP: usize = 64;

/// A participant's own place.
pub(crate) struct Seat {
    pub(super) slot: usize,
    /// As it stands in the word.
    pub(super) tag: u64,
    pub(super) readers: Cell<u32>,
    /// Its bit of READERS.
    pub(super) group: u64,
    /// While it has the write lock, what is thought to be in the word: `tag` unless more was there when it was taken.
    pub(super) held: AtomicU64,
}

impl Seat {
    #[inline]
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }
}

/// All places.
pub(crate) struct Readers {
    counts: Vec<Cell<u32>>,
    occupied: [Cell<u64>; SLOTS / GROUP],
}

impl Readers {
    /// # Safety
    ///
    /// As [`Mapping::cell`].
    pub(super) unsafe fn new(map: &Mapping, places: Places) -> Result<Readers> {
        // SAFETY: the caller's promise, passed on.
        let counts = unsafe { map.cells(places.readers, places.stride, SLOTS) }?;
        let count = |slot: usize| Ok(counts.nth(slot));
        // SAFETY: the caller's promise, passed on.
        let word = |group: usize| unsafe { map.cell(places.occupied + 8 * group) };
        let occupied = [word(0)?, word(1)?, word(2)?, word(3)?];
        Ok(Readers { counts: (0..SLOTS).map(count).collect::<Result<_>>()?, occupied })
    }

    /// The place of a participant that has taken this slot.
    pub(crate) fn seat(&self, slot: usize) -> Option<Seat> {
        let readers = self.counts.get(slot)?.clone();
        let tag = tag(slot);
        let (held, group) = (AtomicU64::new(tag), 1 << (FIRST_READERS + slot / GROUP));
        Some(Seat { slot, tag, held, readers, group })
    }

    /// A slot of these groups that holds read locks.
    pub(super) fn inside(&self, groups: u64) -> Result<Option<usize>, Fault> {
        for (group, word) in self.occupied.iter().enumerate() {
            if groups >> group & 1 == 0 {
                continue;
            }
            let mut bits = word.load()?;
            while bits != 0 {
                let slot = group * GROUP + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if self.counts[slot].load()? != 0 {
                    return Ok(Some(slot));
                }
            }
        }
        Ok(None)
    }

    /// The slots that may be in use.
    pub(crate) fn occupied(&self) -> Result<Vec<usize>, Fault> {
        let mut slots = Vec::new();
        for (group, word) in self.occupied.iter().enumerate() {
            let bits = word.load()?;
            slots.extend((0..GROUP).filter(|bit| bits >> bit & 1 != 0).map(|bit| group * GROUP + bit));
        }
        Ok(slots)
    }

    /// Read locks that a slot holds.
    pub(crate) fn count(&self, slot: usize) -> Result<u32, Fault> {
        self.counts.get(slot).map_or(Ok(0), Cell::load)
    }

    /// The lock's word is anybody's to write, and may name a slot that there is not.
    pub(super) fn clear(&self, slot: usize) -> Result<(), Fault> {
        self.counts.get(slot).map_or(Ok(()), |count| count.swap(0).map(drop))
    }

    /// Writers look at this slot from now on, or no longer.
    pub(crate) fn set_occupied(&self, slot: usize, yes: bool) -> Result<(), Fault> {
        let Some(word) = self.occupied.get(slot / GROUP) else { return Ok(()) };
        let bit = 1 << (slot % GROUP);
        word.change(|bits| if yes { bits | bit } else { bits & !bit })
    }
}

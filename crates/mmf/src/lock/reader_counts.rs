//! Who holds read locks: a count per slot.

use std::sync::atomic::AtomicU64;

use super::{FIRST_READERS, LockOffsets, slot_tag};
use crate::error::Result;
use crate::mapping::{Mapping, SharedWord};
use crate::sys::guard::Fault;
use crate::wait::PARTICIPANT_SLOTS;

/// Slots that share a word of bits, and a bit of READERS in the lock's word.
const SLOTS_PER_GROUP: usize = 64;

/// A participant's own place.
pub(crate) struct SlotHandle {
    pub(super) slot: usize,
    /// As it stands in the word.
    pub(super) slot_tag: u64,
    pub(super) readers: SharedWord<u32>,
    /// Its bit of READERS.
    pub(super) group: u64,
    /// While it has the write lock, what is thought to be in the word: `slot_tag` unless more was
    /// there when it was taken.
    pub(super) held_word: AtomicU64,
}

impl SlotHandle {
    #[inline]
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }
}

/// All places.
pub(crate) struct ReaderCounts {
    counts: Vec<SharedWord<u32>>,
    occupied: [SharedWord<u64>; PARTICIPANT_SLOTS / SLOTS_PER_GROUP],
}

impl ReaderCounts {
    /// # Safety
    ///
    /// As [`Mapping::shared_word`].
    pub(super) unsafe fn new(map: &Mapping, offsets: LockOffsets) -> Result<ReaderCounts> {
        // SAFETY: the caller's promise, passed on.
        let counts = unsafe { map.shared_words(offsets.readers, offsets.stride, PARTICIPANT_SLOTS) }?;
        let count = |slot: usize| Ok(counts.nth(slot));
        // SAFETY: the caller's promise, passed on.
        let word = |group: usize| unsafe { map.shared_word(offsets.occupied + 8 * group) };
        let occupied = [word(0)?, word(1)?, word(2)?, word(3)?];
        Ok(ReaderCounts { counts: (0..PARTICIPANT_SLOTS).map(count).collect::<Result<_>>()?, occupied })
    }

    /// The place of a participant that has taken this slot.
    pub(crate) fn slot_handle(&self, slot: usize) -> Option<SlotHandle> {
        let readers = self.counts.get(slot)?.clone();
        let slot_tag = slot_tag(slot);
        let (held_word, group) = (AtomicU64::new(slot_tag), 1 << (FIRST_READERS + slot / SLOTS_PER_GROUP));
        Some(SlotHandle { slot, slot_tag, held_word, readers, group })
    }

    /// Returns a slot of these groups that holds read locks, if there is one. Bit k of `groups` is
    /// group k.
    pub(super) fn find_reader(&self, mut groups: u64) -> Result<Option<usize>, Fault> {
        while groups != 0 {
            let group = groups.trailing_zeros() as usize;
            groups &= groups - 1;
            let Some(word) = self.occupied.get(group) else { break };
            let mut bits = word.load()?;
            while bits != 0 {
                let slot = group * SLOTS_PER_GROUP + bits.trailing_zeros() as usize;
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
            slots.extend(
                (0..SLOTS_PER_GROUP).filter(|bit| bits >> bit & 1 != 0).map(|bit| group * SLOTS_PER_GROUP + bit),
            );
        }
        Ok(slots)
    }

    /// Read locks that a slot holds.
    pub(crate) fn count(&self, slot: usize) -> Result<u32, Fault> {
        self.counts.get(slot).map_or(Ok(0), SharedWord::load)
    }

    /// The lock's word is anybody's to write, and may name a slot that there is not.
    pub(super) fn clear(&self, slot: usize) -> Result<(), Fault> {
        self.counts.get(slot).map_or(Ok(()), |count| count.swap(0).map(drop))
    }

    /// Writers look at this slot from now on, or no longer.
    pub(crate) fn set_occupied(&self, slot: usize, yes: bool) -> Result<(), Fault> {
        let Some(word) = self.occupied.get(slot / SLOTS_PER_GROUP) else { return Ok(()) };
        let bit = 1 << (slot % SLOTS_PER_GROUP);
        word.change(|bits| if yes { bits | bit } else { bits & !bit })
    }
}

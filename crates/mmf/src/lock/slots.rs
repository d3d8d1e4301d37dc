//! The table of participants, as the lock sees it.

use crate::error::Result;
use crate::mapping::{Cell, Mapping};
use crate::segment::layout::{SLOT_SIZE, SLOT_TABLE, SLOTS, at};
use crate::sys::guard::Fault;

/// One participant's words.
pub(crate) struct Slot {
    pub(crate) state: Cell<u32>,
    pub(crate) process: Cell<u32>,
    pub(crate) since: Cell<u64>,
    pub(super) readers: Cell<u32>,
}

pub(crate) struct Slots {
    slots: Vec<Slot>,
    occupied: [Cell<u64>; SLOTS / 64],
}

/// A slot's state.
pub(crate) const FREE: u32 = 0;
pub(crate) const USED: u32 = 1;

impl Slots {
    /// # Safety
    ///
    /// As [`Mapping::cell`].
    pub(crate) unsafe fn new(map: &Mapping) -> Result<Slots> {
        let slot = |k: usize| -> Result<Slot> {
            let base = SLOT_TABLE + k * SLOT_SIZE;
            Ok(Slot {
                // SAFETY: the caller's promise, passed on.
                state: unsafe { map.cell(base + at::SLOT_STATE) }?,
                // SAFETY: the caller's promise, passed on.
                process: unsafe { map.cell(base + at::SLOT_PROCESS) }?,
                // SAFETY: the caller's promise, passed on.
                since: unsafe { map.cell(base + at::SLOT_SINCE) }?,
                // SAFETY: the caller's promise, passed on.
                readers: unsafe { map.cell(base + at::SLOT_READERS) }?,
            })
        };
        // SAFETY: the caller's promise, passed on.
        let word = |n: usize| unsafe { map.cell(at::OCCUPIED + 8 * n) };
        Ok(Slots {
            slots: (0..SLOTS).map(slot).collect::<Result<_>>()?,
            occupied: [word(0)?, word(1)?, word(2)?, word(3)?],
        })
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)
    }

    /// The count of a slot of one's own, which was checked when it was taken.
    #[inline]
    pub(super) fn readers(&self, slot: usize) -> &Cell<u32> {
        &self.slots[slot].readers
    }

    /// A slot that holds read locks.
    #[inline]
    pub(super) fn reader(&self) -> Result<Option<usize>, Fault> {
        for (n, word) in self.occupied.iter().enumerate() {
            let mut bits = word.load()?;
            while bits != 0 {
                let slot = n * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if self.slots[slot].readers.load()? != 0 {
                    return Ok(Some(slot));
                }
            }
        }
        Ok(None)
    }

    /// The slots that may be in use.
    pub(crate) fn occupied(&self) -> Result<Vec<usize>, Fault> {
        let mut slots = Vec::new();
        for (n, word) in self.occupied.iter().enumerate() {
            let bits = word.load()?;
            slots.extend((0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| n * 64 + bit));
        }
        Ok(slots)
    }

    pub(crate) fn read_locks(&self, slot: usize) -> Result<u32, Fault> {
        self.slots.get(slot).map_or(Ok(0), |slot| slot.readers.load())
    }

    /// Writers look at this slot from now on, or no longer.
    pub(crate) fn set_occupied(&self, slot: usize, yes: bool) -> Result<(), Fault> {
        let Some(word) = self.occupied.get(slot / 64) else { return Ok(()) };
        let bit = 1 << (slot % 64);
        let mut bits = word.load()?;
        loop {
            let seen = word.compare_exchange(bits, if yes { bits | bit } else { bits & !bit })?;
            if seen == bits {
                return Ok(());
            }
            bits = seen;
        }
    }
}

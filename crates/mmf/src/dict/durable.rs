//! What a file holds after the power went: the flushed value of each key, or a newer one.
//!
//! Pages reach the disk when the system sees fit, so after a power cut any mixture of them may be there. Records are found by
//! looking through all spans then, and by their checksums. For that, once a dict has been flushed:
//!
//! - What was freed since the last flush keeps its bytes until the next. A removal is a record as well.
//! - Removals stay for one flush more, until what they removed is gone from the disk.
//! - The first change after a flush says so on the disk before anything else is changed; a dict that was not changed since
//!   needs no looking through.

use super::recover;
use super::shape::{at, number};
use super::write::Writer;
use crate::error::Result;

/// Nothing has changed since the last flush.
pub(super) const CLEAN: u64 = 1;
/// It was flushed before.
pub(super) const FLUSHED_BEFORE: u64 = 2;

/// That it is not clean any more is on its way to the disk.
pub(super) const UNSURE: u64 = 4;

/// Records freed in one plan.
const BATCH: usize = 64;

impl Writer<'_> {
    /// To be called before the first store of a change.
    #[inline]
    pub(super) fn begin_change(&mut self) -> Result<()> {
        if self.durable & (CLEAN | UNSURE) == 0 { Ok(()) } else { self.begin_unclean() }
    }

    /// Whether nothing has changed since the last flush.
    #[inline]
    pub(super) fn is_clean(&self) -> bool {
        self.durable & CLEAN != 0
    }

    #[cold]
    #[inline(never)]
    fn begin_unclean(&mut self) -> Result<()> {
        let map = self.heap.map;
        self.durable &= !(CLEAN | UNSURE);
        // Whoever comes after one who dies before it is on the disk sees to it that it gets there.
        map.put_word(at::DURABLE, self.durable | UNSURE)?;
        map.sync(at::DURABLE..at::DURABLE + 8)?;
        map.put_word(at::DURABLE, self.durable)
    }

    /// Before the first change of all: the disk must not have anything of what is changed without the boot.
    pub(super) fn begin_boot(&self) -> Result<()> {
        let map = self.heap.map;
        map.put_word(at::BOOT, recover::boot_to_store(self.dict)?)?;
        if self.dict.is_file() { map.sync(at::BOOT..at::BOOT + 8) } else { Ok(()) }
    }

    /// Brings everything to the disk, and frees what was kept for a power cut.
    pub(super) fn flush(&mut self) -> Result<()> {
        let map = self.heap.map;
        if !self.dict.is_file() || self.is_clean() {
            return Ok(());
        }
        let version = self.version()?;
        // All of it, also what others have made it longer by.
        map.refresh()?;
        map.sync(..)?;
        // What was removed is gone from the disk since the flush before; what replaced it is there since this one.
        self.free_list(at::REMOVED_BEFORE)?;
        self.free_list(at::PENDING)?;
        self.plan.clear();
        let removed = map.word(at::REMOVED)?;
        self.plan.put(at::REMOVED_BEFORE, removed);
        self.plan.put(at::REMOVED, 0);
        self.plan.put(at::FLUSHED, version);
        self.plan.carry_out(map, self.heap.shape)?;
        map.sync(..)?;
        self.durable = CLEAN | FLUSHED_BEFORE;
        map.put_word(at::DURABLE, self.durable)?;
        map.sync(at::DURABLE..at::DURABLE + 8)
    }

    /// Frees the records of a list, in plans of some each.
    fn free_list(&mut self, list: usize) -> Result<()> {
        loop {
            self.plan.clear();
            let mut freed = 0;
            let mut bytes = self.heap.map.word(at::PENDING_BYTES)?;
            let mut block = self.heap.map.word(list)?;
            while block != 0 && freed < BATCH {
                let at = number(block);
                let next = self.heap.map.word(at.saturating_add(super::heap::LINK))?;
                bytes = bytes.saturating_sub(self.size_of(at)?);
                let in_spans = self.head(at)?.in_spans;
                self.free_now(at, in_spans)?;
                block = next;
                freed += 1;
            }
            if freed == 0 {
                return Ok(());
            }
            self.plan.put(list, block);
            self.plan.put(at::PENDING_BYTES, bytes);
            self.plan.carry_out(self.heap.map, self.heap.shape)?;
        }
    }

    /// Whether a flush would free anything.
    pub(super) fn has_pending(&self) -> Result<bool> {
        for list in [at::PENDING, at::REMOVED, at::REMOVED_BEFORE] {
            if self.is_durable() && self.heap.map.word(list)? != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

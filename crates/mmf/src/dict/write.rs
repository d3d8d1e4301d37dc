//! Writing: under the segment's lock, as plans that the journal has done to the end.

mod few;
mod free;

use std::sync::atomic::Ordering;

use few::Few;

use super::Dict;
use super::heap::{Heap, NoBlock};
use super::index::{Place, count_of, slot_for};
use super::limit::{Limit, too_slow};
use super::plan::{self, Plan};
use super::read::{HeadAndKey, same};
use super::record::{self, BEFORE, HEAD, Head, Kind, STAMP, VERSION};
use super::recover;
use super::ring::Ring;
use super::shape::{at, class};
use super::sync_mark::SYNCING;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::{Until, WriteLock};
use crate::sys::fence;

/// About as many stores as a key takes.
const STORES: usize = 11;

/// What so many changes look at is fetched at once: it should stay in the nearest cache until its turn comes.
const AHEAD: usize = 64;

/// What so many entries take mostly is in the caches.
const NEAR: u64 = 2048;

/// What is to be done with a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'c> {
    pub(super) key: &'c [u8],
    pub(super) hash: u64,
    /// The value with its kind; `None` removes.
    pub(super) value: Option<(Kind, &'c [u8])>,
}

/// The record that a slot leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Old {
    pub(super) block: usize,
    pub(super) in_spans: bool,
    /// It was cleared, and has not been freed yet.
    pub(super) cleared: bool,
}

/// A record that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) block: usize,
    pub(super) head: Head,
}

/// The lock, and what was found when it was taken. Dropped, it is released.
pub(super) struct Writer<'a> {
    pub(super) dict: &'a Dict,
    pub(super) heap: Heap<'a>,
    pub(super) plan: &'a mut Plan,
    /// See `at::DURABLE`.
    pub(super) durable: u64,
    pub(super) limit: Limit,
    lock: WriteLock<'a>,
}

impl<'a> Writer<'a> {
    /// Takes the lock, and brings what a dead writer left half done to its end.
    #[inline]
    pub(super) fn lock(dict: &'a Dict, plan: &'a mut Plan, until: Until, doing: &'static str) -> Result<Writer<'a>> {
        let lock = Writer::enter(dict, until, doing)?;
        let mut writer = Writer::holding(lock, dict, plan);
        // The wait may have taken all of `until`. The work has as much time again.
        writer.limit.set(dict.work());
        writer.begin()?;
        Ok(writer)
    }

    /// Takes the lock, and leaves everything as it is.
    #[inline]
    pub(super) fn take(dict: &'a Dict, plan: &'a mut Plan, until: Until, doing: &'static str) -> Result<Writer<'a>> {
        Ok(Writer::holding(Writer::enter(dict, until, doing)?, dict, plan))
    }

    /// Takes the lock. What follows is that it is [held](Writer::holding).
    #[inline(always)]
    pub(super) fn enter(dict: &'a Dict, until: Until, doing: &'static str) -> Result<WriteLock<'a>> {
        Ok(WriteLock::lock(&dict.segment, || until, doing)?.0)
    }

    /// The holder of the lock, which it releases when it is dropped. It has no [limit](Limit) yet.
    /// Apart from [`lock`](Writer::lock) for those who would lose time by its being moved.
    #[inline(always)]
    pub(super) fn holding(lock: WriteLock<'a>, dict: &'a Dict, plan: &'a mut Plan) -> Writer<'a> {
        Writer { dict, heap: dict.heap(), plan, durable: 0, limit: Limit::unset(), lock }
    }

    /// Brings what a dead writer left half done to its end.
    #[inline(always)]
    pub(super) fn begin(&mut self) -> Result<()> {
        match plan::finish(self.heap.map, self.heap.shape) {
            // The dead writer may have woken no process that waits for changes.
            Ok(true) => self.has_changed(),
            Ok(false) => {}
            Err(error) => self.rebuild_if_cut_off(error)?,
        }
        self.durable = self.heap.map.word(at::DURABLE)?;
        Ok(())
    }

    /// Does a rebuild again that was cut off, or gives the error back.
    #[cold]
    #[inline(never)]
    fn rebuild_if_cut_off(&mut self, error: Error) -> Result<()> {
        if !recover::was_cut_off(self.heap.map)? {
            return Err(error);
        }
        recover::rebuild(self.dict)?;
        self.has_changed();
        Ok(())
    }

    /// The version of the last change.
    #[inline]
    pub(super) fn version(&self) -> Result<u64> {
        let version = self.heap.map.word(at::COMMIT)?;
        self.check_version(version)?;
        Ok(version)
    }

    /// No dict lives to see so many, and what is added to them must not pass the end.
    #[inline(always)]
    fn check_version(&self, version: u64) -> Result<()> {
        if version > u64::MAX / 2 { Err(self.too_late(version)) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn too_late(&self, version: u64) -> Error {
        self.heap.damaged(format!("its last change has the version {version}"))
    }

    /// Makes all the changes or none, and gives the version of the last; `None` if there was nothing to change.
    #[inline]
    pub(super) fn apply(&mut self, changes: &[Step<'_>]) -> Result<Option<u64>> {
        if let [change] = changes {
            if let Some(version) = self.replace_at_a_glance(change)? {
                return Ok(Some(version));
            }
        }
        self.limit.set(self.dict.work());
        if self.is_clean() && self.are_in_vain(changes)? {
            return Ok(None);
        }
        self.begin_change()?;
        self.make_room_in_index(changes.len())?;
        // Each round frees something, and there is no more than this to free, unless somebody puts it there meanwhile.
        for _ in 0..self.heap.shape.spans.saturating_mul(4).saturating_add(64) {
            match self.try_apply(changes, self.is_durable()) {
                Ok(version) => return Ok(version),
                Err(NoBlock::Failed(error)) => return Err(error),
                Err(NoBlock::Full(_)) => {}
            }
            if self.limit.is_over() {
                // One that needs no space may still succeed.
                return match changes {
                    [Step { value: None, .. }] => self.apply_without_space(changes),
                    _ => Err(too_slow(self.heap.map, "change")),
                };
            }
            if !self.make_space()? && !self.limit.is_over() {
                break;
            }
        }
        self.apply_without_space(changes)
    }

    /// Whether nothing that is to be removed is there, and nothing is to be set.
    #[cold]
    fn are_in_vain(&mut self, changes: &[Step<'_>]) -> Result<bool> {
        for change in changes {
            if change.value.is_some() || self.stored(change.hash, change.key)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A removal alone needs no space: without a record of it the slot says that the key is gone, and what was removed still stays
    /// for a power cut until the next flush, which frees it.
    #[cold]
    fn apply_without_space(&mut self, changes: &[Step<'_>]) -> Result<Option<u64>> {
        let is_removal = matches!(changes, [Step { value: None, .. }]);
        match self.try_apply(changes, self.is_durable() && !is_removal) {
            Ok(version) => Ok(version),
            Err(NoBlock::Failed(error)) => Err(error),
            Err(NoBlock::Full(why)) => Err(self.full(why)),
        }
    }

    /// Buckets for so many more entries.
    #[inline]
    pub(super) fn make_room_in_index(&mut self, more: usize) -> Result<()> {
        let map = self.heap.map;
        // One more than are wanted in the long run; if there have been fewer for a while, or the number of entries is wrong,
        // the change need not wait for all that are missing.
        for _ in 0..more.saturating_add(2) {
            let count = count_of(map.word(at::BUCKETS)?);
            if count != 0 && !Heap::is_crowded(count, map.word(at::LEN)?.saturating_add(more as u64)) {
                return Ok(());
            }
            self.begin_change()?;
            let made = match count {
                0 => self.begin_boot().map_err(NoBlock::from).and_then(|()| self.heap.begin_index(self.plan)),
                // What is left to be split is left to later changes.
                _ if self.limit.spend() => return Ok(()),
                _ => self.heap.split(self.plan, &self.limit),
            };
            match made {
                Ok(()) => {}
                // Longer buckets do as well.
                Err(NoBlock::Full(_)) if count != 0 => return Ok(()),
                Err(NoBlock::Full(why)) => return Err(self.full(why)),
                Err(NoBlock::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// `recorded`: removals take a record each, which a power cut leaves where their slots are.
    #[inline]
    pub(super) fn try_apply(&mut self, changes: &[Step<'_>], recorded: bool) -> Result<Option<u64>, NoBlock> {
        self.begin_change()?;
        self.plan.clear();
        self.plan.expect(STORES * changes.len());
        let map = self.heap.map;
        let [before, floor, buckets, _] = map.four_words(at::COMMIT)?;
        self.check_version(before)?;
        let len = map.word(at::LEN)?;
        let together = changes.len() > 1;
        let far = together && len > NEAR;
        let (mut version, mut now) = (before, len);
        // What is not needed once the change is committed: slots of removals, and blocks.
        let mut emptied = Few::new();
        let mut freed = Few::with_room_for(changes.len());
        let mut told = Few::with_room_for(changes.len());
        for (nth, change) in changes.iter().enumerate() {
            if together && self.limit.spend_bytes(change.value.map_or(0, |(_, value)| value.len())) {
                return Err(too_slow(map, "change").into());
            }
            if far && nth % AHEAD == 0 {
                self.fetch(&changes[nth..changes.len().min(nth + AHEAD)], buckets);
            }
            // Before anybody waits for what is not in the caches: no store does.
            let set = match change.value {
                Some((kind, value)) => Some((kind, self.record(version + 1, change.key, kind, value)?)),
                None => None,
            };
            let (place, old) = self.find(change.hash, change.key, floor, buckets)?;
            let there = old.is_some_and(|old| !old.cleared);
            let before = old.filter(|_| there).map_or(0, |old| old.block as u64);
            let Some((kind, block)) = set else {
                let (Place::Entry(slot), Some(old)) = (place, old.filter(|_| there)) else { continue };
                version += 1;
                now = now.saturating_sub(1);
                // One store does it; among others, or where a power cut must not bring it back, it takes a record.
                if together || recorded {
                    let block = self.record(version, change.key, Kind::Removal, &[])?;
                    self.plan.put_unasked(block + BEFORE, before);
                    self.plan.put_unasked(block + STAMP, version);
                    self.plan.put_unasked(slot, slot_for(change.hash, block));
                    freed.push((block, false, true));
                }
                emptied.push(slot);
                freed.push((old.block, old.in_spans, false));
                told.push((version, Kind::Removal, change.key));
                continue;
            };
            version += 1;
            self.plan.put_unasked(block + BEFORE, before);
            self.plan.put_unasked(block + STAMP, version);
            let slot = slot_for(change.hash, block);
            match (place, old) {
                // Whoever else looks there for another key finds in the old record as well as in the new that it is not that.
                (Place::Entry(at), Some(old)) => {
                    self.plan.put_unasked(at, slot);
                    freed.push((old.block, old.in_spans, false));
                }
                _ => self.heap.put_entry(self.plan, place, slot)?,
            }
            now = now.saturating_add(u64::from(!there));
            told.push((version, kind, change.key));
        }
        if version == before {
            return Ok(None);
        }
        let alone = !together && !recorded;
        if alone {
            // A removal alone: the slot is what readers go by.
            for slot in emptied.iter() {
                self.plan.put(slot, 0);
            }
        }
        self.plan.put_unasked(at::COMMIT, version);
        let mut ring = Ring::place(&self.heap, told.iter().map(|(.., key)| key.len()))?;
        ring.put_head(self.plan);
        if now != len {
            self.plan.put_unasked(at::LEN, now);
        }
        if !alone {
            for slot in emptied.iter() {
                self.plan.put(slot, 0);
            }
        }
        for (block, in_spans, removal) in freed.iter() {
            self.free_last(block, in_spans, removal)?;
        }
        self.plan.fits(map, self.heap.shape)?;
        ring.claim(&self.heap)?;
        for (version, kind, key) in told.iter() {
            ring.write(&self.heap, version, kind, key)?;
        }
        self.carry_out()?;
        Ok(Some(version))
    }

    /// Has the plan done, and those who watch told.
    #[inline]
    pub(super) fn carry_out(&mut self) -> Result<()> {
        self.plan.carry_out(self.heap.map, self.heap.shape)?;
        self.has_changed();
        Ok(())
    }

    /// The place of a key, and its record if it has one.
    #[inline(always)]
    fn find(&self, hash: u64, key: &[u8], floor: u64, buckets: u64) -> Result<(Place, Option<Old>)> {
        match self.heap.map.glance().and_then(|map| self.find_at_a_glance(map, hash, key, floor, buckets)) {
            Some((slot, old)) => Ok((Place::Entry(slot), Some(old))),
            None => self.find_for_sure(hash, key, floor),
        }
    }

    #[inline(never)]
    fn find_for_sure(&self, hash: u64, key: &[u8], floor: u64) -> Result<(Place, Option<Old>)> {
        let mut copy = HeadAndKey::new();
        let mut old = None;
        let place = self.heap.find(self.plan, hash, |block| {
            let Some((head, _, found_key)) = copy.copy(&self.heap, block, key.len())? else { return Ok(false) };
            if head.key_len != key.len() || !same(found_key, key) {
                return Ok(false);
            }
            old = Some(Old { block, in_spans: head.in_spans, cleared: head.version <= floor });
            Ok(true)
        })?;
        Ok((place, old))
    }

    /// The record of a key that is there.
    pub(super) fn stored(&mut self, hash: u64, key: &[u8]) -> Result<Option<Stored>> {
        self.plan.clear();
        let [_, floor, buckets, _] = self.heap.map.four_words(at::COMMIT)?;
        if buckets == 0 {
            return Ok(None);
        }
        let (_, old) = self.find(hash, key, floor, buckets)?;
        let Some(old) = old.filter(|old| !old.cleared) else { return Ok(None) };
        Ok(Some(Stored { block: old.block, head: self.head(old.block)? }))
    }

    /// Writes a record into a block that nobody knows of yet.
    #[inline(always)]
    fn record(&mut self, version: u64, key: &[u8], kind: Kind, value: &[u8]) -> Result<usize, NoBlock> {
        // After a failed sync a list of free blocks may be from the past; the long way looks at
        // what it leads to.
        if self.durable & SYNCING == 0 {
            if let Some(block) = self.record_at_a_glance(version, key, kind, value)? {
                return Ok(block);
            }
        }
        self.write_record(version, key, kind, value)
    }

    #[inline(never)]
    fn write_record(&mut self, version: u64, key: &[u8], kind: Kind, value: &[u8]) -> Result<usize, NoBlock> {
        let (heap, shape) = (self.heap, self.heap.shape);
        let mut head = Head { version, key_len: key.len(), kind, value_len: value.len(), in_spans: false, checksum: 0 };
        head.in_spans = head.block_len(shape) > shape.largest_block();
        let len = head.block_len(shape);
        if len > shape.largest_block() || value.len() as u64 >= 1 << 40 {
            return Err(self.too_large(value.len()).into());
        }
        head.checksum = head.sum(self.heap.seed, key, value);
        let mut parts = Vec::new();
        if head.in_spans {
            parts = heap.take_parts(self.plan, head.span_count(shape))?;
            // Whoever still reads the value that another writer freed there sees that before it sees other bytes.
            fence(Ordering::Release);
            for (part, bytes) in parts.iter().zip(value.chunks(shape.span_size())) {
                heap.map.write_at(shape.span(*part), bytes)?;
            }
        }
        let block = heap.take(self.plan, class::of(len), None)?;
        // What was there before in a span that had another use may look like a stamp.
        heap.map.put_word(block + STAMP, 0)?;
        // Whoever still reads what was here before sees that before it sees other bytes.
        fence(Ordering::Release);
        let words = [version, head.what(), head.checksum ^ record::place(block, version)];
        heap.map.put_words(block + VERSION, &words)?;
        heap.map.write_at(block + HEAD, key)?;
        if parts.is_empty() {
            heap.map.write_at(block + HEAD + key.len(), value)?;
        }
        if !parts.is_empty() {
            // Spans are counted in thousands.
            let numbers = parts.iter().flat_map(|part| u32::try_from(*part).unwrap_or(u32::MAX).to_le_bytes());
            let numbers: Vec<u8> = numbers.collect();
            heap.map.write_at(block + head.spans_at(), &numbers)?;
        }
        Ok(block)
    }

    /// Has the release of the lock wake those that wait for changes.
    #[inline]
    pub(super) fn has_changed(&self) {
        self.lock.segment().has_changed();
    }

    #[inline]
    pub(super) fn is_durable(&self) -> bool {
        self.durable & super::durable::FLUSHED_BEFORE != 0
    }

    #[cold]
    #[inline(never)]
    pub(super) fn full(&self, why: Option<Error>) -> Error {
        if let Some(error) = why {
            return error;
        }
        let capacity = self.dict.capacity();
        let help =
            format!("there is no room for it in {capacity} bytes: remove something, or make it with more capacity");
        self.heap.map.name_it(Error::new(ErrorKind::Full, "change")).with_help(help)
    }

    #[cold]
    #[inline(never)]
    fn too_large(&self, len: usize) -> Error {
        let most = self.dict.capacity() / 4;
        let reason = format!("a value of {len} bytes is too large; what surely fits is {most}");
        self.heap.map.name_it(Error::invalid("change", reason)).with_help("make it with more capacity")
    }
}

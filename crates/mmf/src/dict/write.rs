//! Writing: under the segment's lock, as batches that the redo log has done to the end.

mod free;
mod small_vec;

use std::sync::atomic::Ordering;

use small_vec::SmallVec;

use super::allocator::{AllocError, Storage};
use super::change_log::EventReservation;
use super::index::{EntryPosition, bucket_count, slot_for};
use super::layout::{at, class};
use super::open_after_crash;
use super::read::{HeaderAndKey, keys_equal};
use super::record::{self, HEADER_LEN, PREV, RecordHeader, RecordKind, STAMP, VERSION};
use super::redo_log::{self, WriteBatch};
use super::sync_mark::SYNCING;
use super::work_limit::{WorkLimit, too_slow};
use super::{Dict, DictState};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::{Deadline, WriteLock};
use crate::sys::fence;

/// About as many stores as a key takes.
const STORES_PER_KEY: usize = 11;

/// What so many changes look at is fetched at once: it should stay in the nearest cache until its turn comes.
const PREFETCH_KEYS: usize = 64;

/// What so many entries take mostly is in the caches.
const CACHED_ENTRIES: u64 = 2048;

/// What is to be done with a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyChange<'c> {
    pub(super) key: &'c [u8],
    pub(super) hash: u64,
    /// The value with its kind; `None` removes.
    pub(super) value: Option<(RecordKind, &'c [u8])>,
}

/// The record that a slot leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplacedRecord {
    pub(super) block: usize,
    pub(super) in_spans: bool,
    /// It was cleared, and has not been freed yet.
    pub(super) cleared: bool,
}

/// A record that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredRecord {
    pub(super) block: usize,
    pub(super) head: RecordHeader,
}

/// The lock, and what was found when it was taken. Dropped, it is released.
pub(super) struct WriteSession<'a> {
    pub(super) dict: &'a Dict,
    pub(super) storage: Storage<'a>,
    pub(super) batch: &'a mut WriteBatch,
    /// See `at::DURABLE`.
    pub(super) flush_state: u64,
    pub(super) limit: WorkLimit,
    lock: WriteLock<'a, DictState>,
}

impl<'a> WriteSession<'a> {
    /// Takes the lock, and brings what a dead writer left half done to its end.
    #[inline]
    pub(super) fn lock(
        dict: &'a Dict,
        batch: &'a mut WriteBatch,
        until: Deadline,
        doing: &'static str,
    ) -> Result<Self> {
        let lock = WriteSession::acquire(dict, until, doing)?;
        let mut writer = WriteSession::from_lock(lock, dict, batch);
        // The wait may have taken all of `until`. The work has as much time again.
        writer.limit.set(dict.work_deadline());
        writer.recover()?;
        Ok(writer)
    }

    /// Takes the lock, and leaves everything as it is.
    #[inline]
    pub(super) fn lock_without_recovery(
        dict: &'a Dict,
        batch: &'a mut WriteBatch,
        until: Deadline,
        doing: &'static str,
    ) -> Result<Self> {
        Ok(WriteSession::from_lock(WriteSession::acquire(dict, until, doing)?, dict, batch))
    }

    /// Takes the lock. What follows is that it is [held](WriteSession::from_lock).
    #[inline(always)]
    pub(super) fn acquire(dict: &'a Dict, until: Deadline, doing: &'static str) -> Result<WriteLock<'a, DictState>> {
        WriteLock::lock(&dict.segment, || until, doing, |outcome| outcome.map(|(lock, _)| lock))
    }

    /// The holder of the lock, which it releases when it is dropped. It has no [limit](WorkLimit)
    /// yet. A call of its own, since moving the session out of [`lock`](WriteSession::lock) costs
    /// time.
    #[inline(always)]
    pub(super) fn from_lock(lock: WriteLock<'a, DictState>, dict: &'a Dict, batch: &'a mut WriteBatch) -> Self {
        WriteSession { dict, storage: dict.storage(), batch, flush_state: 0, limit: WorkLimit::unset(), lock }
    }

    /// Brings what a dead writer left half done to its end.
    #[inline(always)]
    pub(super) fn recover(&mut self) -> Result<()> {
        match redo_log::replay(self.storage.map, self.storage.layout) {
            // The dead writer may have woken no process that waits for changes.
            Ok(true) => self.set_changed(),
            Ok(false) => {}
            Err(error) => self.rebuild_if_cut_off(error)?,
        }
        self.flush_state = self.storage.map.word(at::DURABLE)?;
        Ok(())
    }

    /// Does a rebuild again that was cut off, or gives the error back.
    #[cold]
    #[inline(never)]
    fn rebuild_if_cut_off(&mut self, error: Error) -> Result<()> {
        if !open_after_crash::was_cut_off(self.storage.map)? {
            return Err(error);
        }
        open_after_crash::rebuild(self.dict)?;
        self.set_changed();
        Ok(())
    }

    /// The version of the last change.
    #[inline]
    pub(super) fn version(&self) -> Result<u64> {
        let version = self.storage.map.word(at::COMMIT)?;
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
        self.storage.damaged(format!("its last change has the version {version}"))
    }

    /// Makes all the changes or none, and gives the version of the last; `None` if there was nothing to change.
    #[inline]
    pub(super) fn apply(&mut self, changes: &[KeyChange<'_>]) -> Result<Option<u64>> {
        if let [change] = changes {
            if let Some(version) = self.replace_fast(change)? {
                return Ok(Some(version));
            }
        }
        self.limit.set(self.dict.work_deadline());
        if self.is_clean() && self.have_no_effect(changes)? {
            return Ok(None);
        }
        self.mark_unflushed()?;
        self.make_room_in_index(changes.len())?;
        // Each round frees something, and there is no more than this to free, unless somebody puts it there meanwhile.
        for _ in 0..self.storage.layout.spans.saturating_mul(4).saturating_add(64) {
            match self.try_apply(changes, self.has_been_flushed()) {
                Ok(version) => return Ok(version),
                Err(AllocError::Failed(error)) => return Err(error),
                Err(AllocError::Full(_)) => {}
            }
            if self.limit.is_over() {
                // One that needs no space may still succeed.
                return match changes {
                    [KeyChange { value: None, .. }] => self.apply_without_space(changes),
                    _ => Err(too_slow(self.storage.map, "change")),
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
    fn have_no_effect(&mut self, changes: &[KeyChange<'_>]) -> Result<bool> {
        for change in changes {
            if change.value.is_some() || self.find_record(change.hash, change.key)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A removal alone needs no space: without a record of it the slot says that the key is gone, and what was removed still stays
    /// for a power cut until the next flush, which frees it.
    #[cold]
    fn apply_without_space(&mut self, changes: &[KeyChange<'_>]) -> Result<Option<u64>> {
        let is_removal = matches!(changes, [KeyChange { value: None, .. }]);
        match self.try_apply(changes, self.has_been_flushed() && !is_removal) {
            Ok(version) => Ok(version),
            Err(AllocError::Failed(error)) => Err(error),
            Err(AllocError::Full(why)) => Err(self.full(why)),
        }
    }

    /// Buckets for so many more entries.
    #[inline]
    pub(super) fn make_room_in_index(&mut self, more: usize) -> Result<()> {
        let map = self.storage.map;
        // One more than are wanted in the long run; if there have been fewer for a while, or the number of entries is wrong,
        // the change need not wait for all that are missing.
        for _ in 0..more.saturating_add(2) {
            let count = bucket_count(map.word(at::BUCKETS)?);
            if count != 0 && !Storage::is_crowded(count, map.word(at::LEN)?.saturating_add(more as u64)) {
                return Ok(());
            }
            self.mark_unflushed()?;
            let made = match count {
                0 => self.begin_boot().map_err(AllocError::from).and_then(|()| self.storage.begin_index(self.batch)),
                // What is left to be split is left to later changes.
                _ if self.limit.spend() => return Ok(()),
                _ => self.storage.split(self.batch, &self.limit),
            };
            match made {
                Ok(()) => {}
                // Longer buckets do as well.
                Err(AllocError::Full(_)) if count != 0 => return Ok(()),
                Err(AllocError::Full(why)) => return Err(self.full(why)),
                Err(AllocError::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// `recorded`: removals take a record each, which a power cut leaves where their slots are.
    #[inline]
    pub(super) fn try_apply(&mut self, changes: &[KeyChange<'_>], recorded: bool) -> Result<Option<u64>, AllocError> {
        self.mark_unflushed()?;
        self.batch.clear();
        self.batch.reserve(STORES_PER_KEY * changes.len());
        let map = self.storage.map;
        let [before, floor, buckets, _] = map.four_words(at::COMMIT)?;
        self.check_version(before)?;
        let len = map.word(at::LEN)?;
        let together = changes.len() > 1;
        let far = together && len > CACHED_ENTRIES;
        let (mut version, mut now) = (before, len);
        // What is not needed once the change is committed: slots of removals, and blocks.
        let mut emptied = SmallVec::new();
        let mut freed = SmallVec::with_room_for(changes.len());
        let mut events = SmallVec::with_room_for(changes.len());
        for (nth, change) in changes.iter().enumerate() {
            if together && self.limit.spend_bytes(change.value.map_or(0, |(_, value)| value.len())) {
                return Err(too_slow(map, "change").into());
            }
            if far && nth % PREFETCH_KEYS == 0 {
                self.prefetch(&changes[nth..changes.len().min(nth + PREFETCH_KEYS)], buckets);
            }
            // Before anybody waits for what is not in the caches: no store does.
            let set = match change.value {
                Some((kind, value)) => Some((kind, self.write_record(version + 1, change.key, kind, value)?)),
                None => None,
            };
            let (place, old) = self.find(change.hash, change.key, floor, buckets)?;
            let there = old.is_some_and(|old| !old.cleared);
            let before = old.filter(|_| there).map_or(0, |old| old.block as u64);
            let Some((kind, block)) = set else {
                let (EntryPosition::Entry(slot), Some(old)) = (place, old.filter(|_| there)) else { continue };
                version += 1;
                now = now.saturating_sub(1);
                // One store does it; among others, or where a power cut must not bring it back, it takes a record.
                if together || recorded {
                    let block = self.write_record(version, change.key, RecordKind::Removal, &[])?;
                    self.batch.push_blind(block + PREV, before);
                    self.batch.push_blind(block + STAMP, version);
                    self.batch.push_blind(slot, slot_for(change.hash, block));
                    freed.push((block, false, true));
                }
                emptied.push(slot);
                freed.push((old.block, old.in_spans, false));
                events.push((version, RecordKind::Removal, change.key));
                continue;
            };
            version += 1;
            self.batch.push_blind(block + PREV, before);
            self.batch.push_blind(block + STAMP, version);
            let slot = slot_for(change.hash, block);
            match (place, old) {
                // Whoever else looks there for another key finds in the old record as well as in the new that it is not that.
                (EntryPosition::Entry(at), Some(old)) => {
                    self.batch.push_blind(at, slot);
                    freed.push((old.block, old.in_spans, false));
                }
                _ => self.storage.put_entry(self.batch, place, slot)?,
            }
            now = now.saturating_add(u64::from(!there));
            events.push((version, kind, change.key));
        }
        if version == before {
            return Ok(None);
        }
        let alone = !together && !recorded;
        if alone {
            // A removal alone: the slot is what readers go by.
            for slot in emptied.iter() {
                self.batch.push(slot, 0);
            }
        }
        self.batch.push_blind(at::COMMIT, version);
        let mut reservation = EventReservation::new(&self.storage, events.iter().map(|(.., key)| key.len()))?;
        reservation.push_head(self.batch);
        if now != len {
            self.batch.push_blind(at::LEN, now);
        }
        if !alone {
            for slot in emptied.iter() {
                self.batch.push(slot, 0);
            }
        }
        for (block, in_spans, removal) in freed.iter() {
            self.free_last(block, in_spans, removal)?;
        }
        self.batch.fits(map, self.storage.layout)?;
        reservation.claim(&self.storage)?;
        for (version, kind, key) in events.iter() {
            reservation.write(&self.storage, version, kind, key)?;
        }
        self.commit_batch()?;
        Ok(Some(version))
    }

    /// Commits the batch, and has the release of the lock wake watchers.
    #[inline]
    pub(super) fn commit_batch(&mut self) -> Result<()> {
        self.batch.commit(self.storage.map, self.storage.layout)?;
        self.set_changed();
        Ok(())
    }

    /// The place of a key, and its record if it has one.
    #[inline(always)]
    fn find(&self, hash: u64, key: &[u8], floor: u64, buckets: u64) -> Result<(EntryPosition, Option<ReplacedRecord>)> {
        match self.storage.map.fast_access().and_then(|map| self.find_fast(map, hash, key, floor, buckets)) {
            Some((slot, old)) => Ok((EntryPosition::Entry(slot), Some(old))),
            None => self.find_slow(hash, key, floor),
        }
    }

    #[inline(never)]
    fn find_slow(&self, hash: u64, key: &[u8], floor: u64) -> Result<(EntryPosition, Option<ReplacedRecord>)> {
        let mut copy = HeaderAndKey::new();
        let mut old = None;
        let place = self.storage.find(self.batch, hash, |block| {
            let Some((head, _, found_key)) = copy.copy(&self.storage, block, key.len())? else { return Ok(false) };
            if head.key_len != key.len() || !keys_equal(found_key, key) {
                return Ok(false);
            }
            old = Some(ReplacedRecord { block, in_spans: head.in_spans, cleared: head.version <= floor });
            Ok(true)
        })?;
        Ok((place, old))
    }

    /// The record of a key that is there.
    pub(super) fn find_record(&mut self, hash: u64, key: &[u8]) -> Result<Option<StoredRecord>> {
        self.batch.clear();
        let [_, floor, buckets, _] = self.storage.map.four_words(at::COMMIT)?;
        if buckets == 0 {
            return Ok(None);
        }
        let (_, old) = self.find(hash, key, floor, buckets)?;
        let Some(old) = old.filter(|old| !old.cleared) else { return Ok(None) };
        Ok(Some(StoredRecord { block: old.block, head: self.head(old.block)? }))
    }

    /// Writes a record into a block that nobody knows of yet.
    #[inline(always)]
    fn write_record(&mut self, version: u64, key: &[u8], kind: RecordKind, value: &[u8]) -> Result<usize, AllocError> {
        // After a failed sync a list of free blocks may be from the past; the long way looks at
        // what it leads to.
        if self.flush_state & SYNCING == 0 {
            if let Some(block) = self.write_record_fast(version, key, kind, value)? {
                return Ok(block);
            }
        }
        self.write_record_slow(version, key, kind, value)
    }

    #[inline(never)]
    fn write_record_slow(
        &mut self,
        version: u64,
        key: &[u8],
        kind: RecordKind,
        value: &[u8],
    ) -> Result<usize, AllocError> {
        let (storage, layout) = (self.storage, self.storage.layout);
        let mut head =
            RecordHeader { version, key_len: key.len(), kind, value_len: value.len(), in_spans: false, checksum: 0 };
        head.in_spans = head.block_len(layout) > layout.largest_block();
        let len = head.block_len(layout);
        if len > layout.largest_block() || value.len() as u64 >= 1 << 40 {
            return Err(self.too_large(value.len()).into());
        }
        head.checksum = head.sum(self.storage.seed, key, value);
        let mut parts = Vec::new();
        if head.in_spans {
            parts = storage.take_parts(self.batch, head.span_count(layout))?;
            // Whoever still reads the value that another writer freed there sees that before it sees other bytes.
            fence(Ordering::Release);
            for (part, bytes) in parts.iter().zip(value.chunks(layout.span_size())) {
                storage.map.write_at(layout.span(*part), bytes)?;
            }
        }
        let block = storage.take(self.batch, class::of(len), None)?;
        // What was there before in a span that had another use may look like a stamp.
        storage.map.put_word(block + STAMP, 0)?;
        // Whoever still reads what was here before sees that before it sees other bytes.
        fence(Ordering::Release);
        let words = [version, head.what(), head.checksum ^ record::location_mix(block, version)];
        storage.map.put_words(block + VERSION, &words)?;
        storage.map.write_at(block + HEADER_LEN, key)?;
        if parts.is_empty() {
            storage.map.write_at(block + HEADER_LEN + key.len(), value)?;
        }
        if !parts.is_empty() {
            // Spans are counted in thousands.
            let numbers = parts.iter().flat_map(|part| u32::try_from(*part).unwrap_or(u32::MAX).to_le_bytes());
            let numbers: Vec<u8> = numbers.collect();
            storage.map.write_at(block + head.spans_at(), &numbers)?;
        }
        Ok(block)
    }

    /// Has the release of the lock wake those that wait for changes.
    #[inline]
    pub(super) fn set_changed(&self) {
        self.lock.segment().set_changed();
    }

    #[inline]
    pub(super) fn has_been_flushed(&self) -> bool {
        self.flush_state & super::flush::FLUSHED_BEFORE != 0
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
        self.storage.map.name_error(Error::new(ErrorKind::Full, "change")).with_help(help)
    }

    #[cold]
    #[inline(never)]
    fn too_large(&self, len: usize) -> Error {
        let most = self.dict.capacity() / 4;
        let reason = format!("a value of {len} bytes is too large; what surely fits is {most}");
        self.storage.map.name_error(Error::invalid("change", reason)).with_help("make it with more capacity")
    }
}

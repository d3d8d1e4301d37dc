//! Applies changes of keys.

use std::ops::{Deref, DerefMut};

use crate::dict::format::layout::at;
use crate::dict::format::record::{MAX_COMMIT, PREV, RecordKind, STAMP};
use crate::dict::format::slot::{bucket_count, slot_for};
use crate::dict::store::change_log::EventReservation;
use crate::dict::store::index::{EntryPosition, Index};
use crate::dict::store::spans::AllocError;
use crate::dict::store::work_limit::too_slow;
use crate::dict::write::compaction::Compaction;
use crate::dict::write::lookup::Lookup;
use crate::dict::write::reclaim::Reclaimer;
use crate::dict::write::record_writer::RecordWriter;
use crate::dict::write::session::{KeyChange, WriteSession};
use crate::dict::write::small_vec::SmallVec;
use crate::error::{Error, ErrorKind, Result};

/// About as many stores as a key takes.
const STORES_PER_KEY: usize = 11;

/// What so many changes look at is fetched at once: it should stay in the nearest cache until its turn comes.
const PREFETCH_KEYS: usize = 64;

/// What so many entries take mostly is in the caches.
const CACHED_ENTRIES: u64 = 2048;

/// Applies changes of keys.
pub(in crate::dict) struct Applier<'w, 'a>(&'w mut WriteSession<'a>);

impl<'a> Deref for Applier<'_, 'a> {
    type Target = WriteSession<'a>;

    #[inline(always)]
    fn deref(&self) -> &WriteSession<'a> {
        self.0
    }
}

impl<'a> DerefMut for Applier<'_, 'a> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut WriteSession<'a> {
        self.0
    }
}

impl<'w, 'a> Applier<'w, 'a> {
    #[inline(always)]
    pub(in crate::dict) fn new(writer: &'w mut WriteSession<'a>) -> Self {
        Applier(writer)
    }

    #[inline]
    pub(in crate::dict) fn put(&mut self, hash: u64, key: &str, kind: RecordKind, value: &[u8]) -> Result<u64> {
        let version = self.apply(&[KeyChange { key: key.as_bytes(), hash, value: Some((kind, value)) }])?;
        Ok(version.unwrap_or_default())
    }

    /// Has all that is there count no longer, in one store; its space is swept up later.
    pub(in crate::dict) fn clear(&mut self) -> Result<u64> {
        self.make_room_in_index(0)?;
        self.mark_unflushed()?;
        self.batch.clear();
        let version = self.version()? + 1;
        let reservation = EventReservation::for_key(&self.storage, self.storage.map, 0)?;
        self.batch.push(at::COMMIT, version);
        self.batch.push(at::FLOOR, version);
        self.batch.push(at::LEN, 0);
        self.batch.push(at::SWEEP, 1);
        reservation.push_head(self.batch);
        reservation.write_cleared(&self.storage, version)?;
        self.commit_batch()?;
        Ok(version)
    }

    /// Gives a key that is there another value, and tells the version, in as few steps as it takes.
    /// Nothing is done where it is `None`, but for what was written to free memory. A power cut
    /// needs more than this does.
    #[inline(always)]
    pub(in crate::dict) fn replace_fast(&mut self, change: &KeyChange<'_>) -> Result<Option<u64>> {
        if self.flush_state != 0 {
            return Ok(None);
        }
        let Some(version) = self.plan_replacement(change) else { return Ok(None) };
        self.commit_batch()?;
        Ok(Some(version))
    }

    #[inline(always)]
    fn plan_replacement(&mut self, change: &KeyChange<'_>) -> Option<u64> {
        let storage = self.storage;
        let map = storage.map.fast_access_mut()?;
        let (key, (kind, value)) = (change.key, change.value?);
        let [before, floor, buckets, _] = map.four_words(at::COMMIT)?;
        if before > MAX_COMMIT {
            return None;
        }
        let version = before + 1;
        let line = storage.index().line_fast(*map, change.hash, buckets)?;
        // While the record is written, which waits for no cache.
        map.prefetch(line);
        self.batch.clear();
        let block = RecordWriter::new(self).take_for(map, key, value)?;
        storage.records().fill_inline(map, block, version, key, kind, value).ok()?;
        let (slot, old) = Lookup::new(self).find_in_line(*map, line, change.hash, key, floor)?;
        if old.cleared || old.in_spans {
            return None;
        }
        let reservation = EventReservation::for_key(&storage, map, key.len()).ok()?;
        self.batch.push_blind(block + PREV, old.block as u64);
        self.batch.push_blind(block + STAMP, version);
        self.batch.push_blind(slot, slot_for(change.hash, block));
        self.batch.push_blind(at::COMMIT, version);
        reservation.push_head(self.batch);
        Reclaimer::new(self).free_last(old.block, false, false).ok()?;
        reservation.write_all(&storage, map, std::iter::once((version, kind, key))).ok()?;
        Some(version)
    }

    /// Makes all the changes or none, and gives the version of the last; `None` if there was nothing to change.
    #[inline]
    pub(in crate::dict) fn apply(&mut self, changes: &[KeyChange<'_>]) -> Result<Option<u64>> {
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
            if !Compaction::new(self).make_space()? && !self.limit.is_over() {
                break;
            }
        }
        self.apply_without_space(changes)
    }

    /// Whether nothing that is to be removed is there, and nothing is to be set.
    #[cold]
    fn have_no_effect(&mut self, changes: &[KeyChange<'_>]) -> Result<bool> {
        for change in changes {
            if change.value.is_some() || Lookup::new(self).find_record(change.hash, change.key)?.is_some() {
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
    pub(in crate::dict) fn make_room_in_index(&mut self, more: usize) -> Result<()> {
        let map = self.storage.map;
        // One more than are wanted in the long run; if there have been fewer for a while, or the number of entries is wrong,
        // the change need not wait for all that are missing.
        for _ in 0..more.saturating_add(2) {
            let count = bucket_count(map.word(at::BUCKETS)?);
            if count != 0 && !Index::is_crowded(count, map.word(at::LEN)?.saturating_add(more as u64)) {
                return Ok(());
            }
            self.mark_unflushed()?;
            let made = match count {
                0 => self
                    .begin_boot()
                    .map_err(AllocError::from)
                    .and_then(|()| self.0.storage.index().begin_index(self.0.batch)),
                // What is left to be split is left to later changes.
                _ if self.limit.spend() => return Ok(()),
                _ => self.0.storage.index().split(self.0.batch, &self.0.limit),
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
    pub(in crate::dict) fn try_apply(
        &mut self,
        changes: &[KeyChange<'_>],
        recorded: bool,
    ) -> Result<Option<u64>, AllocError> {
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
                Lookup::new(self).prefetch(&changes[nth..changes.len().min(nth + PREFETCH_KEYS)], buckets);
            }
            // Before anybody waits for what is not in the caches: no store does.
            let set = match change.value {
                Some((kind, value)) => {
                    Some((kind, RecordWriter::new(self).write_record(version + 1, change.key, kind, value)?))
                }
                None => None,
            };
            let (place, old) = Lookup::new(self).find(change.hash, change.key, floor, buckets)?;
            let there = old.is_some_and(|old| !old.cleared);
            let before = old.filter(|_| there).map_or(0, |old| old.block as u64);
            let Some((kind, block)) = set else {
                let (EntryPosition::Entry(slot), Some(old)) = (place, old.filter(|_| there)) else { continue };
                version += 1;
                now = now.saturating_sub(1);
                // One store does it; among others, or where a power cut must not bring it back, it takes a record.
                if together || recorded {
                    let block = RecordWriter::new(self).write_record(version, change.key, RecordKind::Removal, &[])?;
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
                _ => self.0.storage.index().put_entry(self.0.batch, place, slot)?,
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
        let reservation = EventReservation::new(&self.storage, map, events.iter().map(|(.., key)| key.len()))?;
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
            Reclaimer::new(self).free_last(block, in_spans, removal)?;
        }
        self.batch.fits(map, self.storage.layout)?;
        let fast = map.fast_access_mut();
        if fast.is_none_or(|fast| reservation.write_all(&self.storage, fast, events.iter()).is_err()) {
            reservation.write_all(&self.storage, map, events.iter())?;
        }
        self.commit_batch()?;
        Ok(Some(version))
    }

    #[cold]
    #[inline(never)]
    pub(in crate::dict) fn full(&self, why: Option<Error>) -> Error {
        if let Some(error) = why {
            return error;
        }
        let capacity = self.dict.capacity();
        let help =
            format!("there is no room for it in {capacity} bytes: remove something, or make it with more capacity");
        self.storage.map.name_error(Error::new(ErrorKind::Full, "change")).with_help(help)
    }
}

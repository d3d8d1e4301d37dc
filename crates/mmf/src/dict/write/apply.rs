//! [`Applier`]: makes changes of keys: sets, removals, transactions and `clear`.
//!
//! The problem: a change of several keys must happen as one, for readers without a lock, after the
//! death of the writer, and after a power cut. The most frequent change, a new value for a key in a
//! dict that needs nothing else, must be fast.
//!
//! The algorithm, under the write lock:
//!
//! 1. Fast path ([`replace_fast`](Applier::replace_fast)), for one key that is present, if all bits
//!    of DURABLE are 0: plan the replacement with loads that are checked once, write the event, and
//!    commit. Any other case is a miss, after which only free memory has been written.
//! 2. Make the disk record that the file has unflushed changes
//!    ([`mark_unflushed`](WriteSession::mark_unflushed)), and split buckets until the new entries
//!    are within the load limit.
//! 3. Plan ([`try_apply`](Applier::try_apply)). For each key: write the new record to free memory;
//!    find the key; plan the stores of the previous record, the stamp and the slot. Then plan
//!    COMMIT, the change log's HEAD, the number of keys, the slots that become empty, and the
//!    stores that free the replaced records.
//! 4. Check that the batch fits the redo log, write the events, and commit the batch.
//! 5. If there was no space in step 3, compact ([`Compaction`]), and go back to step 3.
//!
//! A removal of one key in memory, or in a file that was never flushed, plans the store of 0 in its
//! slot before COMMIT. In a transaction, and in a file that was flushed, a removal writes a record
//! of its own kind, which takes the slot first. The slot becomes 0 after COMMIT.
//!
//! Why it is correct:
//!
//! - All stores before COMMIT are of words that readers resolve by COMMIT: a record with a larger
//!   stamp does not count yet, and the one before it does. A single removal is the exception: its
//!   one store to the slot is the change.
//! - The store of COMMIT makes all keys change at once for readers.
//! - The stores after COMMIT empty slots and free records that no reader needs.
//! - Before the commit point the plan changes nothing but free memory and the change log after
//!   HEAD.
//!
//! Cost of the fast path: one copy and one hash of the value, two guarded operations to find the
//! key, eight or nine planned stores. A transaction takes about 11 stores for each key, and
//! prefetches 64 keys at a time if the dict has more than 2048 entries.

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

/// The approximate number of stores that a change of one key takes.
const STORES_PER_KEY: usize = 11;

/// The number of changes whose buckets and records are prefetched at once. They should stay in the
/// first-level cache until their turn.
const PREFETCH_KEYS: usize = 64;

/// A dict of up to this many entries is likely to be in the caches, so nothing is prefetched.
const CACHED_ENTRIES: u64 = 2048;

/// Makes changes of keys.
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

    /// Sets one key, and returns the version of the change.
    #[inline]
    pub(in crate::dict) fn put(&mut self, hash: u64, key: &str, kind: RecordKind, value: &[u8]) -> Result<u64> {
        let version = self.apply(&[KeyChange { key: key.as_bytes(), hash, value: Some((kind, value)) }])?;
        Ok(version.unwrap_or_default())
    }

    /// Removes all keys by a store of FLOOR, and returns the version of the change. A later sweep
    /// frees their records.
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

    /// Replaces the value of a key that is present, and returns the version. Fast path of
    /// [`apply`](Applier::apply). Returns `None` for every other case; then only free memory has
    /// been written. It does not handle a file that was flushed, whose records must survive a power
    /// cut.
    #[inline(always)]
    pub(in crate::dict) fn replace_fast(&mut self, change: &KeyChange<'_>) -> Result<Option<u64>> {
        if self.flush_state != 0 {
            return Ok(None);
        }
        let Some(version) = self.plan_replacement(change) else { return Ok(None) };
        self.commit_batch()?;
        Ok(Some(version))
    }

    /// Plans the stores of [`replace_fast`](Applier::replace_fast), and writes record and event.
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
        // The line arrives while the record is written; stores do not wait for the cache.
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

    /// Makes all changes or none, and returns the version of the last. Returns `None` if there was
    /// nothing to change.
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
        // Each round frees a span or a list of records. More rounds than this mean that a hostile
        // peer adds something to free meanwhile.
        for _ in 0..self.storage.layout.spans.saturating_mul(4).saturating_add(64) {
            match self.try_apply(changes, self.has_been_flushed()) {
                Ok(version) => return Ok(version),
                Err(AllocError::Failed(error)) => return Err(error),
                Err(AllocError::Full(_)) => {}
            }
            if self.limit.is_over() {
                // A removal needs no space, so it may still succeed.
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

    /// Returns whether the changes are only removals of keys that are absent.
    #[cold]
    fn have_no_effect(&mut self, changes: &[KeyChange<'_>]) -> Result<bool> {
        for change in changes {
            if change.value.is_some() || Lookup::new(self).find_record(change.hash, change.key)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tries the changes once more when the dict is full. A single removal goes without a record of
    /// its own, so it needs no space. A power cut before the next flush then shows the key's
    /// flushed value again, or a newer one.
    #[cold]
    fn apply_without_space(&mut self, changes: &[KeyChange<'_>]) -> Result<Option<u64>> {
        let is_removal = matches!(changes, [KeyChange { value: None, .. }]);
        match self.try_apply(changes, self.has_been_flushed() && !is_removal) {
            Ok(version) => Ok(version),
            Err(AllocError::Failed(error)) => Err(error),
            Err(AllocError::Full(why)) => Err(self.full(why)),
        }
    }

    /// Splits buckets until `more` further entries are within the load limit. Stops without an
    /// error if the time is over or the dict is full, since longer buckets work as well.
    #[inline]
    pub(in crate::dict) fn make_room_in_index(&mut self, more: usize) -> Result<()> {
        let map = self.storage.map;
        // At most two splits more than new entries. If earlier calls have left more splits undone,
        // or LEN is wrong, this change does not wait for all of them.
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
                // Later changes do the remaining splits.
                _ if self.limit.spend() => return Ok(()),
                _ => self.0.storage.index().split(self.0.batch, &self.0.limit),
            };
            match made {
                Ok(()) => {}
                // Without another bucket the existing ones become longer.
                Err(AllocError::Full(_)) if count != 0 => return Ok(()),
                Err(AllocError::Full(why)) => return Err(self.full(why)),
                Err(AllocError::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Plans and commits the changes. With `recorded`, each removal writes a record, which a
    /// rebuild after a power cut finds.
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
        // After the commit these are not needed: the slots of removals, and replaced blocks.
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
            // The record is written before the key is looked up: stores do not wait for the
            // prefetched lines, loads do.
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
                // A removal in a transaction, or one that a power cut must not undo, takes a
                // record. Any other one is a single store to the slot.
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
                // A reader of another key with the same high bits rejects the old and the new
                // record.
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
            // A single removal without a record: the store to the slot is what readers see.
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

    /// Returns the error for a full dict, or the system's own error if there is one.
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

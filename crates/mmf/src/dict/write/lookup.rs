//! [`Lookup`]: finds keys and their records under the write lock.
//!
//! The problem: a change needs the slot of its key and the record there, as they will be after the
//! stores that the batch has planned so far. Most lookups find the key in the first line of its
//! bucket, in memory that is not in the cache.
//!
//! The algorithm:
//!
//! 1. Fast path ([`find_fast`](Lookup::find_fast)): compare the slots of the bucket's first line
//!    with the hash in one guarded operation, and validate and copy the matching record's header in
//!    another. Any other case, a planned store to that line included, is a miss.
//! 2. Slow path ([`find_slow`](Lookup::find_slow)): walk all lines with the batch's stores applied,
//!    and compare the key of each record whose slot matches. Return the first empty slot if the key
//!    is absent.
//! 3. A transaction first prefetches the buckets of up to 64 keys, and then their records, so that
//!    the cache misses overlap ([`prefetch`](Lookup::prefetch)).
//!
//! Why it is correct: the caller holds the lock, so no honest process changes the index meanwhile.
//! Words that a hostile peer changes are checked as for a reader without a lock.
//!
//! Cost: two guarded operations on the fast path, two cache misses for a key that is not cached.

use std::ops::{Deref, DerefMut};

use crate::dict::Encoding;
use crate::dict::format::layout::{LINE, at};
use crate::dict::format::record::{RecordHeader, STAMP};
use crate::dict::format::slot::{block_of, tag_in_upper_half};
use crate::dict::store::index::EntryPosition;
use crate::dict::store::records::{HeaderAndKey, keys_equal};
use crate::dict::store::work_limit::WorkLimit;
use crate::dict::write::session::{KeyChange, ReplacedRecord, StoredRecord, WriteSession};
use crate::error::Result;
use crate::mem::FastAccess;

/// Finds keys under the lock.
pub(in crate::dict) struct Lookup<'w, 'a>(&'w mut WriteSession<'a>);

impl<'a> Deref for Lookup<'_, 'a> {
    type Target = WriteSession<'a>;

    #[inline(always)]
    fn deref(&self) -> &WriteSession<'a> {
        self.0
    }
}

impl<'a> DerefMut for Lookup<'_, 'a> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut WriteSession<'a> {
        self.0
    }
}

impl<'w, 'a> Lookup<'w, 'a> {
    #[inline(always)]
    pub(in crate::dict) fn new(writer: &'w mut WriteSession<'a>) -> Self {
        Lookup(writer)
    }

    /// Replaces the contents of `bytes` with a key's value. Returns the value's encoding, or `None`
    /// if the key is absent.
    pub(in crate::dict) fn read(&mut self, hash: u64, key: &str, bytes: &mut Vec<u8>) -> Result<Option<Encoding>> {
        let Some(stored) = self.find_record(hash, key.as_bytes())? else { return Ok(None) };
        bytes.clear();
        self.storage.values().append_value(
            stored.block,
            &stored.head,
            bytes,
            &WorkLimit::new(self.dict.work_deadline()),
        )?;
        let stamp = self.storage.map.word(stored.block + STAMP)?;
        if !self.storage.records().is_valid(stored.block, stamp, &stored.head, key.as_bytes(), bytes) {
            return Err(self.storage.records().checksum_error(stored.block));
        }
        Ok(Some(Encoding::of(stored.head.kind)))
    }

    /// Returns the bytes that a record takes: its block, and the spans of its value.
    pub(in crate::dict) fn size_of(&self, block: usize) -> Result<u64> {
        let head = self.head(block)?;
        let (_, _, size) = self.storage.blocks().block(self.batch, block)?;
        let spans = if head.in_spans {
            head.span_count(self.storage.layout).saturating_mul(self.storage.layout.span_size())
        } else {
            0
        };
        Ok(size.saturating_add(spans) as u64)
    }

    /// Returns the header of the record in a block.
    pub(in crate::dict) fn head(&self, block: usize) -> Result<RecordHeader> {
        let mut copy = HeaderAndKey::new();
        match copy.copy(&self.storage, block, 0)? {
            Some((head, ..)) => Ok(head),
            None => Err(self.storage.records().no_record_error(block)),
        }
    }

    /// Returns the place of a key's entry, and the record there if the key has an entry.
    #[inline(always)]
    pub(in crate::dict) fn find(
        &self,
        hash: u64,
        key: &[u8],
        floor: u64,
        buckets: u64,
    ) -> Result<(EntryPosition, Option<ReplacedRecord>)> {
        match self.storage.map.fast_access().and_then(|map| self.find_fast(map, hash, key, floor, buckets)) {
            Some((slot, old)) => Ok((EntryPosition::Entry(slot), Some(old))),
            None => self.find_slow(hash, key, floor),
        }
    }

    /// Slow path of [`find`](Lookup::find).
    #[inline(never)]
    pub(in crate::dict) fn find_slow(
        &self,
        hash: u64,
        key: &[u8],
        floor: u64,
    ) -> Result<(EntryPosition, Option<ReplacedRecord>)> {
        let mut copy = HeaderAndKey::new();
        let mut old = None;
        let place = self.storage.index().find(self.batch, hash, |block| {
            let Some((head, _, found_key)) = copy.copy(&self.storage, block, key.len())? else { return Ok(false) };
            if head.key_len != key.len() || !keys_equal(found_key, key) {
                return Ok(false);
            }
            old = Some(ReplacedRecord { block, in_spans: head.in_spans, cleared: head.version <= floor });
            Ok(true)
        })?;
        Ok((place, old))
    }

    /// Returns the record of a key, or `None` if the key is absent. Clears the batch.
    pub(in crate::dict) fn find_record(&mut self, hash: u64, key: &[u8]) -> Result<Option<StoredRecord>> {
        self.batch.clear();
        let [_, floor, buckets, _] = self.storage.map.four_words(at::COMMIT)?;
        if buckets == 0 {
            return Ok(None);
        }
        let (_, old) = self.find(hash, key, floor, buckets)?;
        let Some(old) = old.filter(|old| !old.cleared) else { return Ok(None) };
        Ok(Some(StoredRecord { block: old.block, head: self.head(old.block)? }))
    }

    /// Prefetches the buckets of all `changes`, and then the records that their slots lead to.
    pub(in crate::dict) fn prefetch(&self, changes: &[KeyChange<'_>], buckets: u64) {
        let storage = self.storage;
        let Some(map) = storage.map.fast_access() else { return };
        let lines = || {
            changes.iter().filter_map(|change| Some((change, storage.index().line_fast(map, change.hash, buckets)?)))
        };
        lines().for_each(|(_, line)| map.prefetch(line));
        for (change, line) in lines() {
            let slots = map.match_eight(line, !0xff, tag_in_upper_half(change.hash));
            if let Some(slots) = slots.filter(|slots| slots.bits != 0) {
                map.prefetch(block_of(slots.word));
                map.prefetch(block_of(slots.word).wrapping_add(LINE));
            }
        }
    }

    /// Fast path of [`find`](Lookup::find): returns the slot and the record if the bucket's first
    /// line leads to the key's record, and `None` otherwise.
    #[inline(always)]
    pub(in crate::dict) fn find_fast(
        &self,
        map: FastAccess<'_>,
        hash: u64,
        key: &[u8],
        floor: u64,
        buckets: u64,
    ) -> Option<(usize, ReplacedRecord)> {
        self.find_in_line(map, self.storage.index().line_fast(map, hash, buckets)?, hash, key, floor)
    }

    /// Returns what [`find_fast`](Lookup::find_fast) returns, for a bucket whose first line the
    /// caller has computed.
    #[inline(always)]
    pub(in crate::dict) fn find_in_line(
        &self,
        map: FastAccess<'_>,
        line: usize,
        hash: u64,
        key: &[u8],
        floor: u64,
    ) -> Option<(usize, ReplacedRecord)> {
        if self.batch.may_have_in_line(line) {
            return None;
        }
        let slots = map.match_eight(line, !0xff, tag_in_upper_half(hash))?;
        // An empty slot matches a hash whose high bits are 0, and the bytes at offset 0 may look
        // like the record of the empty key.
        if slots.bits == 0 || slots.word == 0 {
            return None;
        }
        let (slot, [stamp, version, what, sum]) =
            self.storage.index().record_in_line(map, line, slots, key, &mut [])?;
        let head = RecordHeader::of(version, what, sum).filter(|head| stamp != 0 && head.key_len == key.len())?;
        Some((slot, ReplacedRecord { block: block_of(slots.word), in_spans: head.in_spans, cleared: version <= floor }))
    }
}

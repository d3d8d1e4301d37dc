//! [`Compaction`]: frees space when a dict is full.
//!
//! The problem: the dict has no free span, but has cleared records, half-empty spans, surplus lines
//! of the index, or records that are kept until the next flush.
//!
//! The algorithm ([`make_space`](Compaction::make_space)) tries these steps in order, and ends
//! after the first that frees something. The caller tries its change again and calls it again if
//! need be.
//!
//! 1. Sweep up to 4096 buckets for cleared records, and free them. SWEEP keeps the next bucket.
//! 2. Put spans that have a free block but are in no list into their lists.
//! 3. If the index has more further lines than its entries need, shorten buckets. This step waits
//!    while records are pending, since a power cut may bring their entries back.
//! 4. Empty a span: move its records into other spans of its class. Of the classes whose other
//!    spans have room, it takes the span with the fewest bytes in use first.
//! 5. Flush, if that frees pending records.
//!
//! To move a record (step 4), copy it to a new block with stamp 0, and with the checksum for the
//! stamp COMMIT + 1. Then a batch stores the previous record, that stamp, the slot and COMMIT, and
//! frees the old block.
//!
//! Why it is correct: each step changes shared memory by batches of its own, so it can stop after
//! any of them. A moved record keeps its version and takes a new stamp, so a reader sees an
//! ordinary change. A damaged record is not moved, since its checksum would be computed anew. After
//! a flush a record with a value in spans is not moved, since the old and the new record would
//! share its spans until the next flush.
//!
//! Why it ends: each call frees something or returns `false`. [`WorkLimit`] stops it between two
//! batches.
//!
//! Cost: proportional to the buckets, or to the spans and the records that are moved. It runs only
//! when a change finds no space.
//!
//! [`WorkLimit`]: crate::dict::store::work_limit::WorkLimit

use std::ops::{Deref, DerefMut};

use crate::dict::format::layout::{at, class, number};
use crate::dict::format::record;
use crate::dict::format::record::{CHECKSUM, HEADER_LEN, PREV, STAMP, VERSION};
use crate::dict::format::slot::{LINE_SLOTS, block_of};
use crate::dict::format::span::SpanState;
use crate::dict::store::bucket_walk::BucketWalk;
use crate::dict::store::index::EntryPosition;
use crate::dict::store::spans::AllocError;
use crate::dict::store::write_batch::WriteBatch;
use crate::dict::write::flush::Flush;
use crate::dict::write::lookup::Lookup;
use crate::dict::write::reclaim::Reclaimer;
use crate::dict::write::session::WriteSession;
use crate::error::Result;

/// The number of buckets that one call of `make_space` sweeps.
const BUCKETS_PER_SWEEP: u64 = 4096;

/// Frees space in a full dict.
pub(in crate::dict) struct Compaction<'w, 'a>(&'w mut WriteSession<'a>);

impl<'a> Deref for Compaction<'_, 'a> {
    type Target = WriteSession<'a>;

    #[inline(always)]
    fn deref(&self) -> &WriteSession<'a> {
        self.0
    }
}

impl<'a> DerefMut for Compaction<'_, 'a> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut WriteSession<'a> {
        self.0
    }
}

impl<'w, 'a> Compaction<'w, 'a> {
    #[inline(always)]
    pub(in crate::dict) fn new(writer: &'w mut WriteSession<'a>) -> Self {
        Compaction(writer)
    }

    /// Frees space by the first of the steps that can. Returns whether it freed any.
    #[cold]
    #[inline(never)]
    pub(in crate::dict) fn make_space(&mut self) -> Result<bool> {
        if self.sweep(BUCKETS_PER_SWEEP)?
            || self.0.storage.blocks().relist_spans(self.0.batch)?
            || self.shorten_buckets()?
            || self.empty_a_span()?
        {
            return Ok(true);
        }
        if Flush::new(self).has_pending()? {
            Flush::new(self).flush()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Frees the cleared records of the next `buckets` buckets. Returns whether a sweep was still
    /// due.
    pub(in crate::dict) fn sweep(&mut self, buckets: u64) -> Result<bool> {
        let (storage, map) = (self.storage, self.storage.map);
        let Some(first) = map.word(at::SWEEP)?.checked_sub(1) else { return Ok(false) };
        let (count, mut left) = storage.index().count_and_most_lines()?;
        let floor = map.word(at::FLOOR)?;
        let end = first.saturating_add(buckets).min(count);
        for bucket in first..end {
            self.mark_unflushed()?;
            let mut words = [0; 8];
            let mut walk = BucketWalk::new(&storage, bucket)?.with_budget(&mut left);
            while let Some(at) = walk.advance(&mut words)? {
                if self.limit.spend() {
                    // The next sweep begins with this bucket.
                    return Ok(true);
                }
                self.batch.clear();
                for (nth, slot) in words[..LINE_SLOTS].iter().enumerate().filter(|(_, slot)| **slot != 0) {
                    let block = block_of(*slot);
                    let head = Lookup::new(self).head(block)?;
                    if head.version <= floor {
                        self.batch.push(at + 8 * nth, 0);
                        Reclaimer::new(self).free(block, head.in_spans, false)?;
                        // To free a value in spans may verify its checksum, which reads it.
                        self.limit.spend_bytes(if head.in_spans { head.value_len } else { 0 });
                    }
                }
                if !self.batch.is_empty() {
                    self.batch.commit(map, storage.layout)?;
                }
            }
            let left = bucket + 1;
            map.put_word(at::SWEEP, if left < count { left + 1 } else { 0 })?;
        }
        if end >= count {
            map.put_word(at::SWEEP, 0)?;
        }
        Ok(true)
    }

    /// Frees further lines of buckets if there are more than one for each seven entries. Returns
    /// whether it freed any. Splits shorten buckets too, but there may be no split for long.
    fn shorten_buckets(&mut self) -> Result<bool> {
        // A record that a power cut brings back needs its place in the index again.
        if Flush::new(self).has_pending()? {
            return Ok(false);
        }
        let (storage, map) = (self.storage, self.storage.map);
        let mut lines = 0_u64;
        for span in 0..storage.spans().spans_used()? {
            let SpanState { class, live, .. } = storage.spans().state(&WriteBatch::new(), span)?;
            lines = lines.saturating_add(if class == class::LINES { live } else { 0 });
        }
        if lines <= map.word(at::LEN)? / LINE_SLOTS as u64 {
            return Ok(false);
        }
        let (count, mut left) = storage.index().count_and_most_lines()?;
        let mut any = false;
        for bucket in 0..count {
            if self.limit.spend() {
                break;
            }
            self.mark_unflushed()?;
            any |= storage.index().shorten(self.0.batch, bucket, &mut left, &self.0.limit)?;
        }
        Ok(any)
    }

    /// Moves the records of a span to other spans of its class, so that the span is free for any
    /// use. Takes the first span that can be emptied, in ascending order of the bytes in use, among
    /// the spans whose records fit the other spans of their class. Returns whether space was freed.
    fn empty_a_span(&mut self) -> Result<bool> {
        let (storage, layout) = (self.storage, self.storage.layout);
        let mut room = [0_u64; class::COUNT];
        let mut spans = Vec::new();
        for span in 0..storage.spans().spans_used()? {
            let SpanState { class: of, live, .. } = storage.spans().state(&WriteBatch::new(), span)?;
            let Some(size) = class::size(of).filter(|_| of <= class::LAST) else { continue };
            let free = ((layout.span_size() / size) as u64).saturating_sub(live);
            let of = number(of);
            room[of] = room[of].saturating_add(free);
            spans.push((live.saturating_mul(size as u64), span, of, live.saturating_add(free)));
        }
        spans.retain(|(.., of, blocks)| room[*of] >= *blocks);
        spans.sort_unstable();
        let had_pending = Flush::new(self).has_pending()?;
        for (_, span, of, _) in spans {
            if self.limit.is_over() {
                return Ok(false);
            }
            if !self.can_be_emptied(span, of as u64)? || !self.move_all(span, of as u64)? {
                continue;
            }
            // In a file that was flushed, the moved records are pending until the next flush.
            let flushes = Flush::new(self).has_pending()?;
            if flushes {
                Flush::new(self).flush()?;
            }
            // Without this condition records would be moved to and fro without a gain.
            if (flushes && had_pending) || storage.spans().state(&WriteBatch::new(), span)?.class != of as u64 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the blocks of a span that have a stamp.
    fn records_in(&self, span: usize, class: u64) -> Result<Vec<usize>> {
        let storage = self.storage;
        let size = class::size(class).unwrap_or(storage.layout.span_size());
        let most = (storage.layout.span_size() / size) as u64;
        let blocks = (0..number(storage.spans().blocks_used(&WriteBatch::new(), span)?.min(most)))
            .map(|nth| storage.layout.span(span) + nth * size);
        let mut records = Vec::new();
        for block in blocks {
            if storage.map.word(block + STAMP)? != 0 {
                records.push(block);
            }
        }
        Ok(records)
    }

    /// Returns whether all records of a span may be moved. In a file that was flushed, a record
    /// with a value in spans may not: two records would share the spans until the next flush.
    fn can_be_emptied(&mut self, span: usize, class: u64) -> Result<bool> {
        if !self.has_been_flushed() {
            return Ok(true);
        }
        self.batch.clear();
        for block in self.records_in(span, class)? {
            if self.limit.spend() {
                return Ok(false);
            }
            let (head, key) = self.storage.records().key_at(block)?;
            if head.in_spans && self.slot_of(record::hash(self.storage.seed, &key), block)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves the records of a span into others. Returns whether it moved any.
    fn move_all(&mut self, span: usize, class: u64) -> Result<bool> {
        let mut moved = false;
        for block in self.records_in(span, class)? {
            if self.limit.spend_bytes(class::size(class).unwrap_or(0)) {
                break;
            }
            moved |= self.move_one(block, class, span)?;
        }
        Ok(moved)
    }

    /// Moves one record out of `span`, in a batch of its own. Returns whether it did.
    fn move_one(&mut self, block: usize, class: u64, span: usize) -> Result<bool> {
        let storage = self.storage;
        let Some(size) = class::size(class) else { return Ok(false) };
        let (head, key) = storage.records().key_at(block)?;
        // A damaged record stays: at its place its checksum shows the damage.
        if !storage.verifier().is_whole(block, size, &head)? {
            return Ok(false);
        }
        let hash = record::hash(self.storage.seed, &key);
        self.mark_unflushed()?;
        self.batch.clear();
        let Some(at) = self.slot_of(hash, block)? else { return Ok(false) };
        let new = match storage.blocks().take(self.batch, class, Some(span)) {
            Ok(new) => new,
            Err(AllocError::Full(_)) => return Ok(false),
            Err(AllocError::Failed(error)) => return Err(error),
        };
        // The block came from a new span, so the move would gain nothing.
        if [at::FREE, at::USED].iter().any(|word| self.batch.lookup(*word).is_some()) {
            return Ok(false);
        }
        storage.map.put_word(new + STAMP, 0)?;
        crate::sys::fence(std::sync::atomic::Ordering::Release);
        let mut bytes = storage.map.read_to_vec(block + VERSION, head.block_len(storage.layout).min(size) - VERSION)?;
        let stamp = self.version()? + 1;
        let sum = head.checksum
            ^ record::location_mix(block, storage.map.word(block + STAMP)?)
            ^ record::location_mix(new, stamp);
        bytes[CHECKSUM - VERSION..HEADER_LEN - VERSION].copy_from_slice(&sum.to_le_bytes());
        storage.map.write_at(new + VERSION, &bytes)?;
        self.batch.push(new + PREV, block as u64);
        self.batch.push(new + STAMP, stamp);
        self.batch.push(at, crate::dict::format::slot::slot_for(hash, new));
        self.batch.push(at::COMMIT, stamp);
        if self.has_been_flushed() {
            Reclaimer::new(self).free(block, false, false)?;
        } else {
            // The new record has taken over the spans of the value.
            self.batch.push(block + STAMP, 0);
            storage.blocks().give(self.batch, block)?;
        }
        self.batch.commit(storage.map, storage.layout)?;
        Ok(true)
    }

    /// Returns the slot that leads to a block.
    fn slot_of(&self, hash: u64, block: usize) -> Result<Option<usize>> {
        match self.storage.index().find(self.batch, hash, |candidate| Ok(candidate == block))? {
            EntryPosition::Entry(at) => Ok(Some(at)),
            EntryPosition::Empty(_) | EntryPosition::NewLineAfter(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::Dict;
    use crate::error::ErrorKind;

    #[test]
    fn what_is_damaged_is_not_moved_to_where_nobody_looks() {
        let path = std::env::temp_dir().join(format!("mmf moved {}", std::process::id()));
        let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
        // Blocks of 64 bytes: one span full, and some more. After the removals the first span has
        // room for the latter.
        for nth in 0..84 {
            dict.set_bytes(&format!("{nth:04}"), &[1; 20]).unwrap();
        }
        for nth in 0..40 {
            dict.remove(&format!("{nth:04}")).unwrap();
        }
        drop(dict);
        let dict = Dict::open(path.as_path()).unwrap();
        let storage = dict.storage();
        let hash = dict.hash("0080", "read").unwrap();
        let is_it = |block| Ok(storage.records().key_at(block)?.1 == b"0080");
        let EntryPosition::Entry(slot) = storage.index().find(&WriteBatch::new(), hash, is_it).unwrap() else {
            panic!()
        };
        let block = block_of(storage.map.word(slot).unwrap());
        storage.map.put_word(block + VERSION, 1 << 60).unwrap();
        let mut batch = WriteBatch::new();
        let mut writer = dict.writer(&mut batch, "move").unwrap();
        writer.mark_unflushed().unwrap();
        Compaction::new(&mut writer).empty_a_span().unwrap();
        drop(writer);
        let error = dict.get_bytes("0080").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
        assert_eq!(dict.get_bytes("0083").unwrap().unwrap(), [1; 20]);
        drop(dict);
        std::fs::remove_file(&path).unwrap();
    }
}

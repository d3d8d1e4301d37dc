//! [`Index`]: finds a key's record. It is a hash table that grows by one bucket at a time (linear
//! hashing).
//!
//! The problem: readers without a lock search the index while a writer inserts entries, splits
//! buckets and removes lines. A reader must not miss a key that is present.
//!
//! The layout: a bucket is a chain of lines of 64 bytes.
//!
//! ```text
//! line, 8 words:  slot 0 .. slot 6, offset of the next line or 0
//! slot:           bits 0..40 an eighth of the record's offset, 40..64 high bits of the key's hash;
//!                 0 is empty
//! BUCKETS:        bits 0..40 the number of buckets, 40..64 how often lines were removed
//! directory:      a word per span of buckets: the span's number, stored + 1
//! ```
//!
//! Bucket `b` is number `b mod (span / 64)` in the span that word `b / (span / 64)` of the
//! directory names. Further lines of a bucket are blocks of a class of their own.
//!
//! The algorithm:
//!
//! 1. To find a key, choose the bucket by the low 32 bits of its hash. Visit its lines. Follow each
//!    slot whose high bits match, and compare the key.
//! 2. To insert, use the first empty slot of the bucket. If there is none, append a line.
//! 3. When there are more than 24 entries to 7 buckets, split one bucket: store the entries that
//!    move in the new bucket; increment the count in BUCKETS; store 0 in their old slots.
//! 4. To shorten a bucket, store the entries of its last line in empty slots of earlier lines;
//!    increment the upper bits of BUCKETS; unlink the line and free it.
//!
//! Why it is correct for a reader without a lock: in steps 3 and 4 an entry is in both places until
//! BUCKETS changes. A reader that finds nothing loads BUCKETS again, and starts again if it has
//! changed. Each of these steps is one write batch, so the next writer completes a dead writer's
//! step. A replay begins with the store of BUCKETS if memory has that already.
//!
//! Why it ends with a hostile peer: [`BucketWalk`] bounds each walk, and each offset is checked to
//! be a line in a span.
//!
//! Cost: at the load limit a bucket has 3.4 entries on average, so nearly all keys are found with
//! one line and one record, two cache misses.

use std::mem::MaybeUninit;
use std::ops::Deref;

use crate::dict::format::layout::{LINE, at, class, number};
use crate::dict::format::record;
use crate::dict::format::record::{HEADER_LEN, STAMP, VERSION};
use crate::dict::format::slot::{LINE_SLOTS, Line, NEXT_LINE, block_of, bucket, bucket_count, matching_slots};
use crate::dict::store::bucket_walk::BucketWalk;
use crate::dict::store::spans::AllocError;
use crate::dict::store::storage::Storage;
use crate::dict::store::work_limit::WorkLimit;
use crate::dict::store::write_batch::WriteBatch;
use crate::error::Result;
use crate::mem::FastAccess;
use crate::sys::guard::Matches;

/// The number of buckets of a new index, unless a span has room for fewer.
pub(in crate::dict) const INITIAL_BUCKETS: u64 = 64;
/// The load limit: the index gets another bucket when there are more than 24 entries to 7 buckets.
const LOAD_ENTRIES: u64 = 24;
const LOAD_BUCKETS: u64 = 7;
/// The number of lines that one bucket may have. More are damage.
pub(in crate::dict) const MAX_BUCKET_LINES: usize = 1 << 12;

/// Returns the least number of buckets that hold `entries` entries within the load limit.
pub(in crate::dict) fn buckets_for(entries: usize) -> u64 {
    (entries as u64).saturating_mul(LOAD_BUCKETS).div_ceil(LOAD_ENTRIES)
}

/// The place of a key's entry, or the place for a new one.
#[derive(Clone, Copy, Debug)]
pub(in crate::dict) enum EntryPosition {
    /// The offset of the slot that has the key.
    Entry(usize),
    /// The key is absent; the offset of the bucket's first empty slot.
    Empty(usize),
    /// The key is absent and all lines are full; the offset of the last line.
    NewLineAfter(usize),
}

/// The index.
#[derive(Clone, Copy)]
pub(in crate::dict) struct Index<'s>(&'s Storage<'s>);

impl<'s> Deref for Index<'s> {
    type Target = Storage<'s>;

    #[inline(always)]
    fn deref(&self) -> &Storage<'s> {
        self.0
    }
}

impl<'s> Index<'s> {
    #[inline(always)]
    pub(in crate::dict) fn new(storage: &'s Storage<'s>) -> Self {
        Index(storage)
    }

    /// Returns the first line of a hash's bucket, or `None` for every case that the slow path must
    /// handle.
    #[inline(always)]
    pub(in crate::dict) fn line_fast(self, map: FastAccess<'_>, hash: u64, buckets: u64) -> Option<usize> {
        let count = bucket_count(buckets);
        if count == 0 {
            return None;
        }
        let bucket = bucket(hash, count);
        let shift = self.layout.lines_shift();
        let span = number(map.word(self.layout.directory + 8 * number(bucket >> shift))?).wrapping_sub(1);
        let line = number(bucket & ((1 << shift) - 1)) * LINE;
        (span < self.layout.spans).then(|| self.layout.span(span) + line)
    }

    /// Reads the record of the first slot among a line's matches, in one validated read.
    ///
    /// Returns the slot's offset, and the stamp, version, kind-and-lengths word and checksum of the
    /// record. Fills `value` with the bytes after the key. Returns `None` if the record has another
    /// key, or if the slot or the stamp has changed after the copy.
    #[inline(always)]
    pub(in crate::dict) fn record_in_line(
        self,
        map: FastAccess<'_>,
        line: usize,
        slots: Matches,
        key: &[u8],
        value: &mut [MaybeUninit<u8>],
    ) -> Option<(usize, [u64; 4])> {
        const { assert!(HEADER_LEN == VERSION + 24 && at::SUSPECT == at::COMMIT + 24) };
        let slot = line + 8 * slots.bits.trailing_zeros() as usize;
        // For a forged slot the sums may wrap. `read_validated` checks the stamp's offset.
        let block = block_of(slots.word);
        let (stamp, head) = (block.wrapping_add(STAMP), block.wrapping_add(VERSION));
        Some((slot, map.read_validated((slot, slots.word), stamp, head, key, value)?))
    }

    /// Returns the offset of a bucket's first line.
    #[inline]
    pub(in crate::dict) fn line(self, bucket: u64) -> Result<usize> {
        let shift = self.layout.lines_shift();
        let nth = number(bucket >> shift);
        if nth < self.layout.spans {
            if let Some(span) = self.spans().span_number(self.map.word(self.layout.directory + 8 * nth)?)? {
                return Ok(self.layout.span(span) + number(bucket & ((1 << shift) - 1)) * LINE);
            }
        }
        Err(self.damaged(format!("no part of its index has bucket {bucket}")))
    }

    /// Copies the words of a line as they will be once `batch` is committed.
    #[inline(always)]
    pub(in crate::dict) fn line_with_batch(self, batch: &WriteBatch, line: usize, words: &mut Line) -> Result<()> {
        self.map.read_words(line, words)?;
        if batch.may_have_in_line(line) {
            for (nth, word) in words.iter_mut().enumerate() {
                if let Some(planned) = batch.lookup(line + 8 * nth) {
                    *word = planned;
                }
            }
        }
        Ok(())
    }

    /// Decodes and checks the word that leads to the next line. Returns `None` for 0.
    #[inline]
    pub(in crate::dict) fn next_line(self, word: u64) -> Result<Option<usize>> {
        if word == 0 {
            return Ok(None);
        }
        let line = number(word);
        if self.layout.span_of(line).is_none() || (line - self.layout.first_span) % LINE != 0 {
            return Err(
                self.damaged(format!("a bucket leads to a line at {line}, which is outside the spans or not aligned"))
            );
        }
        Ok(Some(line))
    }

    /// Returns the slot whose record `matches`, or the place for a new entry. The caller holds the
    /// lock.
    #[inline(always)]
    pub(in crate::dict) fn find(
        self,
        batch: &WriteBatch,
        hash: u64,
        mut matches: impl FnMut(usize) -> Result<bool>,
    ) -> Result<EntryPosition> {
        let count = bucket_count(self.map.word(at::BUCKETS)?);
        let mut words = [0; 8];
        let mut walk = BucketWalk::new(&self, bucket(hash, count))?.with_batch(batch);
        let (mut vacancy, mut last) = (None, 0);
        while let Some(line) = walk.advance(&mut words)? {
            let mut candidates = matching_slots(&words, hash);
            while candidates != 0 {
                let nth = candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                if matches(block_of(words[nth]))? {
                    return Ok(EntryPosition::Entry(line + 8 * nth));
                }
            }
            if vacancy.is_none() {
                vacancy = words[..LINE_SLOTS].iter().position(|slot| *slot == 0).map(|nth| line + 8 * nth);
            }
            last = line;
        }
        Ok(vacancy.map_or(EntryPosition::NewLineAfter(last), EntryPosition::Empty))
    }

    /// Stores an entry at `place`. If it needs a new line, the store that links the line comes
    /// after the line's words.
    #[inline]
    pub(in crate::dict) fn put_entry(
        self,
        batch: &mut WriteBatch,
        place: EntryPosition,
        slot: u64,
    ) -> Result<(), AllocError> {
        match place {
            EntryPosition::Entry(at) | EntryPosition::Empty(at) => batch.push(at, slot),
            EntryPosition::NewLineAfter(last) => {
                let line = self.new_line(batch, &[slot])?;
                batch.push(last + NEXT_LINE, line as u64);
            }
        }
        Ok(())
    }

    /// Takes a block for a further line, and stores up to seven entries in it.
    fn new_line(self, batch: &mut WriteBatch, entries: &[u64]) -> Result<usize, AllocError> {
        let line = self.blocks().take(batch, class::LINES, None)?;
        for nth in 0..8 {
            batch.push(line + 8 * nth, entries.get(nth).copied().unwrap_or(0));
        }
        Ok(line)
    }

    /// Creates the first buckets, in a batch of its own.
    pub(in crate::dict) fn begin_index(self, batch: &mut WriteBatch) -> Result<(), AllocError> {
        batch.clear();
        let span = self.take_index_span(batch, 0)?;
        let first = INITIAL_BUCKETS.min(1 << self.layout.lines_shift());
        self.map.fill(self.layout.span(span)..self.layout.span(span) + number(first) * LINE, 0)?;
        batch.push(at::BUCKETS, first);
        Ok(batch.commit(self.map, self.layout)?)
    }

    /// Takes a span for buckets, and stores it as the directory's word `nth`.
    fn take_index_span(self, batch: &mut WriteBatch, nth: usize) -> Result<usize, AllocError> {
        let span = self.spans().take_span(batch)?;
        batch.push(self.layout.entry(span), class::INDEX | 1 << 8);
        batch.push(self.layout.directory + 8 * nth, span as u64 + 1);
        Ok(span)
    }

    /// Returns whether `entries` entries exceed the load limit of `count` buckets, and another
    /// bucket is possible.
    #[inline]
    pub(in crate::dict) fn is_crowded(count: u64, entries: u64) -> bool {
        entries > count.saturating_mul(LOAD_ENTRIES) / LOAD_BUCKETS && count < 1 << 32
    }

    /// Splits the next bucket, in a batch of its own. Leaves it unsplit if the time is over.
    pub(in crate::dict) fn split(self, batch: &mut WriteBatch, limit: &WorkLimit) -> Result<(), AllocError> {
        batch.clear();
        let word = self.map.word(at::BUCKETS)?;
        let count = bucket_count(word);
        // The bucket that holds the entries of the new one so far.
        let from = bucket(count, count);
        let (mut go, mut lines) = (Vec::new(), 0);
        let mut words = [0; 8];
        let mut walk = BucketWalk::new(&self, from)?.with_batch(batch);
        while let Some(line) = walk.advance(&mut words)? {
            lines += 1;
            for (nth, slot) in words[..LINE_SLOTS].iter().enumerate().filter(|(_, slot)| **slot != 0) {
                if limit.spend() {
                    return Ok(());
                }
                let hash = self.hash_at(block_of(*slot))?;
                if bucket(hash, count + 1) == count {
                    go.push((line + 8 * nth, *slot));
                }
            }
        }
        let shift = self.layout.lines_shift();
        if count & ((1 << shift) - 1) == 0 {
            if number(count >> shift) >= self.layout.spans {
                return Err(AllocError::Full(None));
            }
            self.take_index_span(batch, number(count >> shift))?;
        }
        let new = match self.line_of_new_span(batch, count)? {
            Some(line) => line,
            None => self.line(count)?,
        };
        let entries: Vec<u64> = go.iter().map(|(_, slot)| *slot).collect();
        let mut more = entries.chunks(LINE_SLOTS).skip(1).rev();
        // From the last line to the first, since each line needs the offset of the next.
        let mut next = 0;
        for part in &mut more {
            let line = self.new_line(batch, part)?;
            batch.push(line + NEXT_LINE, next);
            next = line as u64;
        }
        for nth in 0..LINE_SLOTS {
            batch.push(new + 8 * nth, entries.get(nth).copied().unwrap_or(0));
        }
        batch.push(new + NEXT_LINE, next);
        batch.push(at::BUCKETS, word + 1);
        for (at, _) in &go {
            batch.push(*at, 0);
        }
        batch.commit(self.map, self.layout)?;
        if lines > 1 {
            self.shorten(batch, from, &mut self.most_lines()?, limit)?;
        }
        Ok(())
    }

    /// Moves the entries of a bucket's last lines into empty slots of earlier lines, and frees the
    /// emptied lines, each in a batch of its own. Returns whether it freed a line.
    ///
    /// A reader that misses an entry meanwhile sees that BUCKETS has changed, and starts again.
    /// `left` is the number of lines that the operation may still visit. If the time is over, the
    /// call stops between two batches.
    pub(in crate::dict) fn shorten(
        self,
        batch: &mut WriteBatch,
        bucket: u64,
        left: &mut usize,
        limit: &WorkLimit,
    ) -> Result<bool> {
        batch.clear();
        let (mut lines, mut holes, mut entries) = (Vec::new(), Vec::new(), 0);
        let mut words = [0; 8];
        let mut walk = BucketWalk::new(&self, bucket)?.with_batch(batch).with_budget(left);
        while let Some(line) = walk.advance(&mut words)? {
            if limit.spend() {
                return Ok(false);
            }
            lines.push((line, words));
            for (nth, slot) in words[..LINE_SLOTS].iter().enumerate() {
                if *slot == 0 { holes.push(line + 8 * nth) } else { entries += 1 }
            }
        }
        let mut holes = holes.into_iter();
        let mut any = false;
        while lines.len() > 1 && entries <= LINE_SLOTS * (lines.len() - 1) && !limit.spend() {
            let (Some((last, words)), Some((before, _))) = (lines.pop(), lines.last()) else { break };
            batch.clear();
            // The condition of the loop leaves an empty slot before this line for each entry.
            for (slot, hole) in words[..LINE_SLOTS].iter().filter(|slot| **slot != 0).zip(&mut holes) {
                batch.push(hole, *slot);
            }
            batch.push(at::BUCKETS, self.map.word(at::BUCKETS)?.wrapping_add(1 << 40));
            batch.push(before + NEXT_LINE, 0);
            self.blocks().give(batch, last)?;
            batch.commit(self.map, self.layout)?;
            any = true;
        }
        Ok(any)
    }

    /// Returns the number of lines that all spans ever taken can hold. No index has more.
    pub(in crate::dict) fn most_lines(self) -> Result<usize> {
        Ok(self.spans().spans_used()? << self.layout.lines_shift())
    }

    /// Returns the number of buckets, and the number of lines that the index can have. More buckets
    /// than lines are damage, since each bucket has a line of its own.
    pub(in crate::dict) fn count_and_most_lines(self) -> Result<(u64, usize)> {
        let count = bucket_count(self.map.word(at::BUCKETS)?);
        let most = self.most_lines()?;
        if count > most as u64 {
            return Err(self.damaged(format!("its index claims {count} buckets; there is room for {most}")));
        }
        Ok((count, most))
    }

    /// Returns the offset of a bucket's first line if this batch takes the bucket's span.
    fn line_of_new_span(self, batch: &WriteBatch, bucket: u64) -> Result<Option<usize>> {
        let shift = self.layout.lines_shift();
        let nth = number(bucket >> shift);
        let Some(word) = batch.lookup(self.layout.directory + 8 * nth) else { return Ok(None) };
        let Some(span) = self.spans().span_number(word)? else { return Ok(None) };
        Ok(Some(self.layout.span(span) + number(bucket & ((1 << shift) - 1)) * LINE))
    }

    /// Returns the hash of the key in a block. The caller holds the lock.
    pub(in crate::dict) fn hash_at(self, block: usize) -> Result<u64> {
        let (_, key) = self.records().key_at(block)?;
        Ok(record::hash(self.seed, &key))
    }
}

//! Where a key's record is: buckets of seven slots, split one by one as entries come (linear hashing).
//!
//! A slot is a word: bits 0..40 an eighth of the record's offset, 40..64 the high bits of the key's hash; 0 is empty. The eighth
//! word of a bucket leads to a line that continues it. Bucket `b` stands in the span that the directory names for it.
//!
//! The word of the count has the count in bits 0..40, and above it how often lines were taken out of a bucket. A reader that
//! looks while a bucket is split finds what it looks for: what moves is in its new bucket before the count says so, and
//! leaves its old one after; what moves up in its bucket is there twice before the word changes again and the line it
//! came from is taken out. Who finds nothing looks at the word again.

use super::allocator::{AllocError, Storage};
use super::layout::{LINE, at, class, number};
use super::record;
use super::redo_log::WriteBatch;
use super::work_limit::WorkLimit;
use crate::error::Result;

/// Slots of a line.
pub(super) const LINE_SLOTS: usize = 7;
/// The word of a line that leads to the next.
pub(super) const NEXT_LINE: usize = 8 * LINE_SLOTS;
/// How many buckets an index begins with.
pub(super) const INITIAL_BUCKETS: u64 = 64;
/// The load factor: more than 24 entries to 7 buckets, on average, want another bucket.
const LOAD_ENTRIES: u64 = 24;
const LOAD_BUCKETS: u64 = 7;
/// Lines of one bucket; more are a circle.
pub(super) const MAX_BUCKET_LINES: usize = 1 << 12;

/// The least number of buckets that so many entries do not crowd.
pub(super) fn buckets_for(entries: usize) -> u64 {
    (entries as u64).saturating_mul(LOAD_BUCKETS).div_ceil(LOAD_ENTRIES)
}

#[inline]
pub(super) fn tag(hash: u64) -> u64 {
    hash >> 40
}

/// The same where a slot has it: in the upper half of a word.
#[inline]
pub(super) fn tag_in_upper_half(hash: u64) -> u32 {
    (hash >> 32) as u32 & !0xff
}

#[inline]
pub(super) fn slot_for(hash: u64, block: usize) -> u64 {
    tag(hash) << 40 | (block as u64) >> 3
}

#[inline]
pub(super) fn block_of(slot: u64) -> usize {
    number((slot & ((1 << 40) - 1)) << 3)
}

/// The bucket of a hash among `count`.
#[inline]
pub(super) fn bucket(hash: u64, count: u64) -> u64 {
    let low = hash & 0xffff_ffff;
    // One less than a power of two, as large as the count at least; of a single bucket, 1 does as well as 0.
    let mask = u64::MAX >> (count.wrapping_sub(1) | 1).leading_zeros();
    let bucket = low & mask;
    if bucket < count { bucket } else { bucket & (mask >> 1) }
}

pub(super) type Line = [u64; 8];

/// The count of buckets in its word.
#[inline]
pub(super) fn bucket_count(word: u64) -> u64 {
    word & ((1 << 40) - 1)
}

/// A bit for each slot of a line that bears a hash's tag. Which it is, no processor foresees, so nothing branches on it.
#[inline(always)]
pub(super) fn matching_slots(words: &Line, hash: u64) -> u32 {
    let mut bits = 0;
    for (nth, slot) in words[..LINE_SLOTS].iter().enumerate() {
        bits |= u32::from((*slot >> 40 == tag(hash)) & (*slot != 0)) << nth;
    }
    bits
}

/// Where a key's entry is, or may go.
#[derive(Clone, Copy, Debug)]
pub(super) enum EntryPosition {
    /// The slot that has it.
    Entry(usize),
    /// An empty slot.
    Empty(usize),
    /// All lines are full; the last is this.
    NewLineAfter(usize),
}

impl Storage<'_> {
    /// Where a bucket begins.
    #[inline]
    pub(super) fn line(&self, bucket: u64) -> Result<usize> {
        let shift = self.layout.lines_shift();
        let nth = number(bucket >> shift);
        if nth < self.layout.spans {
            if let Some(span) = self.span_number(self.map.word(self.layout.directory + 8 * nth)?)? {
                return Ok(self.layout.span(span) + number(bucket & ((1 << shift) - 1)) * LINE);
            }
        }
        Err(self.damaged(format!("no part of its index has bucket {bucket}")))
    }

    /// The words of a line as they will be.
    #[inline(always)]
    fn line_with_batch(&self, batch: &WriteBatch, line: usize, words: &mut Line) -> Result<()> {
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

    /// The line that continues one, checked.
    #[inline]
    pub(super) fn next_line(&self, word: u64) -> Result<Option<usize>> {
        if word == 0 {
            return Ok(None);
        }
        let line = number(word);
        if self.layout.span_of(line).is_none() || (line - self.layout.first_span) % LINE != 0 {
            return Err(self.damaged(format!("a bucket goes on at {line}, where nothing is")));
        }
        Ok(Some(line))
    }

    /// Goes through the lines of a bucket, as they will be, until `visit` gives something.
    fn walk<T>(
        &self,
        batch: &WriteBatch,
        bucket: u64,
        mut visit: impl FnMut(usize, &Line) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut line = self.line(bucket)?;
        let mut words = [0; 8];
        for _ in 0..MAX_BUCKET_LINES {
            self.line_with_batch(batch, line, &mut words)?;
            if let Some(found) = visit(line, &words)? {
                return Ok(Some(found));
            }
            match self.next_line(words[LINE_SLOTS])? {
                Some(next) => line = next,
                None => return Ok(None),
            }
        }
        Err(self.damaged(format!("bucket {bucket} has no end")))
    }

    /// The slot whose entry `matches`, or where one may go. The caller has the lock.
    #[inline(always)]
    pub(super) fn find(
        &self,
        batch: &WriteBatch,
        hash: u64,
        mut matches: impl FnMut(usize) -> Result<bool>,
    ) -> Result<EntryPosition> {
        let count = bucket_count(self.map.word(at::BUCKETS)?);
        let mut line = self.line(bucket(hash, count))?;
        let mut vacancy = None;
        let mut words = [0; 8];
        for _ in 0..MAX_BUCKET_LINES {
            self.line_with_batch(batch, line, &mut words)?;
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
            match self.next_line(words[LINE_SLOTS])? {
                Some(next) => line = next,
                None => return Ok(vacancy.map_or(EntryPosition::NewLineAfter(line), EntryPosition::Empty)),
            }
        }
        Err(self.damaged("a bucket has no end"))
    }

    /// Puts an entry where there is room for it; the stores that link it are the last of those made here.
    #[inline]
    pub(super) fn put_entry(&self, batch: &mut WriteBatch, place: EntryPosition, slot: u64) -> Result<(), AllocError> {
        match place {
            EntryPosition::Entry(at) | EntryPosition::Empty(at) => batch.push(at, slot),
            EntryPosition::NewLineAfter(last) => {
                let line = self.new_line(batch, &[slot])?;
                batch.push(last + NEXT_LINE, line as u64);
            }
        }
        Ok(())
    }

    /// A line that continues another, with these entries, seven at the most.
    fn new_line(&self, batch: &mut WriteBatch, entries: &[u64]) -> Result<usize, AllocError> {
        let line = self.take(batch, class::LINES, None)?;
        for nth in 0..8 {
            batch.push(line + 8 * nth, entries.get(nth).copied().unwrap_or(0));
        }
        Ok(line)
    }

    /// Makes the first buckets, in a batch of its own.
    pub(super) fn begin_index(&self, batch: &mut WriteBatch) -> Result<(), AllocError> {
        batch.clear();
        let span = self.take_index_span(batch, 0)?;
        let first = INITIAL_BUCKETS.min(1 << self.layout.lines_shift());
        self.map.fill(self.layout.span(span)..self.layout.span(span) + number(first) * LINE, 0)?;
        batch.push(at::BUCKETS, first);
        Ok(batch.commit(self.map, self.layout)?)
    }

    fn take_index_span(&self, batch: &mut WriteBatch, nth: usize) -> Result<usize, AllocError> {
        let span = self.take_span(batch)?;
        batch.push(self.layout.entry(span), class::INDEX | 1 << 8);
        batch.push(self.layout.directory + 8 * nth, span as u64 + 1);
        Ok(span)
    }

    /// Whether so many entries want another bucket.
    #[inline]
    pub(super) fn is_crowded(count: u64, entries: u64) -> bool {
        entries > count.saturating_mul(LOAD_ENTRIES) / LOAD_BUCKETS && count < 1 << 32
    }

    /// Splits the next bucket, in a batch of its own; or leaves it as it is, if the time is over.
    pub(super) fn split(&self, batch: &mut WriteBatch, limit: &WorkLimit) -> Result<(), AllocError> {
        batch.clear();
        let word = self.map.word(at::BUCKETS)?;
        let count = bucket_count(word);
        // The bucket whose entries the new one shares.
        let from = bucket(count, count);
        let (mut go, mut lines) = (Vec::new(), 0);
        let over = self.walk(batch, from, |line, words| {
            lines += 1;
            for (nth, slot) in words[..LINE_SLOTS].iter().enumerate().filter(|(_, slot)| **slot != 0) {
                if limit.spend() {
                    return Ok(Some(()));
                }
                let hash = self.hash_at(block_of(*slot))?;
                if bucket(hash, count + 1) == count {
                    go.push((line + 8 * nth, *slot));
                }
            }
            Ok(None)
        })?;
        if over.is_some() {
            return Ok(());
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
        // From the last line to the first, since each leads to the next.
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

    /// Moves entries of a bucket up, and gives back the lines that then have none, each in a batch
    /// of its own; whether there were any. Readers that miss an entry meanwhile see by the word of
    /// the count that they have to look again. `left` is how many lines may still be looked at. It
    /// ends with any of them if the time is over.
    pub(super) fn shorten(
        &self,
        batch: &mut WriteBatch,
        bucket: u64,
        left: &mut usize,
        limit: &WorkLimit,
    ) -> Result<bool> {
        batch.clear();
        let (mut lines, mut holes, mut entries) = (Vec::new(), Vec::new(), 0);
        let over = self.walk(batch, bucket, |line, words| {
            self.spend_line(left)?;
            if limit.spend() {
                return Ok(Some(()));
            }
            lines.push((line, *words));
            for (nth, slot) in words[..LINE_SLOTS].iter().enumerate() {
                if *slot == 0 { holes.push(line + 8 * nth) } else { entries += 1 }
            }
            Ok(None)
        })?;
        if over.is_some() {
            return Ok(false);
        }
        let mut holes = holes.into_iter();
        let mut any = false;
        while lines.len() > 1 && entries <= LINE_SLOTS * (lines.len() - 1) && !limit.spend() {
            let (Some((last, words)), Some((before, _))) = (lines.pop(), lines.last()) else { break };
            batch.clear();
            // There is a hole for each before this line.
            for (slot, hole) in words[..LINE_SLOTS].iter().filter(|slot| **slot != 0).zip(&mut holes) {
                batch.push(hole, *slot);
            }
            batch.push(at::BUCKETS, self.map.word(at::BUCKETS)?.wrapping_add(1 << 40));
            batch.push(before + NEXT_LINE, 0);
            self.give(batch, last)?;
            batch.commit(self.map, self.layout)?;
            any = true;
        }
        Ok(any)
    }

    /// How many lines the spans hold that were ever taken. No index has more.
    pub(super) fn most_lines(&self) -> Result<usize> {
        Ok(self.spans_used()? << self.layout.lines_shift())
    }

    /// How many spans were ever taken, from the first on.
    pub(super) fn spans_used(&self) -> Result<usize> {
        Ok(number(self.map.word(at::USED)?).min(self.layout.spans))
    }

    /// The count of buckets, each of which has a line of its own, and how many lines there may be
    /// in all.
    pub(super) fn count_and_most_lines(&self) -> Result<(u64, usize)> {
        let count = bucket_count(self.map.word(at::BUCKETS)?);
        let most = self.most_lines()?;
        if count > most as u64 {
            return Err(self.damaged(format!("its index claims {count} buckets, but there is room for {most}")));
        }
        Ok((count, most))
    }

    /// Who looks through buckets looks at each line once: what leads to the same again and again is damage, or would take for ever.
    pub(super) fn spend_line(&self, left: &mut usize) -> Result<()> {
        *left = left.checked_sub(1).ok_or_else(|| self.damaged("its index has more lines than there is room for"))?;
        Ok(())
    }

    /// Where a bucket begins whose span this batch takes.
    fn line_of_new_span(&self, batch: &WriteBatch, bucket: u64) -> Result<Option<usize>> {
        let shift = self.layout.lines_shift();
        let nth = number(bucket >> shift);
        let Some(word) = batch.lookup(self.layout.directory + 8 * nth) else { return Ok(None) };
        let Some(span) = self.span_number(word)? else { return Ok(None) };
        Ok(Some(self.layout.span(span) + number(bucket & ((1 << shift) - 1)) * LINE))
    }

    /// The hash of the key in a block. The caller has the lock.
    pub(super) fn hash_at(&self, block: usize) -> Result<u64> {
        let (_, key) = self.key_at(block)?;
        Ok(record::hash(self.seed, &key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_moves_entries_to_the_new_bucket_alone() {
        for count in 1..2000_u64 {
            let from = bucket(count, count);
            for hash in (0..5000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                let (before, after) = (bucket(hash, count), bucket(hash, count + 1));
                assert!(before < count && after <= count);
                assert!(before == after || (before == from && after == count), "{hash} {count}");
            }
        }
    }
}

//! The index of a rebuilt dict, and the records that the index led to before a repair.

use super::{Rebuild, SelectedRecords, SpanUse};
use crate::dict::format::layout::{LINE, at, class, number};
use crate::dict::format::slot::{LINE_SLOTS, NEXT_LINE, block_of, bucket, bucket_count, slot_for, tag};
use crate::dict::format::span::SpanState;
use crate::dict::store::bucket_walk::BucketWalk;
use crate::dict::store::index::{INITIAL_BUCKETS, MAX_BUCKET_LINES, buckets_for};
use crate::error::Result;

impl Rebuild<'_> {
    /// Returns the sorted blocks of `records` that the index leads to, each from the bucket of its
    /// key.
    pub(super) fn indexed_blocks(&self, records: &mut [(u64, usize)]) -> Vec<usize> {
        records.sort_unstable_by_key(|(_, block)| *block);
        let mut led = vec![false; records.len()];
        let Ok(count) = self.map.word(at::BUCKETS).map(bucket_count) else { return Vec::new() };
        let most = self.uses.len() << self.layout.lines_shift();
        // Room for 16 cycles of the largest length beyond the valid lines.
        let mut left = most + 16 * MAX_BUCKET_LINES;
        for nth in 0..if number(count) > most { 0 } else { count } {
            let Ok(walk) = BucketWalk::new(&self.storage, nth) else { continue };
            let mut words = [0; 8];
            let mut walk = walk.with_budget(&mut left);
            // Damage ends the walk of this bucket only.
            while let Ok(Some(_)) = walk.advance(&mut words) {
                for slot in words[..LINE_SLOTS].iter().filter(|slot| **slot != 0) {
                    let Ok(place) = records.binary_search_by_key(&block_of(*slot), |(_, block)| *block) else {
                        continue;
                    };
                    let hash = records[place].0;
                    led[place] |= tag(hash) == slot >> 40 && bucket(hash, count) == nth;
                }
            }
        }
        records.iter().zip(led).filter(|(_, led)| *led).map(|((_, block), _)| *block).collect()
    }

    /// Returns the number of buckets for an index of these entries, in the spans that neither they
    /// nor the parts of their values use. Returns `None` if there is no room.
    pub(super) fn buckets_for(&self, selection: &SelectedRecords, parts: &[Vec<usize>]) -> Option<u64> {
        let mut has_records = vec![false; self.layout.spans];
        for span in selection.entries.iter().filter_map(|(_, block)| self.layout.span_of(*block)) {
            has_records[span] = true;
        }
        let taken = has_records.iter().filter(|has| **has).count() + parts.iter().map(Vec::len).sum::<usize>();
        let free = self.layout.spans.saturating_sub(taken) as u64;
        let a_span = 1 << self.layout.lines_shift();
        // The number that the entries would have caused if they had been set one by one.
        let wanted = buckets_for(selection.entries.len()).max(INITIAL_BUCKETS.min(a_span));
        let mut here = Vec::new();
        (1..=wanted.div_ceil(a_span)).rev().find_map(|spans| {
            let count = wanted.min(spans * a_span);
            here.clear();
            here.resize(number(count), 0_usize);
            for (hash, _) in &selection.entries {
                here[number(bucket(*hash, count))] += 1;
            }
            let more: usize = here.iter().map(|entries| entries.saturating_sub(1) / LINE_SLOTS).sum();
            (spans + (more as u64).div_ceil(a_span) <= free).then_some(count)
        })
    }

    /// Writes an index of these entries to free spans.
    pub(super) fn rebuild_index(&mut self, entries: &mut [(u64, usize)], count: u64) -> Result<()> {
        let free: Vec<usize> = (0..self.layout.spans).filter(|span| self.is_free(*span)).collect();
        let a_span = 1_u64 << self.layout.lines_shift();
        entries.sort_unstable_by_key(|(hash, _)| bucket(*hash, count));
        let same = entries.chunk_by(|(a, _), (b, _)| bucket(*a, count) == bucket(*b, count));
        let more: usize = same.map(|same| same.len().div_ceil(LINE_SLOTS) - 1).sum();
        let (spans, more) = (number(count.div_ceil(a_span)), number((more as u64).div_ceil(a_span)));
        if spans + more > free.len() {
            return Err(self.no_room());
        }
        let (spans, lines) = (&free[..spans], &free[spans..spans + more]);
        if let Some(last) = spans.iter().chain(lines).max() {
            self.grow_to_span(*last)?;
        }
        for (nth, span) in spans.iter().enumerate() {
            self.uses[*span] = SpanUse::Index;
            self.map.put_word(self.layout.directory + 8 * nth, *span as u64 + 1)?;
            self.put_entry(*span, SpanState { class: class::INDEX, live: 1, free: 0, listed: false }, 0, 0)?;
        }
        for nth in spans.len()..self.layout.spans {
            if self.map.word(self.layout.directory + 8 * nth)? != 0 {
                self.map.put_word(self.layout.directory + 8 * nth, 0)?;
            }
        }
        let mut used = 0;
        for same in entries.chunk_by(|(a, _), (b, _)| bucket(*a, count) == bucket(*b, count)) {
            let nth = bucket(same[0].0, count);
            let mut line = self.layout.span(spans[number(nth / a_span)]) + number(nth % a_span) * LINE;
            for (part, slots) in same.chunks(LINE_SLOTS).enumerate() {
                if part > 0 {
                    let next = self.layout.span(lines[number(used / a_span)]) + number(used % a_span) * LINE;
                    self.map.put_word(line + NEXT_LINE, next as u64)?;
                    line = next;
                    used += 1;
                }
                for (slot, (hash, block)) in slots.iter().enumerate() {
                    self.map.put_word(line + 8 * slot, slot_for(*hash, *block))?;
                }
            }
        }
        for span in lines {
            let here = used.min(a_span);
            used -= here;
            self.uses[*span] = SpanUse::Lines;
            self.put_entry(*span, SpanState { class: class::LINES, live: here, free: 0, listed: false }, here, 0)?;
        }
        Ok(())
    }
}

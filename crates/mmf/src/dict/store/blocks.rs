//! [`Blocks`]: allocates blocks for records and index lines, by size class.
//!
//! The problem: records have from 48 bytes to half a span. The allocator must take and free a block
//! in constant time, change shared memory through the write batch alone, and trust no word in it.
//!
//! The algorithm, under the write lock:
//!
//! 1. A block has the smallest size class that the record fits
//!    ([`class`]): multiples of 8 bytes up to 128, then eight
//!    classes for each doubling. A span has blocks of one class.
//! 2. To take a block, take the first span of the class's list. Take the first of its free blocks,
//!    or the next block that was never in use. If the list is empty, take a span.
//! 3. If the span has no more room, take it out of the list.
//! 4. To free a block, put it at the front of its span's list of free blocks. If it was the last in
//!    use, free the span.
//! 5. A full span joins its list again once an eighth of its blocks, and at least one, is free.
//!    So a change does not move a span in and out of the list each time.
//! 6. Before a change fails with `Full`, all spans with a free block join their lists
//!    ([`relist_spans`](Blocks::relist_spans)).
//!
//! The layout of a span's entry is in `format/span.rs`. A free block has the number of the next
//! free block, stored + 1, in bits 0 to 25 of its word at +8. A free block of records has stamp 0
//! at +0.
//!
//! Why it is correct: the table and the lists change through a [`WriteBatch`] alone, so a change
//! takes a block or does not. A taken block is written before the batch is committed; no word leads
//! to it until then. A number that leads outside the span, and a block that has a stamp, are
//! damage.
//!
//! Cost on the fast path: up to four loads and one store to take a block; one load, two stores and
//! one division to free it.

use std::ops::Deref;

use crate::dict::format::layout::{at, class, number};
use crate::dict::format::record::STAMP;
use crate::dict::format::span::{BLOCKS_USED, COUNT_MASK, NEXT_FREE, SPAN_STATE, SpanState};
use crate::dict::store::accessor::PathAccess;
use crate::dict::store::spans::{AllocError, Spans};
use crate::dict::store::storage::Storage;
use crate::dict::store::write_batch::WriteBatch;
use crate::error::Result;
use crate::mem::FastAccessMut;

/// The block allocator.
#[derive(Clone, Copy)]
pub(in crate::dict) struct Blocks<'s>(&'s Storage<'s>);

impl<'s> Deref for Blocks<'s> {
    type Target = Storage<'s>;

    #[inline(always)]
    fn deref(&self) -> &Storage<'s> {
        self.0
    }
}

impl<'s> Blocks<'s> {
    #[inline(always)]
    pub(in crate::dict) fn new(storage: &'s Storage<'s>) -> Self {
        Blocks(storage)
    }

    /// Takes a block in the first span of the class's list. Fast path of [`take`](Blocks::take).
    #[inline(always)]
    pub(in crate::dict) fn take_fast(
        self,
        map: FastAccessMut<'_>,
        batch: &mut WriteBatch,
        class: u64,
    ) -> Option<usize> {
        let size = class::size(class)?;
        let span = number(batch.get(*map, Spans::class_list(class)).ok()?).wrapping_sub(1);
        if span >= self.layout.spans {
            return None;
        }
        self.take_in(*map, batch, (class, size), span).ok()
    }

    /// Takes a block of a class. It does not take one in the span `not`, if that is the first of
    /// the class's list.
    #[inline]
    pub(in crate::dict) fn take(
        self,
        batch: &mut WriteBatch,
        class: u64,
        not: Option<usize>,
    ) -> Result<usize, AllocError> {
        let Some(size) = class::size(class) else { return Err(self.damaged("a size class without blocks").into()) };
        let fits = |count: u64| count.saturating_mul(size as u64) <= self.layout.span_size() as u64;
        let mut span = self.spans().span_number(batch.get(self.map, Spans::class_list(class))?)?;
        if not.is_some() && span == not {
            span = self.spans().links(batch, not.unwrap_or(0))?.0;
        }
        let Some(span) = span else {
            let span = self.spans().take_span(batch)?;
            batch.push_or_replace(
                self.layout.entry(span) + SPAN_STATE,
                SpanState { class, live: 1, free: 0, listed: fits(2) }.word(),
            );
            batch.push_or_replace(self.layout.entry(span) + BLOCKS_USED, 1);
            if fits(2) {
                self.spans().push(batch, class, span)?;
            }
            return Ok(self.layout.span(span));
        };
        Ok(self.take_in(self.map, batch, (class, size), span)?)
    }

    /// Takes a block of a class, with its size, in a span of the class's list. The fast path takes
    /// only a block that was freed before, and only if the span has room after it. A miss leaves
    /// the batch as it was.
    #[inline(always)]
    pub(in crate::dict) fn take_in<A: PathAccess>(
        self,
        map: A,
        batch: &mut WriteBatch,
        (class, size): (u64, usize),
        span: usize,
    ) -> Result<usize, A::Error> {
        let entry = self.layout.entry(span);
        let mut state = SpanState::of(batch.get(map, entry + SPAN_STATE)?);
        if state.class != class {
            return Err(map.damaged(|| format!("span {span} is in the list of another class")));
        }
        // A division would take longer than the rest of this function.
        let fits = |count: u64| count.saturating_mul(size as u64) <= self.layout.span_size() as u64;
        let (nth, full) = if state.free == 0 {
            map.require_slow_path()?;
            let ever = batch.get(map, entry + BLOCKS_USED)?;
            if !fits(ever.saturating_add(1)) {
                return Err(
                    map.damaged(|| format!("span {span} has no free block, but is in the list of spans with room"))
                );
            }
            batch.push_or_replace(entry + BLOCKS_USED, ever + 1);
            (ever, !fits(ever + 2))
        } else {
            let nth = state.free - 1;
            let damaged = || {
                map.damaged(|| {
                    format!("the free list of span {span} leads to block {nth}, which does not exist or is in use")
                })
            };
            // A number of 26 bits times a size of at most 30 bits fits 64 bits.
            let at = nth * size as u64;
            if at + size as u64 > self.layout.span_size() as u64 {
                return Err(damaged());
            }
            let block = self.layout.span(span) + number(at);
            map.require(block, size)?;
            // A record with a stamp is in use: the list is older or newer than the block, which
            // happens after a failed sync. While the sync mark stands, no caller takes the fast
            // path.
            if !A::IS_FAST && class <= class::LAST && batch.get(map, block + STAMP)? != 0 {
                return Err(damaged());
            }
            state.free = batch.get(map, block + NEXT_FREE)? & COUNT_MASK;
            (nth, state.free == 0 && !fits(batch.get(map, entry + BLOCKS_USED)?.saturating_add(1)))
        };
        if full {
            map.require_slow_path()?;
        }
        state.live += 1;
        state.listed = !full;
        batch.push_or_replace(entry + SPAN_STATE, state.word());
        if full {
            self.spans().unlist(batch, class, span)?;
        }
        Ok(self.layout.span(span) + number(nth) * size)
    }

    /// Frees a block.
    #[inline]
    pub(in crate::dict) fn give(self, batch: &mut WriteBatch, block: usize) -> Result<()> {
        self.give_in(self.map, batch, block)
    }

    /// Frees a block of its span. The fast path handles only a span that joins or leaves no list.
    /// On the fast path the batch must not take a block afterwards. A miss leaves the batch as it
    /// was.
    #[inline(always)]
    pub(in crate::dict) fn give_in<A: PathAccess>(
        self,
        map: A,
        batch: &mut WriteBatch,
        block: usize,
    ) -> Result<(), A::Error> {
        let (span, state, size, nth) = self.nth_block(map, batch, block)?;
        let entry = self.layout.entry(span);
        let live = match state.live {
            0 | 1 => {
                map.require_slow_path()?;
                0
            }
            live => live - 1,
        };
        let joins_list =
            !state.listed && live > 0 && SpanState::has_room(live, (self.layout.span_size() / size) as u64);
        if joins_list {
            map.require_slow_path()?;
        }
        // Only a batch that takes a block later looks this word up.
        if A::IS_FAST {
            batch.push_blind(block + NEXT_FREE, state.free);
        } else {
            batch.push(block + NEXT_FREE, state.free);
        }
        if live == 0 {
            if state.listed {
                self.spans().unlist(batch, state.class, span)?;
            }
            return Ok(self.spans().give_span(batch, span)?);
        }
        let given = SpanState { free: nth as u64 + 1, live, listed: state.listed || joins_list, ..state };
        batch.push_or_replace(entry + SPAN_STATE, given.word());
        if joins_list {
            self.spans().push(batch, state.class, span)?;
        }
        Ok(())
    }

    /// Puts each span that has a free block and is in no list into its class's list, in a batch of
    /// its own. Returns whether there was such a span.
    pub(in crate::dict) fn relist_spans(self, batch: &mut WriteBatch) -> Result<bool> {
        let used = number(self.map.word(at::USED)?).min(self.layout.spans);
        let mut any = false;
        for span in 0..used {
            batch.clear();
            let mut state = self.spans().state(batch, span)?;
            if state.listed || state.free == 0 || state.live == 0 || class::size(state.class).is_none() {
                continue;
            }
            state.listed = true;
            batch.push_or_replace(self.layout.entry(span) + SPAN_STATE, state.word());
            self.spans().push(batch, state.class, span)?;
            batch.commit(self.map, self.layout)?;
            any = true;
        }
        Ok(any)
    }

    /// Returns a block's span, the span's state, and the size of the block. Returns an error if no
    /// block begins at the offset `block`.
    #[inline]
    pub(in crate::dict) fn block(self, batch: &WriteBatch, block: usize) -> Result<(usize, SpanState, usize)> {
        self.nth_block(self.map, batch, block).map(|(span, state, size, _)| (span, state, size))
    }

    /// Returns the results of [`block`](Blocks::block), and the block's number in its span.
    #[inline(always)]
    fn nth_block<A: PathAccess>(
        self,
        map: A,
        batch: &WriteBatch,
        block: usize,
    ) -> Result<(usize, SpanState, usize, usize), A::Error> {
        if let Some(span) = self.layout.span_of(block) {
            let state = SpanState::of(batch.get(map, self.layout.entry(span) + SPAN_STATE)?);
            if let Some(size) = class::size(state.class) {
                let at = block - self.layout.span(span);
                // One division; the remainder comes from a multiplication, since a second division
                // would take longer than the rest of this function.
                let nth = at / size;
                if nth * size == at && at + size <= self.layout.span_size() {
                    return Ok((span, state, size, nth));
                }
            }
        }
        Err(map.damaged(|| format!("no block begins at {block}")))
    }
}

#[cfg(test)]
mod tests;

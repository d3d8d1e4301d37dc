//! Blocks for records, cut out of spans of equal size.
//!
//! A span holds blocks of one class, a part of the index, a part of a large value, or nothing. Its
//! entry in the table:
//!
//! ```text
//! +0   bits 0..8 class, 8..34 blocks in use, 34..60 the first free block + 1, 60 whether it is in its class's list
//! +8   blocks that have ever been in use
//! +16  bits 0..32 the next span of its list + 1, 32..64 the one before + 1
//! ```
//!
//! The spans of a class that have a free block form a list, and the free spans form another. The
//! free blocks of a span form a list by the word at +8 of each block. A full span joins its list
//! again once an eighth of its blocks is free, so that not each change moves it. Before a change
//! fails with `Full`, all spans with a free block join their lists.
//!
//! The table and the lists change through a [`WriteBatch`] alone. Free memory is written before the
//! batch is committed: no reader follows a pointer to it until then.

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

/// The blocks of the spans.
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

    /// [`take`](Blocks::take) in the first span of the class's list.
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

    /// [`give`](Blocks::give) where the span stays what it is. The batch takes no block after
    /// that.
    #[inline(always)]
    pub(in crate::dict) fn give_fast(self, map: FastAccessMut<'_>, batch: &mut WriteBatch, block: usize) -> Option<()> {
        let layout = self.layout;
        let span = layout.span_of(block)?;
        let entry = layout.entry(span);
        let state = SpanState::of(batch.get(*map, entry + SPAN_STATE).ok()?);
        let (size, at) = (class::size(state.class)?, block - layout.span(span));
        // A division of 32 bits takes less than one of 64.
        let size_in_short = u32::try_from(size).ok()?;
        let nth = u32::try_from(at).ok()? / size_in_short;
        if nth as usize * size != at || at + size > layout.span_size() || state.live < 2 {
            return None;
        }
        let live = state.live - 1;
        if !state.listed {
            let most = u64::from(u32::try_from(layout.span_size()).ok()? / size_in_short);
            if SpanState::has_room(live, most) {
                return None;
            }
        }
        batch.push_blind(block + STAMP, 0);
        batch.push_blind(block + NEXT_FREE, state.free);
        batch.push_or_replace(entry + SPAN_STATE, SpanState { free: u64::from(nth) + 1, live, ..state }.word());
        Some(())
    }

    /// Takes a block of a class, but none in the span `not`.
    #[inline]
    pub(in crate::dict) fn take(
        self,
        batch: &mut WriteBatch,
        class: u64,
        not: Option<usize>,
    ) -> Result<usize, AllocError> {
        let Some(size) = class::size(class) else { return Err(self.damaged("a class without blocks").into()) };
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
    /// one that was freed before, if the span has room left. A miss leaves the batch as it was.
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
            return Err(map.damaged(|| format!("span {span} is not what its list holds")));
        }
        // A division would take longer than all the rest.
        let fits = |count: u64| count.saturating_mul(size as u64) <= self.layout.span_size() as u64;
        let (nth, full) = if state.free == 0 {
            map.require_slow_path()?;
            let ever = batch.get(map, entry + BLOCKS_USED)?;
            if !fits(ever.saturating_add(1)) {
                return Err(map.damaged(|| format!("span {span} has no room, but is listed as if")));
            }
            batch.push_or_replace(entry + BLOCKS_USED, ever + 1);
            (ever, !fits(ever + 2))
        } else {
            let nth = state.free - 1;
            let damaged = || map.damaged(|| format!("span {span} leads to block {nth}, which it has not"));
            // A number of 26 bits times a size of 30 bits.
            let at = nth * size as u64;
            if at + size as u64 > self.layout.span_size() as u64 {
                return Err(damaged());
            }
            let block = self.layout.span(span) + number(at);
            map.require(block, size)?;
            // A record with a stamp is in use: the list is from another time than the block, which
            // happens after a failed sync. Then no caller takes the fast path.
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

    /// Gives a block back.
    #[inline]
    pub(in crate::dict) fn give(self, batch: &mut WriteBatch, block: usize) -> Result<()> {
        let (span, mut state, size, nth) = self.nth_block(batch, block)?;
        let was_listed = state.listed;
        batch.push(block + NEXT_FREE, state.free);
        state.free = nth as u64 + 1;
        state.live = state.live.saturating_sub(1);
        if state.live == 0 {
            if was_listed {
                self.spans().unlist(batch, state.class, span)?;
            }
            return self.spans().give_span(batch, span);
        }
        if !was_listed {
            let most = (self.layout.span_size() / size) as u64;
            state.listed = SpanState::has_room(state.live, most);
        }
        batch.push_or_replace(self.layout.entry(span) + SPAN_STATE, state.word());
        if state.listed && !was_listed { self.spans().push(batch, state.class, span) } else { Ok(()) }
    }

    /// Has the spans that have room, but too little to be listed, listed, each in a batch of its
    /// own; whether there were any.
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

    /// The span, its state and the size of a block, checked.
    #[inline]
    pub(in crate::dict) fn block(self, batch: &WriteBatch, block: usize) -> Result<(usize, SpanState, usize)> {
        self.nth_block(batch, block).map(|(span, state, size, _)| (span, state, size))
    }

    /// The same, and which of the span's blocks it is.
    #[inline(always)]
    fn nth_block(self, batch: &WriteBatch, block: usize) -> Result<(usize, SpanState, usize, usize)> {
        if let Some(span) = self.layout.span_of(block) {
            let state = self.spans().state(batch, span)?;
            if let Some(size) = class::size(state.class) {
                let at = block - self.layout.span(span);
                // One division: another takes longer than all the rest.
                let nth = at / size;
                if nth * size == at && at + size <= self.layout.span_size() {
                    return Ok((span, state, size, nth));
                }
            }
        }
        Err(self.damaged(format!("no block begins at {block}")))
    }
}

#[cfg(test)]
mod tests;

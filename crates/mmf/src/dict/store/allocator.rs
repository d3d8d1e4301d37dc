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

use crate::dict::format::layout::{Layout, at, class, number};
use crate::dict::format::record::STAMP;
use crate::dict::format::span::{BLOCKS_USED, COUNT_MASK, NEXT_FREE, SPAN_LINKS, SPAN_STATE, SpanState, encode_span};
use crate::dict::store::value_copy::named_twice;
use crate::dict::store::write_batch::WriteBatch;
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::Mapping;

/// Why there is no block.
#[derive(Debug)]
pub(in crate::dict) enum AllocError {
    /// All spans are taken; or the system, which says why, gives no more of them.
    Full(Option<Error>),
    Failed(Error),
}

impl From<Error> for AllocError {
    fn from(error: Error) -> AllocError {
        AllocError::Failed(error)
    }
}

/// The blocks of one segment.
#[derive(Clone, Copy)]
pub(in crate::dict) struct Storage<'a> {
    pub(in crate::dict) map: &'a Mapping,
    pub(in crate::dict) layout: &'a Layout,
    /// What keys are hashed with.
    pub(in crate::dict) seed: u64,
    /// See [`Dict`](crate::dict::handle::Dict).
    pub(in crate::dict) verify_up_to: u64,
}

impl<'a> Storage<'a> {
    #[cold]
    #[inline(never)]
    pub(in crate::dict) fn damaged(&self, reason: impl Into<String>) -> Error {
        self.map.name_error(Error::new(ErrorKind::Damaged { reason: reason.into() }, "use"))
    }

    /// A span number that is stored as itself + 1, checked; `None` for 0.
    #[inline]
    pub(in crate::dict) fn span_number(&self, stored: u64) -> Result<Option<usize>> {
        match usize::try_from(stored).ok() {
            Some(0) => Ok(None),
            Some(stored) if stored <= self.layout.spans => Ok(Some(stored - 1)),
            _ => Err(self.damaged(format!("a list leads to span {stored} of {}", self.layout.spans))),
        }
    }

    #[inline]
    fn links(&self, batch: &WriteBatch, span: usize) -> Result<(Option<usize>, Option<usize>)> {
        let word = batch.get(self.map, self.layout.entry(span) + SPAN_LINKS)?;
        Ok((self.span_number(word & 0xffff_ffff)?, self.span_number(word >> 32)?))
    }

    fn set_links(&self, batch: &mut WriteBatch, span: usize, next: Option<usize>, before: Option<usize>) {
        batch.push_or_replace(self.layout.entry(span) + SPAN_LINKS, encode_span(next) | encode_span(before) << 32);
    }

    pub(in crate::dict) fn class_list(class: u64) -> usize {
        at::CLASSES + 8 * number(class)
    }

    #[inline(always)]
    pub(in crate::dict) fn state(&self, batch: &WriteBatch, span: usize) -> Result<SpanState> {
        Ok(SpanState::of(batch.get(self.map, self.layout.entry(span) + SPAN_STATE)?))
    }

    #[inline]
    pub(in crate::dict) fn blocks_used(&self, batch: &WriteBatch, span: usize) -> Result<u64> {
        batch.get(self.map, self.layout.entry(span) + BLOCKS_USED)
    }

    /// Takes a block of a class, but none in the span `not`.
    #[inline]
    pub(in crate::dict) fn take(
        &self,
        batch: &mut WriteBatch,
        class: u64,
        not: Option<usize>,
    ) -> Result<usize, AllocError> {
        let Some(size) = class::size(class) else { return Err(self.damaged("a class without blocks").into()) };
        // A division would take longer than all the rest.
        let fits = |count: u64| count.saturating_mul(size as u64) <= self.layout.span_size() as u64;
        let mut span = self.span_number(batch.get(self.map, Self::class_list(class))?)?;
        if not.is_some() && span == not {
            span = self.links(batch, not.unwrap_or(0))?.0;
        }
        let Some(span) = span else {
            let span = self.take_span(batch)?;
            batch.push_or_replace(
                self.layout.entry(span) + SPAN_STATE,
                SpanState { class, live: 1, free: 0, listed: fits(2) }.word(),
            );
            batch.push_or_replace(self.layout.entry(span) + BLOCKS_USED, 1);
            if fits(2) {
                self.push(batch, class, span)?;
            }
            return Ok(self.layout.span(span));
        };
        let mut state = self.state(batch, span)?;
        if state.class != class {
            return Err(self.damaged(format!("span {span} is not what its list holds")).into());
        }
        let (nth, full) = if state.free == 0 {
            let ever = self.blocks_used(batch, span)?;
            if !fits(ever.saturating_add(1)) {
                return Err(self.damaged(format!("span {span} has no room, but is listed as if")).into());
            }
            batch.push_or_replace(self.layout.entry(span) + BLOCKS_USED, ever + 1);
            (ever, !fits(ever + 2))
        } else {
            let nth = state.free - 1;
            let block = self.layout.span(span) + number(nth) * size;
            // A record with a stamp is in use: the list is from another time than the block.
            if !fits(nth + 1) || (class <= class::LAST && batch.get(self.map, block + STAMP)? != 0) {
                return Err(self.damaged(format!("span {span} leads to block {nth}, which it has not")).into());
            }
            state.free = batch.get(self.map, self.layout.span(span) + number(nth) * size + NEXT_FREE)? & COUNT_MASK;
            (nth, state.free == 0 && !fits(self.blocks_used(batch, span)?.saturating_add(1)))
        };
        state.live += 1;
        state.listed = !full;
        batch.push_or_replace(self.layout.entry(span) + SPAN_STATE, state.word());
        if full {
            self.unlist(batch, class, span)?;
        }
        Ok(self.layout.span(span) + number(nth) * size)
    }

    /// Gives a block back.
    #[inline]
    pub(in crate::dict) fn give(&self, batch: &mut WriteBatch, block: usize) -> Result<()> {
        let (span, mut state, size, nth) = self.nth_block(batch, block)?;
        let was_listed = state.listed;
        batch.push(block + NEXT_FREE, state.free);
        state.free = nth as u64 + 1;
        state.live = state.live.saturating_sub(1);
        if state.live == 0 {
            if was_listed {
                self.unlist(batch, state.class, span)?;
            }
            return self.give_span(batch, span);
        }
        if !was_listed {
            let most = (self.layout.span_size() / size) as u64;
            state.listed = SpanState::has_room(state.live, most);
        }
        batch.push_or_replace(self.layout.entry(span) + SPAN_STATE, state.word());
        if state.listed && !was_listed { self.push(batch, state.class, span) } else { Ok(()) }
    }

    /// Has the spans that have room, but too little to be listed, listed, each in a batch of its
    /// own; whether there were any.
    pub(in crate::dict) fn relist_spans(&self, batch: &mut WriteBatch) -> Result<bool> {
        let used = number(self.map.word(at::USED)?).min(self.layout.spans);
        let mut any = false;
        for span in 0..used {
            batch.clear();
            let mut state = self.state(batch, span)?;
            if state.listed || state.free == 0 || state.live == 0 || class::size(state.class).is_none() {
                continue;
            }
            state.listed = true;
            batch.push_or_replace(self.layout.entry(span) + SPAN_STATE, state.word());
            self.push(batch, state.class, span)?;
            batch.commit(self.map, self.layout)?;
            any = true;
        }
        Ok(any)
    }

    /// The span, its state and the size of a block, checked.
    #[inline]
    pub(in crate::dict) fn block(&self, batch: &WriteBatch, block: usize) -> Result<(usize, SpanState, usize)> {
        self.nth_block(batch, block).map(|(span, state, size, _)| (span, state, size))
    }

    /// The same, and which of the span's blocks it is.
    #[inline(always)]
    fn nth_block(&self, batch: &WriteBatch, block: usize) -> Result<(usize, SpanState, usize, usize)> {
        if let Some(span) = self.layout.span_of(block) {
            let state = self.state(batch, span)?;
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

    /// Puts a span that has room into its class's list.
    fn push(&self, batch: &mut WriteBatch, class: u64, span: usize) -> Result<()> {
        let first = self.span_number(batch.get(self.map, Self::class_list(class))?)?;
        self.set_links(batch, span, first, None);
        if let Some(first) = first {
            let (next, _) = self.links(batch, first)?;
            self.set_links(batch, first, next, Some(span));
        }
        batch.push_or_replace(Self::class_list(class), encode_span(Some(span)));
        Ok(())
    }

    fn unlist(&self, batch: &mut WriteBatch, class: u64, span: usize) -> Result<()> {
        let (next, before) = self.links(batch, span)?;
        match before {
            Some(before) => {
                let (_, first) = self.links(batch, before)?;
                self.set_links(batch, before, next, first);
            }
            None => batch.push_or_replace(Self::class_list(class), encode_span(next)),
        }
        if let Some(next) = next {
            let (after, _) = self.links(batch, next)?;
            self.set_links(batch, next, after, before);
        }
        Ok(())
    }

    /// Takes a free span, or a new one.
    pub(in crate::dict) fn take_span(&self, batch: &mut WriteBatch) -> Result<usize, AllocError> {
        if let Some(span) = self.span_number(batch.get(self.map, at::FREE)?)? {
            let next = self.after_free(batch, span)?;
            batch.push_or_replace(at::FREE, encode_span(next));
            return Ok(span);
        }
        let used = batch.get(self.map, at::USED)?;
        let span = number(used);
        if span >= self.layout.spans {
            return Err(AllocError::Full(None));
        }
        self.require_used(span)?;
        self.grow_to(self.layout.span(span + 1))?;
        batch.push_or_replace(at::USED, used + 1);
        Ok(span)
    }

    /// Returns the free span behind `span`, to which the list of free spans leads. A span that has
    /// blocks or buckets is in use: the list is from another time than the table, which happens
    /// after a failed sync. A span from USED on was never taken, so only a forged list leads to it;
    /// it would be taken a second time once USED reaches it.
    fn after_free(&self, batch: &WriteBatch, span: usize) -> Result<Option<usize>> {
        let used = batch.get(self.map, at::USED)?;
        if span as u64 >= used {
            return Err(self.damaged(format!("the list of free spans leads to span {span} of {used} in use")));
        }
        let SpanState { class, .. } = self.state(batch, span)?;
        if class != class::FREE && class != class::PART {
            return Err(self.damaged(format!("the list of free spans leads to span {span}, which is in use")));
        }
        Ok(self.links(batch, span)?.0)
    }

    /// Gives a span back. A reader of its old contents finds the record's stamp changed.
    fn give_span(&self, batch: &mut WriteBatch, span: usize) -> Result<()> {
        let first = self.span_number(batch.get(self.map, at::FREE)?)?;
        batch.push_or_replace(
            self.layout.entry(span) + SPAN_STATE,
            SpanState { class: class::FREE, live: 0, free: 0, listed: false }.word(),
        );
        self.set_links(batch, span, first, None);
        batch.push_or_replace(at::FREE, encode_span(Some(span)));
        Ok(())
    }

    /// Takes `count` spans for the parts of a value. They stay linked among themselves, in this
    /// order, so that all are given back in two stores.
    ///
    /// A peer may have forged links that lead back to an earlier span. The walk is bounded by the
    /// number of spans, and a span that it meets twice is damage, found before anything is stored.
    pub(in crate::dict) fn take_parts(&self, batch: &mut WriteBatch, count: usize) -> Result<Vec<usize>, AllocError> {
        if count > self.layout.spans {
            return Err(AllocError::Full(None));
        }
        let mut parts = Vec::new();
        let mut next = self.span_number(batch.get(self.map, at::FREE)?)?;
        while let Some(span) = next.filter(|_| parts.len() < count) {
            parts.push(span);
            next = self.after_free(batch, span)?;
        }
        if let Some(span) = named_twice(&parts) {
            return Err(self.damaged(format!("the list of free spans leads to span {span} twice")).into());
        }
        let (used, from_list) = (batch.get(self.map, at::USED)?, parts.len());
        let missing = count - parts.len();
        let first = number(used);
        if first.checked_add(missing).is_none_or(|end| end > self.layout.spans) {
            return Err(AllocError::Full(None));
        }
        if missing > 0 {
            self.require_used(first)?;
            self.grow_to(self.layout.span(first + missing))?;
            parts.extend(first..first + missing);
            batch.push_or_replace(at::USED, used + missing as u64);
        }
        if from_list > 0 {
            batch.push_or_replace(at::FREE, encode_span(next));
        }
        for (nth, span) in parts.iter().enumerate() {
            // Written before the commit: no process reads the class of a free span, nor the link of
            // a span behind the end of the list.
            self.map.put_word(
                self.layout.entry(*span) + SPAN_STATE,
                SpanState { class: class::PART, live: 1, free: 0, listed: false }.word(),
            )?;
            if nth >= from_list {
                let next = parts.get(nth + 1).copied();
                self.map.put_word(self.layout.entry(*span) + SPAN_LINKS, encode_span(next))?;
            }
        }
        match (from_list, parts.get(from_list)) {
            (0, _) => {}
            (last, behind) => self.set_links(batch, parts[last - 1], behind.copied(), None),
        }
        Ok(parts)
    }

    /// Gives back spans that [`take_parts`](Storage::take_parts) took.
    pub(in crate::dict) fn give_parts(&self, batch: &mut WriteBatch, first: usize, last: usize) -> Result<()> {
        let head = self.span_number(batch.get(self.map, at::FREE)?)?;
        self.set_links(batch, last, head, None);
        batch.push_or_replace(at::FREE, encode_span(Some(first)));
        Ok(())
    }

    /// Refuses a count of spans in use that are not there: the object would be made as long as that
    /// says. What this batch takes itself is there by then.
    #[inline]
    fn require_used(&self, used: usize) -> Result<()> {
        let end = self.layout.span(used);
        if used == 0 || end <= self.map.len() || end <= self.map.refresh()? {
            return Ok(());
        }
        Err(self.damaged(format!("{used} spans are in use, of which some are not there")))
    }

    /// Has the segment grow so far.
    fn grow_to(&self, end: usize) -> Result<(), AllocError> {
        let now = self.map.len();
        if end <= now {
            return Ok(());
        }
        // In steps that grow with it: each is a call of the system, and peers ask once for each.
        let step = (now / 8).clamp(256 << 10, 64 << 20);
        let most = self.layout.span(self.layout.spans);
        let wanted = end.max(now.saturating_add(step)).min(most);
        if wanted == end || self.map.grow(wanted).is_err() {
            return self.map.grow(end).map_err(|error| match error.kind() {
                ErrorKind::NoSpace => AllocError::Full(Some(error)),
                _ => AllocError::Failed(error),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! The span table.

use std::ops::Deref;

use crate::dict::format::layout::{at, class, number};
use crate::dict::format::span::{BLOCKS_USED, SPAN_LINKS, SPAN_STATE, SpanState, encode_span};
use crate::dict::store::storage::Storage;
use crate::dict::store::values::named_twice;
use crate::dict::store::write_batch::WriteBatch;
use crate::error::{Error, ErrorKind, Result};

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

/// The span table, and the lists of spans.
#[derive(Clone, Copy)]
pub(in crate::dict) struct Spans<'s>(&'s Storage<'s>);

impl<'s> Deref for Spans<'s> {
    type Target = Storage<'s>;

    #[inline(always)]
    fn deref(&self) -> &Storage<'s> {
        self.0
    }
}

impl<'s> Spans<'s> {
    #[inline(always)]
    pub(in crate::dict) fn new(storage: &'s Storage<'s>) -> Self {
        Spans(storage)
    }

    /// Free spans that held parts of values last.
    pub(in crate::dict) fn free_parts(self) -> Result<u64> {
        let (mut next, mut parts) = (self.map.word(at::FREE)?, 0);
        for _ in 0..self.layout.spans {
            let Ok(Some(span)) = self.span_number(next) else { break };
            parts += u64::from(self.is_part(span));
            next = self.map.word(self.layout.entry(span) + SPAN_LINKS)? & 0xffff_ffff;
        }
        Ok(parts)
    }

    /// How many spans were ever taken, from the first on.
    pub(in crate::dict) fn spans_used(self) -> Result<usize> {
        Ok(number(self.map.word(at::USED)?).min(self.layout.spans))
    }

    /// A span number that is stored as itself + 1, checked; `None` for 0.
    #[inline]
    pub(in crate::dict) fn span_number(self, stored: u64) -> Result<Option<usize>> {
        match usize::try_from(stored).ok() {
            Some(0) => Ok(None),
            Some(stored) if stored <= self.layout.spans => Ok(Some(stored - 1)),
            _ => Err(self.damaged(format!("a list leads to span {stored} of {}", self.layout.spans))),
        }
    }

    #[inline]
    pub(in crate::dict) fn links(self, batch: &WriteBatch, span: usize) -> Result<(Option<usize>, Option<usize>)> {
        let word = batch.get(self.map, self.layout.entry(span) + SPAN_LINKS)?;
        Ok((self.span_number(word & 0xffff_ffff)?, self.span_number(word >> 32)?))
    }

    fn set_links(self, batch: &mut WriteBatch, span: usize, next: Option<usize>, before: Option<usize>) {
        batch.push_or_replace(self.layout.entry(span) + SPAN_LINKS, encode_span(next) | encode_span(before) << 32);
    }

    #[inline]
    pub(in crate::dict) fn class_list(class: u64) -> usize {
        at::CLASSES + 8 * number(class)
    }

    #[inline(always)]
    pub(in crate::dict) fn state(self, batch: &WriteBatch, span: usize) -> Result<SpanState> {
        Ok(SpanState::of(batch.get(self.map, self.layout.entry(span) + SPAN_STATE)?))
    }

    #[inline]
    pub(in crate::dict) fn blocks_used(self, batch: &WriteBatch, span: usize) -> Result<u64> {
        batch.get(self.map, self.layout.entry(span) + BLOCKS_USED)
    }

    /// Puts a span that has room into its class's list.
    pub(in crate::dict) fn push(self, batch: &mut WriteBatch, class: u64, span: usize) -> Result<()> {
        let first = self.span_number(batch.get(self.map, Self::class_list(class))?)?;
        self.set_links(batch, span, first, None);
        if let Some(first) = first {
            let (next, _) = self.links(batch, first)?;
            self.set_links(batch, first, next, Some(span));
        }
        batch.push_or_replace(Self::class_list(class), encode_span(Some(span)));
        Ok(())
    }

    pub(in crate::dict) fn unlist(self, batch: &mut WriteBatch, class: u64, span: usize) -> Result<()> {
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
    pub(in crate::dict) fn take_span(self, batch: &mut WriteBatch) -> Result<usize, AllocError> {
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
    fn after_free(self, batch: &WriteBatch, span: usize) -> Result<Option<usize>> {
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
    pub(in crate::dict) fn give_span(self, batch: &mut WriteBatch, span: usize) -> Result<()> {
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
    pub(in crate::dict) fn take_parts(self, batch: &mut WriteBatch, count: usize) -> Result<Vec<usize>, AllocError> {
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

    /// Gives back spans that [`take_parts`](Spans::take_parts) took.
    pub(in crate::dict) fn give_parts(self, batch: &mut WriteBatch, first: usize, last: usize) -> Result<()> {
        let head = self.span_number(batch.get(self.map, at::FREE)?)?;
        self.set_links(batch, last, head, None);
        batch.push_or_replace(at::FREE, encode_span(Some(first)));
        Ok(())
    }

    /// Refuses a count of spans in use that are not there: the object would be made as long as that
    /// says. What this batch takes itself is there by then.
    #[inline]
    fn require_used(self, used: usize) -> Result<()> {
        let end = self.layout.span(used);
        if used == 0 || end <= self.map.len() || end <= self.map.refresh()? {
            return Ok(());
        }
        Err(self.damaged(format!("{used} spans are in use, of which some are not there")))
    }

    /// Has the segment grow so far.
    fn grow_to(self, end: usize) -> Result<(), AllocError> {
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

    /// Spans that the segment has grown to.
    pub(in crate::dict) fn mapped_spans(self) -> usize {
        let storage = self.map.len().saturating_sub(self.layout.first_span);
        (storage >> self.layout.span_shift).min(self.layout.spans)
    }

    /// Whether a span's entry says that it holds parts of values.
    pub(in crate::dict) fn is_part(self, span: usize) -> bool {
        self.state(&WriteBatch::new(), span).is_ok_and(|SpanState { class, .. }| class == class::PART)
    }
}

//! [`Spans`]: takes and frees spans, and keeps the lists of spans.
//!
//! The problem: a dict uses space for blocks of many sizes, for its index and for large values. A
//! span is the unit that all of them share, so that space freed by one use is free for the others.
//!
//! The algorithm, always under the write lock and through a [`WriteBatch`]:
//!
//! 1. To take a span, take the first of the list at FREE. If the list is empty, take span USED,
//!    grow the object to its end, and store USED + 1.
//! 2. To free a span, store class 0 in its entry, and put it at the front of the list at FREE.
//! 3. A span with blocks and room for another is in the list of its class, linked both ways. The
//!    block allocator ([`blocks`](crate::dict::store::blocks)) decides when it joins and leaves.
//! 4. The spans of a large value are taken together and stay linked. They are freed with two
//!    stores, however many they are.
//!
//! ```text
//! entry of a span in the table: see `format/span.rs`
//! FREE          the first free span, stored + 1; linked one way
//! CLASSES + 8c  the first span of class c with room, stored + 1; linked both ways
//! USED          the number of spans, from the first on, that were ever taken
//! ```
//!
//! Why it is correct: the batch makes all stores or none. Only the entries of free spans are
//! written directly, and no process reads the class of a free span. Every number from shared memory
//! is compared with the number of spans, which also bounds each walk. A list that leads to a used
//! span, or twice to one span, is damage.
//!
//! Cost: up to four stores to take or free a span. Growth is a system call; the object grows by an
//! eighth, at least 256 KiB and at most 64 MiB, so that calls stay few.

use std::ops::Deref;

use crate::dict::format::layout::{at, class, number};
use crate::dict::format::span::{BLOCKS_USED, SPAN_LINKS, SPAN_STATE, SpanState, encode_span};
use crate::dict::store::storage::Storage;
use crate::dict::store::values::named_twice;
use crate::dict::store::write_batch::WriteBatch;
use crate::error::{Error, ErrorKind, Result};

/// The reason why the allocator returned no block or span.
#[derive(Debug)]
pub(in crate::dict) enum AllocError {
    /// All spans are taken, or the system has refused to grow the object with this error.
    Full(Option<Error>),
    Failed(Error),
}

impl From<Error> for AllocError {
    fn from(error: Error) -> AllocError {
        AllocError::Failed(error)
    }
}

/// The span table with its lists.
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

    /// Returns the number of free spans whose last content was a part of a value.
    pub(in crate::dict) fn free_parts(self) -> Result<u64> {
        let (mut next, mut parts) = (self.map.word(at::FREE)?, 0);
        for _ in 0..self.layout.spans {
            let Ok(Some(span)) = self.span_number(next) else { break };
            parts += u64::from(self.is_part(span));
            next = self.map.word(self.layout.entry(span) + SPAN_LINKS)? & 0xffff_ffff;
        }
        Ok(parts)
    }

    /// Returns the number of spans, from the first on, that were ever taken (USED).
    pub(in crate::dict) fn spans_used(self) -> Result<usize> {
        Ok(number(self.map.word(at::USED)?).min(self.layout.spans))
    }

    /// Decodes and checks a span number that is stored + 1. Returns `None` for 0.
    #[inline]
    pub(in crate::dict) fn span_number(self, stored: u64) -> Result<Option<usize>> {
        match usize::try_from(stored).ok() {
            Some(0) => Ok(None),
            Some(stored) if stored <= self.layout.spans => Ok(Some(stored - 1)),
            _ => Err(self.damaged(format!("a list leads to span {stored} of {}", self.layout.spans))),
        }
    }

    /// Returns the next and the previous span of a span's list.
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

    /// Puts a span that has room at the front of its class's list.
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

    /// Takes a span out of its class's list.
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

    /// Takes the first free span, or a new one. The caller stores its class.
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

    /// Checks a span to which the list of free spans leads, and returns the next one.
    ///
    /// A span with blocks or buckets is in use: the list is older or newer than the table, which
    /// happens after a failed sync. A span from USED on was never taken, so only a forged list
    /// leads to it; it would be taken a second time once USED reaches it.
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

    /// Frees a span. A reader of its old contents finds that the record's stamp has changed.
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
    /// order, so that two stores free all of them.
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
            // Written before the commit: no process reads the class of a free span, or the link of
            // a span after the end of the list.
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

    /// Frees the spans `first` to `last` that [`take_parts`](Spans::take_parts) took together.
    pub(in crate::dict) fn give_parts(self, batch: &mut WriteBatch, first: usize, last: usize) -> Result<()> {
        let head = self.span_number(batch.get(self.map, at::FREE)?)?;
        self.set_links(batch, last, head, None);
        batch.push_or_replace(at::FREE, encode_span(Some(first)));
        Ok(())
    }

    /// Checks that the object reaches to the end of the first `used` spans. Otherwise a forged USED
    /// would make this process grow the object to that length. Spans that this batch has taken
    /// itself are there by then.
    #[inline]
    fn require_used(self, used: usize) -> Result<()> {
        let end = self.layout.span(used);
        if used == 0 || end <= self.map.len() || end <= self.map.refresh()? {
            return Ok(());
        }
        Err(self.damaged(format!("{used} spans are in use, of which some are beyond its end")))
    }

    /// Grows the object so that it reaches to `end`.
    fn grow_to(self, end: usize) -> Result<(), AllocError> {
        let now = self.map.len();
        if end <= now {
            return Ok(());
        }
        // The step grows with the object: each step costs a system call here, and one in each peer
        // process that notices the new length.
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

    /// Returns the number of spans that lie within the object's present length.
    pub(in crate::dict) fn mapped_spans(self) -> usize {
        let storage = self.map.len().saturating_sub(self.layout.first_span);
        (storage >> self.layout.span_shift).min(self.layout.spans)
    }

    /// Returns whether a span's entry has the class of parts of values.
    pub(in crate::dict) fn is_part(self, span: usize) -> bool {
        self.state(&WriteBatch::new(), span).is_ok_and(|SpanState { class, .. }| class == class::PART)
    }
}

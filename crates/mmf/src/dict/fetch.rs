//! Copying a value out of its record.
//!
//! Any process may have stored any length in a record, so a length is checked before memory is
//! reserved for it:
//!
//! 1. A value in its block fits the block's size class, and half a span in any case.
//! 2. A value in spans names as many spans as its length takes, and their numbers fit its block.
//! 3. Each of these spans is there, is named once, and is marked as a part of a value in the table.
//!
//! So no value is longer than the spans that the object has. A sparse file may still have spans
//! that take no disk; the capacity, read once when the file was opened, bounds those.
//!
//! A copy of more than [`PIECE`] bytes looks at the clock after each piece, so that it ends with
//! the call's timeout.

use std::cell::Cell;
use std::time::Instant;

use super::heap::{Heap, STATE, State};
use super::record::{HEAD, Head};
use super::shape::class;
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::PIECE;
use crate::segment::Until;
use crate::sys;

/// A value of more bytes is compared with the size class of its block; smaller ones are bounded by
/// less.
const CHECKED: usize = 1024;
/// No dict has more spans, see `Shape`.
const SPANS: usize = 1 << 14;

/// Until when a call may take. The clock is asked when the first copy or attempt turns out to be
/// long, and not before.
pub(super) struct Deadline {
    until: Until,
    fixed: Cell<Option<Option<Instant>>>,
}

impl Deadline {
    #[inline]
    pub(super) fn new(until: Until) -> Deadline {
        Deadline { until, fixed: Cell::new(None) }
    }

    /// The deadline by the clock; `None` for none.
    pub(super) fn instant(&self) -> Option<Instant> {
        if let Some(fixed) = self.fixed.get() {
            return fixed;
        }
        let deadline = self.until.deadline();
        self.fixed.set(Some(deadline));
        deadline
    }

    /// Whether the deadline has passed.
    pub(super) fn is_over(&self) -> bool {
        self.instant().is_some_and(|deadline| sys::now() >= deadline)
    }
}

impl Heap<'_> {
    /// Appends a record's value to `bytes`.
    #[inline(always)]
    pub(super) fn append_value(
        &self,
        block: usize,
        head: &Head,
        bytes: &mut Vec<u8>,
        deadline: &Deadline,
    ) -> Result<()> {
        if !head.in_spans && head.value_len <= CHECKED {
            return self.map.append_to(block + HEAD + head.key_len, head.value_len, bytes);
        }
        self.append_long(block, head, bytes, deadline)
    }

    fn append_long(&self, block: usize, head: &Head, bytes: &mut Vec<u8>, deadline: &Deadline) -> Result<()> {
        if head.in_spans {
            return self.append_spans(block, head, bytes, deadline);
        }
        let (.., size) = self.block_of_record(block)?;
        if head.block_len(self.shape) > size {
            let len = head.value_len;
            return Err(self.damaged(format!("a value of {len} bytes does not fit its block of {size} at {block}")));
        }
        let from = block + HEAD + head.key_len;
        self.map.append_pieces(from, head.value_len, bytes, || self.refuse_late(deadline))
    }

    fn append_spans(&self, block: usize, head: &Head, bytes: &mut Vec<u8>, deadline: &Deadline) -> Result<()> {
        let spans = self.span_list(block, head)?;
        for span in &spans {
            let State { class, .. } = State::of(self.map.word(self.shape.entry(*span) + STATE)?);
            if class != class::PART {
                return Err(self.damaged(format!("a value lies in span {span}, which holds something else")));
            }
        }
        if bytes.try_reserve(head.value_len).is_err() {
            return Err(self.map.name_it(Error::new(ErrorKind::NoSpace, "copy")));
        }
        let (mut left, mut since) = (head.value_len, 0);
        for span in spans {
            let len = left.min(self.shape.span_size());
            since += len;
            if since > PIECE {
                self.refuse_late(deadline)?;
                since = len;
            }
            self.map.append_pieces(self.shape.span(span), len, bytes, || self.refuse_late(deadline))?;
            left -= len;
        }
        Ok(())
    }

    #[cold]
    fn refuse_late(&self, deadline: &Deadline) -> Result<()> {
        if !deadline.is_over() {
            return Ok(());
        }
        let error = self.map.name_it(Error::new(ErrorKind::Timeout { holder: None }, "read"));
        Err(error.with_help("the value is large: give the handle a longer `timeout`"))
    }

    /// The span and the size of a record's block: what the table says of them, checked.
    fn block_of_record(&self, block: usize) -> Result<(usize, usize)> {
        if let Some(span) = self.shape.span_of(block) {
            let State { class, .. } = State::of(self.map.word(self.shape.entry(span) + STATE)?);
            if let Some(size) = class::size(class).filter(|_| class <= class::LAST) {
                return Ok((span, size.min(self.shape.largest_block())));
            }
        }
        Err(self.no_record(block))
    }

    /// The spans that a value lies in: each is there, and named once.
    pub(super) fn span_list(&self, block: usize, head: &Head) -> Result<Vec<usize>> {
        let (shape, count) = (self.shape, head.span_count(self.shape));
        if count > shape.spans || head.block_len(shape) > shape.largest_block() {
            return Err(self.damaged("a value claims more than there is"));
        }
        let mut numbers = Vec::new();
        self.map.append_to(block + head.spans_at(), 4 * count, &mut numbers)?;
        let numbers =
            numbers.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap_or_default()) as usize);
        let spans: Vec<usize> = numbers.collect();
        let mut named = [0_u64; SPANS / 64];
        let mut end = 0;
        for (nth, span) in spans.iter().enumerate() {
            let Some(word) = named.get_mut(span / 64).filter(|_| *span < shape.spans) else {
                return Err(self.damaged(format!("a value lies in span {span} of {}", shape.spans)));
            };
            if *word & 1 << (span % 64) != 0 {
                return Err(self.damaged(format!("a value lies in span {span} twice")));
            }
            *word |= 1 << (span % 64);
            let part = (head.value_len - nth * shape.span_size()).min(shape.span_size());
            end = end.max(shape.span(*span) + part);
        }
        self.map.require(0, end)?;
        Ok(spans)
    }
}

const _: () = assert!(super::shape::MAX_SPANS == SPANS);

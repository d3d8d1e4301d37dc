//! Copying a value out of its record.
//!
//! Any process may have stored any length in a record, so a length is checked before memory is
//! reserved for it:
//!
//! 1. A value in its block fits half a span, and where it has more than a page, the block's size
//!    class.
//! 2. A value in spans names as many spans as its length takes, and their numbers fit its block.
//! 3. Each of these spans is there, is named once, and is marked as a part of a value in the table.
//!
//! So no value is longer than the spans that the object has. A sparse file may still have spans
//! that take no disk; the capacity, read once when the file was opened, bounds those.
//!
//! A copy of more than [`PIECE`] bytes looks at the clock after each piece, so that it ends with
//! the call's timeout.

use super::heap::{Heap, STATE, State};
use super::limit::Limit;
use super::record::{HEAD, Head};
use super::shape::class;
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::PIECE;

/// A value of more bytes is compared with the size class of its block; a smaller one takes no more
/// than a page, and the table's entry may be in no cache.
const CHECKED: usize = 4096;
/// As many spans are compared with each other; of more, each has a bit.
const FEW: usize = 16;
/// No dict has more spans, see `Shape`.
const SPANS: usize = 1 << 14;

impl Heap<'_> {
    /// Appends a record's value to `bytes`.
    #[inline(always)]
    pub(super) fn append_value(&self, block: usize, head: &Head, bytes: &mut Vec<u8>, limit: &Limit) -> Result<()> {
        if head.in_spans {
            return self.append_spans(block, head, bytes, limit);
        }
        let (offset, len) = (block + HEAD + head.key_len, head.value_len);
        if head.block_len(self.shape) > self.shape.largest_block() {
            return Err(self.too_long(block, head));
        }
        if len > CHECKED {
            self.require_class(block, head)?;
            if len > PIECE {
                return self.map.append_pieces(offset, len, bytes, || self.refuse_late(limit));
            }
        }
        self.map.append_to(offset, len, bytes)
    }

    /// Refuses a value that does not fit the size class of its block.
    fn require_class(&self, block: usize, head: &Head) -> Result<()> {
        let size = self.size_of_record(block)?;
        if head.block_len(self.shape) > size { Err(self.too_long(block, head)) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn too_long(&self, block: usize, head: &Head) -> Error {
        self.damaged(format!("a value of {} bytes does not fit its block at {block}", head.value_len))
    }

    fn append_spans(&self, block: usize, head: &Head, bytes: &mut Vec<u8>, limit: &Limit) -> Result<()> {
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
                self.refuse_late(limit)?;
                since = len;
            }
            self.map.append_pieces(self.shape.span(span), len, bytes, || self.refuse_late(limit))?;
            left -= len;
        }
        Ok(())
    }

    #[cold]
    fn refuse_late(&self, limit: &Limit) -> Result<()> {
        if !limit.is_over() {
            return Ok(());
        }
        let error = self.map.name_it(Error::new(ErrorKind::Timeout { holder: None }, "read"));
        Err(error.with_help("the value is large: give the handle a longer `timeout`"))
    }

    /// The size of a record's block, by the table's entry for its span.
    fn size_of_record(&self, block: usize) -> Result<usize> {
        if let Some(span) = self.shape.span_of(block) {
            let State { class, .. } = State::of(self.map.word(self.shape.entry(span) + STATE)?);
            if let Some(size) = class::size(class).filter(|_| class <= class::LAST) {
                return Ok(size);
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
        if let Some(span) = spans.iter().find(|span| **span >= shape.spans) {
            return Err(self.damaged(format!("a value lies in span {span} of {}", shape.spans)));
        }
        if let Some(span) = named_twice(&spans) {
            return Err(self.damaged(format!("a value lies in span {span} twice")));
        }
        let mut end = 0;
        for (nth, span) in spans.iter().enumerate() {
            let part = (head.value_len - nth * shape.span_size()).min(shape.span_size());
            end = end.max(shape.span(*span) + part);
        }
        self.map.require(0, end)?;
        Ok(spans)
    }
}

/// Returns a span that is named more than once, if there is one. All of them are below [`SPANS`].
pub(super) fn named_twice(spans: &[usize]) -> Option<usize> {
    if spans.len() <= FEW {
        return spans.iter().enumerate().find(|(nth, span)| spans[..*nth].contains(span)).map(|(_, span)| *span);
    }
    let mut named = [0_u64; SPANS / 64];
    let mut is_new = |span: &usize| {
        let Some(word) = named.get_mut(span / 64) else { return false };
        let bit = 1 << (span % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    };
    spans.iter().find(|span| !is_new(span)).copied()
}

const _: () = assert!(super::shape::MAX_SPANS == SPANS);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::dict::{Dict, record};
    use crate::error::ErrorKind;
    use crate::mapping::PIECE;
    use crate::name::Name;
    use crate::segment::Until;

    #[test]
    fn a_long_copy_ends_with_the_deadline() {
        let name = Name::local(format!("fetch {}", std::process::id())).unwrap();
        let dict = Dict::create_new(name, 64 << 20).unwrap();
        let (small, large) = (vec![7; PIECE], vec![7; 2 * PIECE]);
        dict.set_bytes("small", &small).unwrap();
        dict.set_bytes("large", &large).unwrap();
        let heap = dict.heap();
        let get = |key: &str, until| {
            let (hash, mut bytes) = (record::hash(heap.seed, key.as_bytes()), Vec::new());
            heap.get(hash, key.as_bytes(), &mut &mut bytes, Until::Forever, until).map(|_| bytes)
        };
        let late = Until::At(Instant::now());
        assert_eq!(get("small", late).unwrap(), small);
        assert_eq!(get("large", Until::Forever).unwrap(), large);
        let error = get("large", late).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout { holder: None }), "{error}");
    }
}

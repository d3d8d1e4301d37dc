//! [`Values`]: copies a value out of its record.
//!
//! The problem: any peer process may have stored any length in a record. A copy must not reserve
//! more memory than the dict can hold, and must end with the call's timeout.
//!
//! A value lies after the key in its record's block, or in spans of its own, whose numbers (u32)
//! follow the key at the next multiple of 4.
//!
//! The algorithm checks the length before it reserves memory:
//!
//! 1. A value in its block must fit half a span. If it has more than 4096 bytes, it must also fit
//!    the block's size class.
//! 2. A value in spans takes its length divided by the span's size, rounded up. That many numbers
//!    must fit half a span.
//! 3. Each of these spans must exist, must be named once, and must have the class of parts of
//!    values.
//! 4. The copy of more than [`COPY_CHUNK`] bytes reads the clock after each chunk, and ends with
//!    `Timeout` once the limit is over.
//!
//! Why it is correct: no value is longer than all spans of the object together. A sparse file may
//! have spans that take no disk space; the capacity, read once when the file was opened, bounds
//! those.
//!
//! Cost: one comparison and one guarded copy for a value of up to 4096 bytes.

use std::ops::Deref;

use crate::dict::format::layout::class;
use crate::dict::format::record::{HEADER_LEN, RecordHeader};
use crate::dict::format::span::{SPAN_STATE, SpanState};
use crate::dict::store::storage::Storage;
use crate::dict::store::work_limit::WorkLimit;
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::COPY_CHUNK;

/// A value of more bytes than this is compared with the size class of its block. A shorter one
/// takes at most a page, and the table's entry may be in no cache.
const MIN_CLASS_CHECK: usize = 4096;
/// Up to this many spans are compared in pairs; for more, a bitmap is used.
const PAIRWISE_SPANS: usize = 16;
/// The largest number of spans that a dict can have, equal to `layout::MAX_SPANS`.
const SPAN_LIMIT: usize = 1 << 14;

/// Returns a span that `spans` names more than once, if there is one. All of `spans` are below
/// [`SPAN_LIMIT`].
pub(in crate::dict) fn named_twice(spans: &[usize]) -> Option<usize> {
    if spans.len() <= PAIRWISE_SPANS {
        return spans.iter().enumerate().find(|(nth, span)| spans[..*nth].contains(span)).map(|(_, span)| *span);
    }
    let mut named = [0_u64; SPAN_LIMIT / 64];
    let mut is_new = |span: &usize| {
        let Some(word) = named.get_mut(span / 64) else { return false };
        let bit = 1 << (span % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    };
    spans.iter().find(|span| !is_new(span)).copied()
}

const _: () = assert!(crate::dict::format::layout::MAX_SPANS == SPAN_LIMIT);

/// The values of records.
#[derive(Clone, Copy)]
pub(in crate::dict) struct Values<'s>(&'s Storage<'s>);

impl<'s> Deref for Values<'s> {
    type Target = Storage<'s>;

    #[inline(always)]
    fn deref(&self) -> &Storage<'s> {
        self.0
    }
}

impl<'s> Values<'s> {
    #[inline(always)]
    pub(in crate::dict) fn new(storage: &'s Storage<'s>) -> Self {
        Values(storage)
    }

    /// Appends a record's value to `bytes`.
    #[inline(always)]
    pub(in crate::dict) fn append_value(
        self,
        block: usize,
        head: &RecordHeader,
        bytes: &mut Vec<u8>,
        limit: &WorkLimit,
    ) -> Result<()> {
        if head.in_spans {
            return self.append_spans(block, head, bytes, limit);
        }
        let (offset, len) = (block + HEADER_LEN + head.key_len, head.value_len);
        if head.block_len(self.layout) > self.layout.largest_block() {
            return Err(self.too_long(block, head));
        }
        if len > MIN_CLASS_CHECK {
            self.require_class(block, head)?;
            if len > COPY_CHUNK {
                return self.map.append_pieces(offset, len, bytes, || self.refuse_late(limit));
            }
        }
        self.map.append_to(offset, len, bytes)
    }

    /// Checks that a value fits the size class of its block.
    fn require_class(self, block: usize, head: &RecordHeader) -> Result<()> {
        let size = self.size_of_record(block)?;
        if head.block_len(self.layout) > size { Err(self.too_long(block, head)) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn too_long(self, block: usize, head: &RecordHeader) -> Error {
        self.damaged(format!("a value of {} bytes does not fit its block at {block}", head.value_len))
    }

    fn append_spans(self, block: usize, head: &RecordHeader, bytes: &mut Vec<u8>, limit: &WorkLimit) -> Result<()> {
        let spans = self.span_list(block, head)?;
        for span in &spans {
            let SpanState { class, .. } = SpanState::of(self.map.word(self.layout.entry(*span) + SPAN_STATE)?);
            if class != class::PART {
                return Err(self.damaged(format!("a value lies in span {span}, which holds something else")));
            }
        }
        if bytes.try_reserve(head.value_len).is_err() {
            return Err(self.map.name_error(Error::new(ErrorKind::NoSpace, "copy")));
        }
        let (mut left, mut since) = (head.value_len, 0);
        for span in spans {
            let len = left.min(self.layout.span_size());
            since += len;
            if since > COPY_CHUNK {
                self.refuse_late(limit)?;
                since = len;
            }
            self.map.append_pieces(self.layout.span(span), len, bytes, || self.refuse_late(limit))?;
            left -= len;
        }
        Ok(())
    }

    #[cold]
    fn refuse_late(self, limit: &WorkLimit) -> Result<()> {
        if !limit.is_over() {
            return Ok(());
        }
        let error = self.map.name_error(Error::new(ErrorKind::Timeout { holder: None }, "read"));
        Err(error.with_help("the value is large: give the handle a longer `timeout`"))
    }

    /// Returns the size of a record's block, from the table's entry of its span.
    fn size_of_record(self, block: usize) -> Result<usize> {
        if let Some(span) = self.layout.span_of(block) {
            let SpanState { class, .. } = SpanState::of(self.map.word(self.layout.entry(span) + SPAN_STATE)?);
            if let Some(size) = class::size(class).filter(|_| class <= class::LAST) {
                return Ok(size);
            }
        }
        Err(self.records().no_record_error(block))
    }

    /// Returns the spans that a value lies in. Each of them exists and is named once.
    pub(in crate::dict) fn span_list(self, block: usize, head: &RecordHeader) -> Result<Vec<usize>> {
        let (layout, count) = (self.layout, head.span_count(self.layout));
        if count > layout.spans || head.block_len(layout) > layout.largest_block() {
            return Err(self.damaged("a value names more spans than the dict has"));
        }
        let mut numbers = Vec::new();
        self.map.append_to(block + head.spans_at(), 4 * count, &mut numbers)?;
        let numbers =
            numbers.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap_or_default()) as usize);
        let spans: Vec<usize> = numbers.collect();
        if let Some(span) = spans.iter().find(|span| **span >= layout.spans) {
            return Err(self.damaged(format!("a value lies in span {span} of {}", layout.spans)));
        }
        if let Some(span) = named_twice(&spans) {
            return Err(self.damaged(format!("a value lies in span {span} twice")));
        }
        let mut end = 0;
        for (nth, span) in spans.iter().enumerate() {
            let part = (head.value_len - nth * layout.span_size()).min(layout.span_size());
            end = end.max(layout.span(*span) + part);
        }
        self.map.require(0, end)?;
        Ok(spans)
    }
}

#[cfg(test)]
mod tests {
    use crate::dict::read::get::KeyReader;
    use std::time::Instant;

    use crate::dict::Dict;
    use crate::dict::format::record;
    use crate::error::ErrorKind;
    use crate::mapping::COPY_CHUNK;
    use crate::name::Name;
    use crate::segment::Deadline;

    #[test]
    fn a_long_copy_ends_with_the_deadline() {
        let name = Name::local(format!("fetch {}", std::process::id())).unwrap();
        let dict = Dict::create_new(name, 64 << 20).unwrap();
        let (small, large) = (vec![7; COPY_CHUNK], vec![7; 2 * COPY_CHUNK]);
        dict.set_bytes("small", &small).unwrap();
        dict.set_bytes("large", &large).unwrap();
        let storage = dict.storage();
        let get = |key: &str, until| {
            let (hash, mut bytes) = (record::hash(storage.seed, key.as_bytes()), Vec::new());
            KeyReader::new(&storage).get(hash, key.as_bytes(), &mut &mut bytes, Deadline::Never, until).map(|_| bytes)
        };
        let late = Deadline::At(Instant::now());
        assert_eq!(get("small", late).unwrap(), small);
        assert_eq!(get("large", Deadline::Never).unwrap(), large);
        let error = get("large", late).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout { holder: None }), "{error}");
    }
}

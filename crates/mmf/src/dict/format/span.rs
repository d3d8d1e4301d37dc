//! The entry of a span in the span table.
//!
//! ```text
//! +0   bits 0..8 class, 8..34 blocks in use, 34..60 the first free block + 1,
//!      60 whether the span is in its class's list
//! +8   blocks that have ever been in use
//! +16  bits 0..32 the next span of its list + 1, 32..64 the one before + 1
//! ```

/// The place in a free block of the number of the next free block, stored + 1.
pub(in crate::dict) const NEXT_FREE: usize = 8;

/// The place of the entry's first word, see [`SpanState`].
pub(in crate::dict) const SPAN_STATE: usize = 0;

/// The place of the number of blocks, from the first on, that were ever in use.
pub(in crate::dict) const BLOCKS_USED: usize = 8;

/// The place of the links to the next and the previous span of a list.
pub(in crate::dict) const SPAN_LINKS: usize = 16;

pub(in crate::dict) const COUNT_MASK: u64 = (1 << 26) - 1;

pub(in crate::dict) const LISTED_BIT: u64 = 1 << 60;

/// The first word of a span's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dict) struct SpanState {
    pub(in crate::dict) class: u64,
    pub(in crate::dict) live: u64,
    pub(in crate::dict) free: u64,
    /// Whether the span is in its class's list.
    pub(in crate::dict) listed: bool,
}

impl SpanState {
    #[inline]
    pub(in crate::dict) fn of(word: u64) -> SpanState {
        SpanState {
            class: word & 0xff,
            live: (word >> 8) & COUNT_MASK,
            free: (word >> 34) & COUNT_MASK,
            listed: word & LISTED_BIT != 0,
        }
    }

    /// Returns whether a span that was full, with `live` of `most` blocks in use, joins its list
    /// again: an eighth of its blocks, and at least one, is free.
    #[inline(always)]
    pub(in crate::dict) fn has_room(live: u64, most: u64) -> bool {
        most - live.min(most) >= (most / 8).max(1)
    }

    #[inline]
    pub(in crate::dict) fn word(self) -> u64 {
        self.class
            | (self.live & COUNT_MASK) << 8
            | (self.free & COUNT_MASK) << 34
            | if self.listed { LISTED_BIT } else { 0 }
    }
}

/// Encodes a span's number as itself + 1, and `None` as 0.
pub(in crate::dict) fn encode_span(span: Option<usize>) -> u64 {
    span.map_or(0, |span| span as u64 + 1)
}

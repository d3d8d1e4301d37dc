//! [`Layout`]: the places and sizes of a dict's parts. `docs/format.md` specifies them.
//!
//! All of them follow from the segment's capacity, so none is read from shared memory.

use crate::segment::layout::PAYLOAD;

/// Words of the dict, as offsets from the segment's start.
pub(in crate::dict) mod at {
    use super::PAYLOAD;

    /// The version of the last committed change. A record with a larger stamp is not committed.
    pub(crate) const COMMIT: usize = PAYLOAD;
    /// Records with a version up to this are cleared.
    pub(crate) const FLOOR: usize = PAYLOAD + 8;
    /// The number of buckets of the index (bits 0 to 39), 0 before the first change and during a
    /// repair. Bits 40 to 63 count how often lines were taken out of a bucket.
    pub(crate) const BUCKETS: usize = PAYLOAD + 16;
    /// Not 0 after a failed sync: any page may have gone back to an older state, and readers verify
    /// each value. It lies beside COMMIT, which they load anyway.
    pub(crate) const SUSPECT: usize = PAYLOAD + 24;
    /// The number of keys.
    pub(crate) const LEN: usize = PAYLOAD + 64;
    /// The number of spans, from the first on, that were ever taken.
    pub(crate) const USED: usize = PAYLOAD + 72;
    /// The first free span, stored + 1. Its link leads to the next.
    pub(crate) const FREE: usize = PAYLOAD + 80;
    /// The next bucket to be swept for cleared records, stored + 1; 0 if no sweep is due.
    pub(crate) const SWEEP: usize = PAYLOAD + 88;
    /// The number of pairs of the redo log that are to be performed; 0 without a change under way.
    pub(crate) const REDO_LEN: usize = PAYLOAD + 128;
    /// The position up to which the change log is written, or may be being written.
    pub(crate) const LOG_CLAIMED: usize = PAYLOAD + 192;
    /// The position up to which the change log's entries are complete.
    pub(crate) const LOG_HEAD: usize = PAYLOAD + 200;
    /// The bits CLEAN, `FLUSHED_BEFORE`, UNSURE and SYNCING, see
    /// [`marks`](crate::dict::format::marks).
    pub(crate) const DURABLE: usize = PAYLOAD + 256;
    /// COMMIT as of the last flush.
    pub(crate) const FLUSHED: usize = PAYLOAD + 264;
    /// The first record that the next flush frees. Its word at +8 leads to the next.
    pub(crate) const PENDING: usize = PAYLOAD + 272;
    /// The first record of a removal since the last flush. Such records keep removed keys absent
    /// after a power cut.
    pub(crate) const REMOVED: usize = PAYLOAD + 280;
    /// The first record of a removal from before the last flush, which the next flush frees.
    pub(crate) const REMOVED_BEFORE: usize = PAYLOAD + 288;
    /// The number of bytes of the records in these three lists.
    pub(crate) const PENDING_BYTES: usize = PAYLOAD + 296;
    /// The hash of the boot in which the dict was last opened for writing; 0 before the first
    /// change.
    pub(crate) const BOOT: usize = PAYLOAD + 304;
    /// A word per class: the first span with room, stored + 1. Its links lead to the others.
    pub(crate) const CLASSES: usize = PAYLOAD + 1024;
    /// The redo log: pairs of an offset and a word.
    pub(crate) const REDO_LOG: usize = PAYLOAD + 4096;
}

/// The least capacity of a dict.
pub(in crate::dict) const MIN_CAPACITY: u64 = 1 << 20;
/// The largest capacity: slots have 40 bits for an eighth of a record's offset.
pub(in crate::dict) const MAX_CAPACITY: u64 = 1 << 43;
/// The least size of the change log.
pub(in crate::dict) const MIN_CHANGE_LOG_SIZE: usize = 16 << 10;
/// The largest number of spans of any capacity.
pub(in crate::dict) const MAX_SPANS: usize = 16384;
/// The size of a line of the index, in bytes.
pub(in crate::dict) const LINE: usize = 64;
/// The size of a span's entry in the table, in bytes.
pub(in crate::dict) const ENTRY: usize = 32;

/// Converts a number from shared memory. One that does not fit `usize` becomes the largest, which
/// every check of a bound refuses.
#[inline]
pub(in crate::dict) fn number(word: u64) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

/// The sizes and places that follow from a capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dict) struct Layout {
    /// A span has `1 << span_shift` bytes.
    pub(in crate::dict) span_shift: u32,
    /// The number of spans that the capacity has room for.
    pub(in crate::dict) spans: usize,
    /// The number of pairs that the redo log has room for.
    pub(in crate::dict) log_entries: usize,
    /// The offset of the change log.
    pub(in crate::dict) change_log: usize,
    pub(in crate::dict) change_log_size: usize,
    /// The offset of the directory: a word per span of buckets, the span's number + 1.
    pub(in crate::dict) directory: usize,
    /// The offset of the span table: an entry per span.
    pub(in crate::dict) table: usize,
    /// The offset of the first span.
    pub(in crate::dict) first_span: usize,
}

impl Layout {
    /// Returns the layout of a segment of `capacity` bytes, or `None` if that is out of bounds.
    pub(in crate::dict) fn of(capacity: u64) -> Option<Layout> {
        let payload = capacity.checked_sub(PAYLOAD as u64)?;
        if !(MIN_CAPACITY..=MAX_CAPACITY - PAYLOAD as u64).contains(&payload) {
            return None;
        }
        // No view is longer than `isize::MAX`, so no sum below overflows.
        let payload = usize::try_from(payload).ok().filter(|payload| *payload <= isize::MAX as usize - PAYLOAD)?;
        let wide = (payload / 512).next_power_of_two().clamp(4096, 1 << 20);
        let span = wide.max((payload / MAX_SPANS).next_power_of_two());
        let side = (payload / 64).clamp(MIN_CHANGE_LOG_SIZE, 1 << 20) & !4095;
        let change_log = at::REDO_LOG + side;
        let directory = change_log + side;
        // An upper bound of the spans: directory and table take room of their own.
        let most = payload / span;
        let table = (directory + 8 * most).next_multiple_of(ENTRY);
        let first_span = (table + ENTRY * most).next_multiple_of(4096);
        let spans = (PAYLOAD + payload).saturating_sub(first_span) / span;
        Some(Layout {
            span_shift: span.trailing_zeros(),
            spans,
            log_entries: side / 16,
            change_log,
            change_log_size: side,
            directory,
            table,
            first_span,
        })
    }

    #[inline]
    pub(in crate::dict) fn span_size(&self) -> usize {
        1 << self.span_shift
    }

    /// Returns the offset of a span.
    #[inline]
    pub(in crate::dict) fn span(&self, span: usize) -> usize {
        self.first_span + (span << self.span_shift)
    }

    /// Returns the span that an offset lies in.
    #[inline]
    pub(in crate::dict) fn span_of(&self, offset: usize) -> Option<usize> {
        let span = offset.checked_sub(self.first_span)? >> self.span_shift;
        (span < self.spans).then_some(span)
    }

    /// Returns the offset of a span's entry in the table.
    #[inline]
    pub(in crate::dict) fn entry(&self, span: usize) -> usize {
        self.table + ENTRY * span
    }

    /// Returns the size of the largest block: half a span.
    #[inline]
    pub(in crate::dict) fn largest_block(&self) -> usize {
        1 << (self.span_shift - 1)
    }

    /// Returns the binary logarithm of the number of buckets in a span.
    #[inline]
    pub(in crate::dict) fn lines_shift(&self) -> u32 {
        self.span_shift - LINE.trailing_zeros()
    }
}

/// Size classes of blocks: each multiple of 8 bytes up to 128, then eight to each doubling.
pub(in crate::dict) mod class {
    /// A free span.
    pub(crate) const FREE: u64 = 0;
    /// Further lines of buckets.
    pub(crate) const LINES: u64 = 251;
    /// The first lines of buckets.
    pub(crate) const INDEX: u64 = 252;
    /// A part of a large value.
    pub(crate) const PART: u64 = 253;
    /// The largest class of records.
    pub(crate) const LAST: u64 = 187;
    /// The number of classes up to [`LAST`].
    pub(crate) const COUNT: usize = 188;
    /// The size of the smallest block, in bytes.
    pub(crate) const SMALLEST: usize = 48;

    /// Returns the smallest class whose blocks have at least `size` bytes.
    #[inline]
    pub(crate) fn of(size: usize) -> u64 {
        if size <= 128 {
            return (size.max(SMALLEST).div_ceil(8) - 5) as u64;
        }
        let doubling = usize::BITS - 1 - (size - 1).leading_zeros();
        let step = 1 << (doubling - 3);
        let nth = (size - (1 << doubling)).div_ceil(step);
        11 + u64::from(doubling - 7) * 8 + nth as u64
    }

    /// Returns the size of a class's blocks, or `None` for a size class without blocks.
    #[inline]
    pub(crate) fn size(class: u64) -> Option<usize> {
        match class {
            1..=11 => Some((super::number(class) + 5) * 8),
            12..=LAST => {
                let (doubling, nth) = (7 + (super::number(class) - 12) / 8, (super::number(class) - 12) % 8 + 1);
                Some((1 << doubling) + (nth << (doubling - 3)))
            }
            LINES => Some(super::LINE),
            _ => None,
        }
    }
}

const _: () = {
    assert!(at::CLASSES + 8 * 256 <= at::REDO_LOG && class::COUNT as u64 == class::LAST + 1);
    assert!(PAYLOAD % 4096 == 0);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_what_it_is_for_and_wastes_an_eighth_at_most() {
        for size in 1..100_000 {
            let block = class::size(class::of(size)).unwrap();
            assert!(block >= size, "{size} in {block}");
            assert!(block % 8 == 0 && (block < 56 || block - size <= 8.max(size / 8)), "{size} in {block}");
            assert_eq!(class::of(block), class::of(size));
        }
        assert!(class::of(1 << 29) <= class::LAST);
    }

    #[test]
    fn the_parts_of_a_dict_do_not_overlap_and_end_with_its_capacity() {
        for payload in [1 << 20, (1 << 20) + 4097, 64 << 20, 1 << 30, 10 << 30, 1 << 40, MAX_CAPACITY - (1 << 20)] {
            let layout = Layout::of(payload + PAYLOAD as u64);
            if isize::try_from(payload).is_err() {
                assert_eq!(layout, None, "{payload}");
                continue;
            }
            let layout = layout.unwrap();
            assert_eq!(layout.change_log, at::REDO_LOG + 16 * layout.log_entries);
            assert!(layout.change_log + layout.change_log_size <= layout.directory);
            assert!(layout.directory + 8 * layout.spans <= layout.table);
            assert!(layout.entry(layout.spans) <= layout.first_span);
            assert!(layout.span(layout.spans) as u64 <= payload + PAYLOAD as u64);
            assert!(layout.spans >= 200 && layout.spans <= MAX_SPANS, "{payload}: {layout:?}");
            assert!(layout.largest_block() >= 2048);
            // A key of 1 KiB and the numbers of the spans of a value of a quarter of the capacity.
            let parts = usize::try_from(payload / 4).unwrap() / layout.span_size() + 1;
            assert!(40 + 1028 + 4 * parts <= layout.largest_block(), "{payload}: {layout:?}");
        }
        assert_eq!(Layout::of(PAYLOAD as u64 + (1 << 20) - 1), None);
        assert_eq!(Layout::of(u64::MAX), None);
    }
}

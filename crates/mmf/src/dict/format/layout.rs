//! Where everything in a dict is. `docs/format.md` tells the same in words.
//!
//! All of it follows from the segment's capacity, so nothing of it has to be read, and trusted, from shared memory.

use crate::segment::layout::PAYLOAD;

/// Words of the dict, as offsets from the segment's start.
pub(in crate::dict) mod at {
    use super::PAYLOAD;

    /// The version of the last committed change. Whatever has a larger stamp is not there yet.
    pub(crate) const COMMIT: usize = PAYLOAD;
    /// Whatever has a version up to this was cleared.
    pub(crate) const FLOOR: usize = PAYLOAD + 8;
    /// How many buckets the index has; 0 before the first change.
    pub(crate) const BUCKETS: usize = PAYLOAD + 16;
    /// Not 0: a sync failed, so that any page may have gone back to an older state. Readers verify
    /// each value. Beside COMMIT, which they load anyway.
    pub(crate) const SUSPECT: usize = PAYLOAD + 24;
    /// How many entries there are.
    pub(crate) const LEN: usize = PAYLOAD + 64;
    /// How many spans have ever been taken.
    pub(crate) const USED: usize = PAYLOAD + 72;
    /// The first span that is free, + 1; the others follow by their links.
    pub(crate) const FREE: usize = PAYLOAD + 80;
    /// The next bucket that is looked through for what was cleared, + 1; 0 if nothing is left to look for.
    pub(crate) const SWEEP: usize = PAYLOAD + 88;
    /// How many pairs of the redo log are to be carried out; 0 mostly.
    pub(crate) const REDO_LEN: usize = PAYLOAD + 128;
    /// Up to where in the change log something is written, or soon will be; and up to where it is
    /// there.
    pub(crate) const LOG_CLAIMED: usize = PAYLOAD + 192;
    pub(crate) const LOG_HEAD: usize = PAYLOAD + 200;
    /// Bit 0: nothing has changed since the last flush. Bit 1: it was flushed before. Bit 2: whether the disk knows that bit
    /// 0 is off is not known. Bit 3: a sync is under way, has failed or was cut off.
    pub(crate) const DURABLE: usize = PAYLOAD + 256;
    /// The version of the last flush.
    pub(crate) const FLUSHED: usize = PAYLOAD + 264;
    /// Records that were freed since the last flush: the first; the others follow by their links.
    pub(crate) const PENDING: usize = PAYLOAD + 272;
    /// Removals since the last flush, and before it, which keep what they removed from coming back.
    pub(crate) const REMOVED: usize = PAYLOAD + 280;
    pub(crate) const REMOVED_BEFORE: usize = PAYLOAD + 288;
    /// How many bytes the three lists have.
    pub(crate) const PENDING_BYTES: usize = PAYLOAD + 296;
    /// A hash of the machine's boot in which it was opened for writing last; 0 before the first change.
    pub(crate) const BOOT: usize = PAYLOAD + 304;
    /// A word per class: the first span with room, + 1; the others follow by their links.
    pub(crate) const CLASSES: usize = PAYLOAD + 1024;
    /// The redo log: pairs of an offset and a word.
    pub(crate) const REDO_LOG: usize = PAYLOAD + 4096;
}

/// The least capacity of a dict.
pub(in crate::dict) const MIN_CAPACITY: u64 = 1 << 20;
/// No record lies farther on: slots have 40 bits for eighths of an offset.
pub(in crate::dict) const MAX_CAPACITY: u64 = 1 << 43;
/// The least size of the change log.
pub(in crate::dict) const MIN_CHANGE_LOG_SIZE: usize = 16 << 10;
/// No capacity has room for more spans.
pub(in crate::dict) const MAX_SPANS: usize = 16384;
/// Bytes of a bucket and of a span's entry in the table.
pub(in crate::dict) const LINE: usize = 64;
pub(in crate::dict) const ENTRY: usize = 32;

/// A number from shared memory; what this process cannot count to leads nowhere.
#[inline]
pub(in crate::dict) fn number(word: u64) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

/// Sizes and places that follow from a capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dict) struct Layout {
    /// A span has `1 << span_shift` bytes.
    pub(in crate::dict) span_shift: u32,
    /// Spans that the capacity has room for.
    pub(in crate::dict) spans: usize,
    /// Pairs that the redo log has room for.
    pub(in crate::dict) log_entries: usize,
    pub(in crate::dict) change_log: usize,
    pub(in crate::dict) change_log_size: usize,
    /// A word per span of the index: its number + 1.
    pub(in crate::dict) directory: usize,
    /// An entry per span.
    pub(in crate::dict) table: usize,
    /// The first span.
    pub(in crate::dict) first_span: usize,
}

impl Layout {
    /// Of a segment with `capacity` bytes in all; `None` if it is out of bounds.
    pub(in crate::dict) fn of(capacity: u64) -> Option<Layout> {
        let payload = capacity.checked_sub(PAYLOAD as u64)?;
        if !(MIN_CAPACITY..=MAX_CAPACITY - PAYLOAD as u64).contains(&payload) {
            return None;
        }
        // No view is longer than that, and so no sum below passes what can be counted.
        let payload = usize::try_from(payload).ok().filter(|payload| *payload <= isize::MAX as usize - PAYLOAD)?;
        let wide = (payload / 512).next_power_of_two().clamp(4096, 1 << 20);
        let span = wide.max((payload / MAX_SPANS).next_power_of_two());
        let side = (payload / 64).clamp(MIN_CHANGE_LOG_SIZE, 1 << 20) & !4095;
        let change_log = at::REDO_LOG + side;
        let directory = change_log + side;
        // More entries than spans at the most, since the tables take room of their own.
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

    /// Where a span begins.
    #[inline]
    pub(in crate::dict) fn span(&self, span: usize) -> usize {
        self.first_span + (span << self.span_shift)
    }

    /// The span that an offset lies in, if it lies in one.
    #[inline]
    pub(in crate::dict) fn span_of(&self, offset: usize) -> Option<usize> {
        let span = offset.checked_sub(self.first_span)? >> self.span_shift;
        (span < self.spans).then_some(span)
    }

    /// A span's entry in the table.
    #[inline]
    pub(in crate::dict) fn entry(&self, span: usize) -> usize {
        self.table + ENTRY * span
    }

    /// The largest block that is cut out of a span.
    #[inline]
    pub(in crate::dict) fn largest_block(&self) -> usize {
        1 << (self.span_shift - 1)
    }

    /// Buckets in a span of the index, as a shift.
    #[inline]
    pub(in crate::dict) fn lines_shift(&self) -> u32 {
        self.span_shift - LINE.trailing_zeros()
    }
}

/// Sizes of blocks: every 8 bytes up to 128, then eight to each doubling.
pub(in crate::dict) mod class {
    /// A span that nothing is in.
    pub(crate) const FREE: u64 = 0;
    /// Buckets that continue others.
    pub(crate) const LINES: u64 = 251;
    /// Buckets.
    pub(crate) const INDEX: u64 = 252;
    /// A part of a value.
    pub(crate) const PART: u64 = 253;
    /// The largest that has a size.
    pub(crate) const LAST: u64 = 187;
    /// Classes up to that.
    pub(crate) const COUNT: usize = 188;
    /// Bytes of the smallest block.
    pub(crate) const SMALLEST: usize = 48;

    /// The class whose blocks have `size` bytes at least.
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

    /// Bytes of a block of the class; `None` for what has no blocks.
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
            // A key of 1 KiB beside the numbers of the parts of the largest value.
            let parts = usize::try_from(payload / 4).unwrap() / layout.span_size() + 1;
            assert!(40 + 1028 + 4 * parts <= layout.largest_block(), "{payload}: {layout:?}");
        }
        assert_eq!(Layout::of(PAYLOAD as u64 + (1 << 20) - 1), None);
        assert_eq!(Layout::of(u64::MAX), None);
    }
}

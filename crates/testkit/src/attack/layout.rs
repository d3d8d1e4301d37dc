//! Where everything lies in a segment, computed from its capacity by `docs/format.md` alone.
//!
//! The library's own constants are not used: an attacker that shared them would share their
//! mistakes.

/// Words of the header, as offsets from the segment's start.
pub(super) mod header {
    pub(crate) const VERSION: usize = 8;
    pub(crate) const COMPATIBLE: usize = 16;
    pub(crate) const READ_COMPATIBLE: usize = 24;
    pub(crate) const INCOMPATIBLE: usize = 32;
    pub(crate) const KIND: usize = 40;
    pub(crate) const ID: usize = 48;
    pub(crate) const CREATED: usize = 64;
    pub(crate) const CAPACITY: usize = 72;
    pub(crate) const PAYLOAD: usize = 80;
    pub(crate) const SLOTS: usize = 88;
    pub(crate) const NAME_LEN: usize = 92;
    pub(crate) const NAME: usize = 96;
    pub(crate) const CHECKSUM: usize = 1016;
    /// The bytes that never change end here.
    pub(crate) const END: usize = 1024;
}

/// What changes: the boot, the lock and the slots.
pub(super) const MACHINE: usize = 1024;
pub(super) const BOOT_ID: usize = 1040;
pub(super) const LOCK: usize = 2048;
pub(super) const VERSION: usize = 2056;
pub(super) const LENGTH: usize = 2064;
pub(super) const LOCK_QUEUE: usize = 2112;
pub(super) const OCCUPIED: usize = 2176;
pub(super) const CHANGE_QUEUE: usize = 2304;
pub(super) const OWN_WORDS: usize = 3072;
pub(super) const SLOTS: usize = 4096;
pub(super) const SLOT: usize = 64;
pub(super) const SLOT_COUNT: usize = 256;
/// Where the payload begins, which is also what a segment has beside its contents.
pub(super) const PAYLOAD: usize = 20480;

/// Bits of the lock's word.
pub(super) mod bit {
    pub(crate) const STARVED: u64 = 1 << 16;
    pub(crate) const POISON: u64 = 1 << 17;
    pub(crate) const SLEEPERS: u64 = 1 << 18;
    pub(crate) const WATCHED: u64 = 1 << 19;
    /// The first of four.
    pub(crate) const READERS: u32 = 20;
}

/// Words of a dict.
pub(super) mod dict {
    use super::PAYLOAD;

    pub(crate) const COMMIT: usize = PAYLOAD;
    pub(crate) const FLOOR: usize = PAYLOAD + 8;
    pub(crate) const BUCKETS: usize = PAYLOAD + 16;
    pub(crate) const LEN: usize = PAYLOAD + 64;
    pub(crate) const USED: usize = PAYLOAD + 72;
    pub(crate) const FREE: usize = PAYLOAD + 80;
    pub(crate) const SWEEP: usize = PAYLOAD + 88;
    pub(crate) const REDO_LEN: usize = PAYLOAD + 128;
    pub(crate) const CLAIMED: usize = PAYLOAD + 192;
    pub(crate) const HEAD: usize = PAYLOAD + 200;
    pub(crate) const DURABLE: usize = PAYLOAD + 256;
    pub(crate) const FLUSHED: usize = PAYLOAD + 264;
    pub(crate) const PENDING: usize = PAYLOAD + 272;
    pub(crate) const REMOVED: usize = PAYLOAD + 280;
    pub(crate) const REMOVED_BEFORE: usize = PAYLOAD + 288;
    pub(crate) const PENDING_BYTES: usize = PAYLOAD + 296;
    pub(crate) const BOOT: usize = PAYLOAD + 304;
    pub(crate) const CLASSES: usize = PAYLOAD + 1024;
    pub(crate) const REDO_LOG: usize = PAYLOAD + 4096;
}

/// Bytes of a bucket.
pub(super) const LINE: usize = 64;
/// Bytes of a span's entry in the table.
pub(super) const ENTRY: usize = 32;
/// Bytes of a record before its key.
pub(super) const RECORD: usize = 40;

/// Places in a dict that follow from its capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of a span.
    pub(super) span: usize,
    pub(super) spans: usize,
    /// Pairs that the redo log has room for.
    pub(super) pairs: usize,
    pub(super) ring: usize,
    pub(super) ring_size: usize,
    pub(super) directory: usize,
    pub(super) table: usize,
    /// Where the spans begin.
    pub(super) heap: usize,
}

impl Shape {
    /// Returns the places in a dict whose whole segment may have `total` bytes.
    pub(super) fn of(total: usize) -> Shape {
        let c = total.saturating_sub(PAYLOAD).max(1 << 20);
        let span = (c / 512).next_power_of_two().clamp(4096, 1 << 20).max((c / 16384).next_power_of_two());
        let side = (c / 64).clamp(16384, 1 << 20) / 4096 * 4096;
        let ring = dict::REDO_LOG + side;
        let directory = ring + side;
        let table = (directory + 8 * (c / span)).next_multiple_of(ENTRY);
        let heap = (table + ENTRY * (c / span)).next_multiple_of(4096);
        let spans = (PAYLOAD + c).saturating_sub(heap) / span;
        Shape { span, spans, pairs: side / 16, ring, ring_size: side, directory, table, heap }
    }

    /// Returns where the entry of a span begins.
    pub(super) fn entry(&self, span: usize) -> usize {
        self.table + ENTRY * span
    }

    /// Returns where a span begins.
    pub(super) fn start(&self, span: usize) -> usize {
        self.heap + self.span * span
    }

    /// Returns the span that an offset lies in.
    pub(super) fn span_of(&self, offset: usize) -> Option<usize> {
        let span = offset.checked_sub(self.heap)? / self.span;
        (span < self.spans).then_some(span)
    }

    /// Returns how many buckets a span holds.
    pub(super) fn lines(&self) -> usize {
        self.span / LINE
    }
}

/// Returns the checksum of a header's first 1016 bytes: FNV-1a with 64 bits.
pub(super) fn checksum(header: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    header.iter().take(header::CHECKSUM).fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of `docs/format.md`, computed by hand for 1 MiB.
    #[test]
    fn the_shape_of_a_small_dict_is_that_of_the_format() {
        let shape = Shape::of(PAYLOAD + (1 << 20));
        assert_eq!((shape.span, shape.pairs, shape.ring_size), (4096, 1024, 16384));
        assert_eq!((shape.ring, shape.directory, shape.table), (40960, 57344, 59392));
        assert_eq!((shape.heap, shape.spans), (69632, 244));
    }
}

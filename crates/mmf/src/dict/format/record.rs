//! Records: a key and its value, or its removal, in a block.
//!
//! ```text
//! +0   stamp: the version of the change that wrote this block; no stamp is used twice.
//!      0: no record is here
//! +8   the previous record of the key, which counts until this one is committed
//! +16  version: of the change that gave the key this value; below the stamp if the record was
//!      moved
//! +24  bits 0..16 length of the key, 16..23 kind, 23 the value is in spans, 24..64 length of the
//!      value
//! +32  checksum of key, value and header, mixed with the block's offset and the stamp
//! +40  the key, and after it the value; or, from the next multiple of 4, the numbers (u32) of the
//!      spans that hold the value
//! ```

use crate::dict::format::layout::Layout;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Readers and checks take a record of a larger version or stamp for damage.
pub(in crate::dict) const MAX_VERSION: u64 = 1 << 62;
/// Writers refuse a dict whose last change has a larger version. A change has fewer keys than the
/// difference, so it gives no record a version above [`MAX_VERSION`].
pub(in crate::dict) const MAX_COMMIT: u64 = MAX_VERSION - (1 << 32);

pub(in crate::dict) const STAMP: usize = 0;
pub(in crate::dict) const PREV: usize = 8;
pub(in crate::dict) const VERSION: usize = 16;
pub(in crate::dict) const CHECKSUM: usize = 32;
/// The number of bytes before the key.
pub(in crate::dict) const HEADER_LEN: usize = 40;
/// The longest key, in bytes.
pub(in crate::dict) const KEY_MAX: usize = 1024;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dict) enum RecordKind {
    /// A value of raw bytes.
    Bytes,
    /// A value in `MessagePack`.
    Encoded,
    /// The key was removed.
    Removal,
}

/// The bit of the kind for a value that lies in spans of its own.
const IN_SPANS: u64 = 0x80;

/// A record's header, except for the stamp and the previous record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dict) struct RecordHeader {
    pub(in crate::dict) version: u64,
    pub(in crate::dict) key_len: usize,
    pub(in crate::dict) kind: RecordKind,
    pub(in crate::dict) value_len: usize,
    pub(in crate::dict) in_spans: bool,
    pub(in crate::dict) checksum: u64,
}

impl RecordHeader {
    /// Decodes the three words from +16 on. Returns `None` if they are no record's header.
    #[inline]
    pub(in crate::dict) fn of(version: u64, what: u64, checksum: u64) -> Option<RecordHeader> {
        let kind = match (what >> 16) & 0x7f {
            0 => RecordKind::Bytes,
            1 => RecordKind::Encoded,
            2 => RecordKind::Removal,
            _ => return None,
        };
        let key_len = (what & 0xffff) as usize;
        if key_len > KEY_MAX {
            return None;
        }
        let value_len = usize::try_from(what >> 24).ok()?;
        Some(RecordHeader { version, key_len, kind, value_len, in_spans: (what >> 16) & IN_SPANS != 0, checksum })
    }

    /// Decodes the word at +24 of a record with a value in its block. Returns its kind and the
    /// value's length, or `None` for another key length, a removal, or a value in spans.
    #[inline(always)]
    pub(in crate::dict) fn inline_kind_and_len(what: u64, key_len: usize) -> Option<(RecordKind, usize)> {
        const { assert!(RecordKind::Bytes as u64 == 0 && RecordKind::Encoded as u64 == 1) };
        if what & 0xfe_ffff != key_len as u64 {
            return None;
        }
        let kind = if what & 1 << 16 == 0 { RecordKind::Bytes } else { RecordKind::Encoded };
        Some((kind, usize::try_from(what >> 24).ok()?))
    }

    /// Encodes the word at +24.
    #[inline]
    pub(in crate::dict) fn what(&self) -> u64 {
        let kind = match self.kind {
            RecordKind::Bytes => 0,
            RecordKind::Encoded => 1,
            RecordKind::Removal => 2,
        };
        let spans = if self.in_spans { IN_SPANS } else { 0 };
        self.key_len as u64 | (kind | spans) << 16 | (self.value_len as u64) << 24
    }

    /// Returns the checksum of a record with this header, key and value, before it is mixed with
    /// [`location_mix`].
    #[inline(always)]
    pub(in crate::dict) fn sum(&self, seed: u64, key: &[u8], value: &[u8]) -> u64 {
        xxh3_64_with_seed(value, self.value_seed(seed, key))
    }

    /// Returns the seed for the hash of the value: a hash of key, version and word at +24.
    #[inline(always)]
    pub(in crate::dict) fn value_seed(&self, seed: u64, key: &[u8]) -> u64 {
        // The multiplication keeps version and lengths from cancelling each other out.
        let about = self.version.rotate_left(32) ^ self.what().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        xxh3_64_with_seed(key, seed ^ about)
    }

    /// Returns the place of the spans' numbers, relative to the block.
    #[inline]
    pub(in crate::dict) fn spans_at(&self) -> usize {
        (HEADER_LEN + self.key_len).next_multiple_of(4)
    }

    /// Returns the number of spans that the value takes.
    #[inline]
    pub(in crate::dict) fn span_count(&self, layout: &Layout) -> usize {
        self.value_len.div_ceil(layout.span_size())
    }

    /// Returns the number of bytes that the record takes in its block.
    #[inline]
    pub(in crate::dict) fn block_len(&self, layout: &Layout) -> usize {
        if self.in_spans {
            self.spans_at() + 4 * self.span_count(layout)
        } else {
            (HEADER_LEN + self.key_len).saturating_add(self.value_len)
        }
    }
}

/// Returns the word that a checksum is xored with. After a power cut stamp and bytes may be from
/// different times. With this word the checksum is wrong for another stamp, and for a copy of the
/// bytes at another offset.
#[inline]
pub(in crate::dict) fn location_mix(block: usize, stamp: u64) -> u64 {
    stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (block as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
}

/// Returns the hash of a key. Its low 32 bits choose the bucket; its high 24 bits are in the slot.
#[inline]
pub(in crate::dict) fn hash(seed: u64, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, seed)
}

/// Returns whether a record is a removal.
pub(in crate::dict) fn is_removal(head: &RecordHeader) -> bool {
    head.kind == RecordKind::Removal
}

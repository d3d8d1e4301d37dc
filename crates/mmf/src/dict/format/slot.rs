//! Slots and lines of the index, and which bucket a hash belongs to.
//!
//! A line is 8 words of 8 bytes: 7 slots, and the offset of the line that continues it, or 0. A
//! slot has an eighth of a record's offset in bits 0..40 and the upper 24 bits of the key's hash,
//! its tag, in bits 40..64; 0 is empty.

use crate::dict::format::layout::number;

/// The number of slots of a line.
pub(in crate::dict) const LINE_SLOTS: usize = 7;

/// The place of the word that leads to the next line, relative to the line.
pub(in crate::dict) const NEXT_LINE: usize = 8 * LINE_SLOTS;

/// The words of a line.
pub(in crate::dict) type Line = [u64; 8];

/// Returns the tag of a hash: its upper 24 bits.
#[inline]
pub(in crate::dict) fn tag(hash: u64) -> u64 {
    hash >> 40
}

/// Returns the tag at its place in the upper half of a slot's word.
#[inline]
pub(in crate::dict) fn tag_in_upper_half(hash: u64) -> u32 {
    (hash >> 32) as u32 & !0xff
}

/// Encodes a slot.
#[inline]
pub(in crate::dict) fn slot_for(hash: u64, block: usize) -> u64 {
    tag(hash) << 40 | (block as u64) >> 3
}

/// Returns the offset of the block that a slot leads to.
#[inline]
pub(in crate::dict) fn block_of(slot: u64) -> usize {
    number((slot & ((1 << 40) - 1)) << 3)
}

/// Returns the bucket of a hash among `count` buckets.
#[inline]
pub(in crate::dict) fn bucket(hash: u64, count: u64) -> u64 {
    let low = hash & 0xffff_ffff;
    // The least power of two that is not below the count, less 1. For one bucket it is 1, which
    // gives the right result as well.
    let mask = u64::MAX >> (count.wrapping_sub(1) | 1).leading_zeros();
    let bucket = low & mask;
    if bucket < count { bucket } else { bucket & (mask >> 1) }
}

/// Returns the number of buckets in the word BUCKETS.
#[inline]
pub(in crate::dict) fn bucket_count(word: u64) -> u64 {
    word & ((1 << 40) - 1)
}

/// Returns a bit for each slot of a line that has a hash's tag. It has no branch on a slot, since
/// the processor could not predict it.
#[inline(always)]
pub(in crate::dict) fn matching_slots(words: &Line, hash: u64) -> u32 {
    let mut bits = 0;
    for (nth, slot) in words[..LINE_SLOTS].iter().enumerate() {
        bits |= u32::from((*slot >> 40 == tag(hash)) & (*slot != 0)) << nth;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_moves_entries_to_the_new_bucket_alone() {
        for count in 1..2000_u64 {
            let from = bucket(count, count);
            for hash in (0..5000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                let (before, after) = (bucket(hash, count), bucket(hash, count + 1));
                assert!(before < count && after <= count);
                assert!(before == after || (before == from && after == count), "{hash} {count}");
            }
        }
    }
}

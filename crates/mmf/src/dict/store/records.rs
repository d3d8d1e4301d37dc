//! [`Records`]: writes records to blocks, and copies and validates them.
//!
//! The problem: a reader copies a record without a lock while a writer may fill its block with
//! another one. After a power cut a record may have bytes from different times.
//!
//! The layout of a record is in `format/record.rs`. The algorithm:
//!
//! 1. To fill a block, the writer stores 0 as its stamp, then, after a release fence, version,
//!    kind and lengths, checksum, key and value. It stores no stamp.
//! 2. The write batch stores the stamp after its commit point.
//! 3. A reader loads the stamp, copies the record, and loads the stamp again
//!    ([`get`](crate::dict::read::get)).
//! 4. If the disk had the record meanwhile, or a sync has failed, a reader also compares the
//!    checksum with the copied bytes.
//!
//! Why it is correct: a reader that copies a byte of the new record also sees the stamp 0 or the
//! new stamp, because of the fence. No two changes have the same stamp. The checksum is mixed with
//! the block's offset and the stamp, so no record's checksum is right for bytes at another place.
//!
//! Cost: to fill a block takes a store, a fence and three guarded copies, and a hash of key and
//! value (XXH3).

use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::atomic::Ordering;

use crate::dict::format::layout::at;
use crate::dict::format::record::{HEADER_LEN, KEY_MAX, PREV, RecordHeader, RecordKind, STAMP, VERSION, location_mix};
use crate::dict::store::storage::Storage;
use crate::error::{Error, Result};
use crate::mem::{AccessorMut, FastAccessMut, Miss};
use crate::sys::fence;

/// Returns whether two keys are equal. It is inlined, since a call of `memcmp` would cost more than
/// the comparison of a short key.
#[inline(always)]
pub(in crate::dict) fn keys_equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let word = |bytes: &[u8], at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let Some(last) = a.len().checked_sub(8) else {
        return a.iter().zip(b).all(|(a, b)| a == b);
    };
    let mut at = 0;
    while at < last {
        if word(a, at) != word(b, at) {
            return false;
        }
        at += 8;
    }
    // The last word overlaps the word before it unless the length is a multiple of 8.
    word(a, last) == word(b, last)
}

/// Returns whether a record's checksum is the one of its bytes, offset and stamp.
#[inline(never)]
pub(in crate::dict) fn has_valid_checksum(
    seed: u64,
    block: usize,
    stamp: u64,
    head: &RecordHeader,
    key: &[u8],
    value: &[u8],
) -> bool {
    head.sum(seed, key, value) ^ location_mix(block, stamp) == head.checksum
}

/// A buffer for the copy of a record's header and key.
pub(in crate::dict) struct HeaderAndKey {
    pub(in crate::dict) bytes: [MaybeUninit<u8>; HEADER_LEN + KEY_MAX],
}

impl HeaderAndKey {
    #[inline]
    pub(in crate::dict) fn new() -> HeaderAndKey {
        HeaderAndKey { bytes: [const { MaybeUninit::uninit() }; HEADER_LEN + KEY_MAX] }
    }

    /// Copies the first `HEADER_LEN` bytes of a block and `key_len` more, as far as the segment
    /// reaches. Returns the header, the previous record's offset and the copied bytes of the key,
    /// or `None` if the bytes are no record's header.
    // Always inlined: a result of this size would be returned in memory, stored in pieces and
    // loaded as a whole, which stalls.
    #[inline(always)]
    pub(in crate::dict) fn copy<'b>(
        &'b mut self,
        storage: &Storage<'_>,
        block: usize,
        key_len: usize,
    ) -> Result<Option<(RecordHeader, u64, &'b [u8])>> {
        let mut len = (HEADER_LEN + key_len).min(HEADER_LEN + KEY_MAX);
        if len > storage.map.len().saturating_sub(block) {
            // A peer process may have grown the object.
            len = len.min(storage.map.refresh()?.saturating_sub(block));
        }
        let bytes = storage.map.read_uninit(block, &mut self.bytes[..len])?;
        let Some((head, key)) = bytes.split_at_checked(HEADER_LEN) else { return Ok(None) };
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Ok(RecordHeader::of(word(VERSION), word(VERSION + 8), word(VERSION + 16)).map(|head| (head, word(PREV), key)))
    }
}

/// The records of a dict.
#[derive(Clone, Copy)]
pub(in crate::dict) struct Records<'s>(&'s Storage<'s>);

impl<'s> Deref for Records<'s> {
    type Target = Storage<'s>;

    #[inline(always)]
    fn deref(&self) -> &Storage<'s> {
        self.0
    }
}

impl<'s> Records<'s> {
    #[inline(always)]
    pub(in crate::dict) fn new(storage: &'s Storage<'s>) -> Self {
        Records(storage)
    }

    /// Writes a record into a block to which no slot leads yet: header, key and value, but no
    /// stamp. `sum` is the checksum of the key and the value.
    #[inline(always)]
    pub(in crate::dict) fn fill<A: AccessorMut>(
        self,
        map: A,
        block: usize,
        head: &RecordHeader,
        sum: u64,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), A::Error> {
        // If the span had another use before, the word may have any value.
        map.put_word(block + STAMP, 0)?;
        // A reader of the block's previous record that copies a new byte also sees stamp 0.
        fence(Ordering::Release);
        map.put_words(block + VERSION, &[head.version, head.what(), sum ^ location_mix(block, head.version)])?;
        map.write(block + HEADER_LEN, key)?;
        map.write(block + HEADER_LEN + key.len(), value)
    }

    /// Writes a record with its value into a block on the fast path.
    #[inline(always)]
    pub(in crate::dict) fn fill_inline(
        self,
        map: FastAccessMut<'_>,
        block: usize,
        version: u64,
        key: &[u8],
        kind: RecordKind,
        value: &[u8],
    ) -> Result<(), Miss> {
        let head =
            RecordHeader { version, key_len: key.len(), kind, value_len: value.len(), in_spans: false, checksum: 0 };
        self.fill(map, block, &head, head.sum(self.seed, key, value), key, value)
    }

    /// Returns whether a record is from before the file was opened, so that the disk had it
    /// meanwhile.
    #[inline(always)]
    pub(in crate::dict) fn is_from_before_open(self, version: u64, stamp: u64) -> bool {
        // A record that was moved since then has a new stamp. A damaged version may be any number.
        version.min(stamp) <= self.verify_up_to
    }

    /// Returns whether a record may differ from what was written: it is from before the file was
    /// opened, or a sync has failed since then.
    #[inline]
    pub(in crate::dict) fn must_be_verified(self, version: u64, stamp: u64) -> bool {
        self.is_from_before_open(version, stamp) || self.map.word(at::SUSPECT).is_ok_and(|suspect| suspect != 0)
    }

    /// Returns whether a copied record is valid. Compares the checksum only if
    /// [`must_be_verified`](Records::must_be_verified) says so.
    #[inline(always)]
    pub(in crate::dict) fn is_valid(
        self,
        block: usize,
        stamp: u64,
        head: &RecordHeader,
        key: &[u8],
        value: &[u8],
    ) -> bool {
        !self.must_be_verified(head.version, stamp) || has_valid_checksum(self.seed, block, stamp, head, key, value)
    }

    #[cold]
    #[inline(never)]
    pub(in crate::dict) fn checksum_error(self, block: usize) -> Error {
        let error = self.damaged(format!("the record at {block} has another checksum than its bytes"));
        error.with_help("`check` says what else is damaged, `repair` keeps what is whole")
    }

    /// Returns the header and the key of a record. A caller without a lock must compare the stamp
    /// before and after.
    pub(in crate::dict) fn key_at(self, block: usize) -> Result<(RecordHeader, Vec<u8>)> {
        let mut copy = HeaderAndKey::new();
        // One copy is enough for a key of up to 64 bytes.
        let Some((head, _, key)) = copy.copy(&self, block, 64)? else { return Err(self.no_record_error(block)) };
        if let Some(key) = key.get(..head.key_len) {
            return Ok((head, key.to_vec()));
        }
        let whole = copy.copy(&self, block, head.key_len)?;
        match whole.and_then(|(head, _, key)| Some((head, key.get(..head.key_len)?))) {
            Some((head, key)) => Ok((head, key.to_vec())),
            None => Err(self.no_record_error(block)),
        }
    }

    #[cold]
    #[inline(never)]
    pub(in crate::dict) fn no_record_error(self, block: usize) -> Error {
        self.damaged(format!("no record begins at {block}"))
    }
}

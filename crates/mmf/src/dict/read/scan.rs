//! [`Scanner`]: copies all entries of a dict, with or without a lock.
//!
//! The problem: a snapshot needs all entries of one moment, but a scan takes long, and writers go
//! on if it holds no lock. A split that is under way has an entry in two buckets.
//!
//! The algorithm of a scan:
//!
//! 1. For each bucket, walk its lines. For each slot, load it as one word.
//! 2. Read the record, or the previous one if it is not committed, between two loads of its stamp.
//! 3. Skip the record if its hash belongs to another bucket, if it is a removal, or if its version
//!    is at most FLOOR. Otherwise copy key and value.
//! 4. Load the slot again. If slot or stamp has changed, the scan fails with [`Retry::Changed`].
//!
//! Each entry is whole. The entries are of one moment if the caller holds the lock, or if
//! [`generation`](Scanner::generation) is equal before and after the scan. The caller compares it.
//!
//! Why the generation suffices: it has COMMIT, FLOOR and BUCKETS, one of which differs after every
//! change; REDO_LEN, which is not 0 during a change; and a hash of the words that the redo log's
//! stores lead to. A single removal is visible before COMMIT, and its writer may be slow, stopped
//! or dead at that point; the hash shows its progress.
//!
//! Why it ends with a hostile peer: one budget bounds the lines of all buckets, another the bytes
//! of all entries, and the work limit the time.
//!
//! Cost: four loads and one copy of header and key for each entry, and the copy of its value.

use std::ops::Deref;
use std::sync::atomic::Ordering;

use crate::dict::Encoding;
use crate::dict::format::layout::{at, class, number};
use crate::dict::format::marks::REPAIRING;
use crate::dict::format::record;
use crate::dict::format::record::{HEADER_LEN, RecordHeader, RecordKind, STAMP};
use crate::dict::format::slot::{LINE_SLOTS, block_of, bucket, tag};
use crate::dict::read::sink::Retry;
use crate::dict::store::bucket_walk::BucketWalk;
use crate::dict::store::storage::Storage;
use crate::dict::store::work_limit::{WorkLimit, too_slow};
use crate::error::Result;
use crate::sys::fence;

#[cfg(feature = "serde")]
use {crate::dict::format::encoding::decode, serde::de::DeserializeOwned};

/// A copy of a key with its value at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The bytes of its value.
    pub value: Vec<u8>,
    /// The encoding of these bytes.
    pub encoding: Encoding,
    /// The version of the change that gave the key this value.
    pub version: u64,
}

#[cfg(feature = "serde")]
impl Entry {
    /// Decodes the value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Mismatch`](crate::ErrorKind::Mismatch) for a value of another type.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T> {
        decode(self.encoding, &self.value)
    }
}

/// Words that differ after every change, and during one. Equal generations before and after a scan
/// mean that no change came between.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::dict) struct Generation {
    redo_log: u64,
    /// A hash of the words that the redo log's stores lead to: it differs after each store.
    progress: u64,
    commit_state: (u64, u64, u64),
}

impl Generation {
    /// Returns whether a repair or a rebuild is under way, or was interrupted.
    pub(in crate::dict) fn is_repair_incomplete(&self) -> bool {
        self.redo_log == REPAIRING
    }

    /// Returns whether a change is under way, or was left by a dead writer.
    pub(in crate::dict) fn is_changing(&self) -> bool {
        self.redo_log != 0
    }
}

/// The largest number of bytes that an interrupted split may add to a scan: the keys of the entries
/// that two buckets lead to.
pub(in crate::dict) const SPLIT_SLACK: usize = 1 << 20;

/// The position of a scan, and what it may still copy.
pub(in crate::dict) struct ScanCursor<'a> {
    count: u64,
    bucket: u64,
    slot: u64,
    /// The number of bytes that further entries may have. Slots that lead to one record many times
    /// use it up.
    room: usize,
    limit: &'a WorkLimit,
}

/// Copies all entries.
#[derive(Clone, Copy)]
pub(in crate::dict) struct Scanner<'s>(&'s Storage<'s>);

impl<'s> Deref for Scanner<'s> {
    type Target = Storage<'s>;

    #[inline(always)]
    fn deref(&self) -> &Storage<'s> {
        self.0
    }
}

impl<'s> Scanner<'s> {
    #[inline(always)]
    pub(in crate::dict) fn new(storage: &'s Storage<'s>) -> Self {
        Scanner(storage)
    }

    /// Copies all entries. The caller holds the lock.
    pub(in crate::dict) fn scan_locked(self, values: bool, limit: &WorkLimit) -> Result<Vec<Entry>> {
        self.scan(values, limit).map_err(|retry| match retry {
            Retry::Failed(error) => error,
            Retry::Changed => self.no_entry_error(),
        })
    }

    /// Returns the generation, which a reader without a lock compares. It loads the redo log first:
    /// a removal is visible before its version.
    pub(in crate::dict) fn generation(self) -> Result<Generation> {
        let redo_log = self.map.word(at::REDO_LEN)?;
        let mut progress = 0_u64;
        for nth in 0..number(redo_log).min(self.layout.log_entries) {
            let offset = self.map.word(at::REDO_LOG + 16 * nth)?;
            // Another change may be overwriting the log, or it may be damaged. An offset outside
            // the mapping counts as 0.
            let there = self.map.word(number(offset)).unwrap_or_default();
            progress = (progress.rotate_left(7) ^ offset).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            progress = (progress.rotate_left(7) ^ there).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        Ok(Generation { redo_log, progress, commit_state: self.commit_state()? })
    }

    /// Copies all entries. Each is whole. The caller checks that they are of one moment.
    pub(in crate::dict) fn scan(self, values: bool, limit: &WorkLimit) -> Result<Vec<Entry>, Retry> {
        let (count, mut lines) = self.index().count_and_most_lines()?;
        if count == 0 {
            self.check_no_incomplete_repair()?;
        }
        let mut entries = Vec::new();
        // After an interrupted split two buckets lead to the entries of one.
        let room = (self.spans().spans_used()? << self.layout.span_shift).saturating_add(SPLIT_SLACK);
        let mut scan = ScanCursor { count, bucket: 0, slot: 0, room, limit };
        for nth in 0..count {
            scan.bucket = nth;
            let mut words = [0; 8];
            let mut walk = BucketWalk::new(&self, nth)?.with_budget(&mut lines);
            while let Some(at) = walk.advance(&mut words)? {
                if limit.spend() {
                    return Err(too_slow(self.map, "read").into());
                }
                for word in (0..LINE_SLOTS).filter(|word| words[*word] != 0) {
                    let slot_at = at + 8 * word;
                    // The copied word may be torn; this load is not.
                    scan.slot = self.map.word(slot_at)?;
                    if scan.slot == 0 {
                        continue;
                    }
                    let found = self.entry(&mut scan, values);
                    fence(Ordering::Acquire);
                    if self.map.word(slot_at)? != scan.slot {
                        return Err(Retry::Changed);
                    }
                    entries.extend(found?);
                }
            }
        }
        Ok(entries)
    }

    /// Copies the record of a slot, or the previous one if it is not committed. Returns `None` if
    /// neither counts.
    fn entry(self, scan: &mut ScanCursor<'_>, values: bool) -> Result<Option<Entry>, Retry> {
        let mut block = block_of(scan.slot);
        for _ in 0..2 {
            let stamp = self.map.word(block + STAMP)?;
            if stamp == 0 {
                return Err(Retry::Changed);
            }
            let copied = self.records().key_at(block);
            let before = self.map.word(block + record::PREV)?;
            let is_there = stamp <= self.map.word(at::COMMIT)?;
            let floor = self.map.word(at::FLOOR)?;
            let taken = match copied {
                Ok((head, key)) if is_there => self.copy_entry(scan, (block, stamp), &head, key, values, floor),
                other => other.map(|_| None),
            };
            fence(Ordering::Acquire);
            // This comes before an error is reported, too.
            if self.map.word(block + STAMP)? != stamp {
                return Err(Retry::Changed);
            }
            let taken = taken?;
            if is_there {
                return Ok(taken);
            }
            match number(before) {
                0 => return Ok(None),
                before => block = before,
            }
        }
        Ok(None)
    }

    /// Copies a record as an entry. Returns `None` if it does not count, or belongs to another
    /// bucket.
    fn copy_entry(
        self,
        scan: &mut ScanCursor<'_>,
        (block, stamp): (usize, u64),
        head: &RecordHeader,
        key: Vec<u8>,
        values: bool,
        floor: u64,
    ) -> Result<Option<Entry>> {
        let hash = record::hash(self.seed, &key);
        if tag(hash) != scan.slot >> 40 {
            return Err(self.damaged(format!("a slot leads to another key's record at {block}")));
        }
        // During a split two buckets lead to the record.
        let is_here = bucket(hash, scan.count) == scan.bucket;
        let counts = is_here && head.kind != RecordKind::Removal && head.version > floor;
        // The bounds are checked before the value is copied.
        let bytes =
            (HEADER_LEN + key.len()).max(class::SMALLEST).saturating_add(if counts { head.value_len } else { 0 });
        scan.room = match scan.room.checked_sub(bytes) {
            Some(left) => left,
            None => return Err(self.damaged("its entries have more bytes than it has")),
        };
        if scan.limit.spend_bytes(if values { bytes } else { 0 }) {
            return Err(too_slow(self.map, "read"));
        }
        if !counts {
            return Ok(None);
        }
        let mut value = Vec::new();
        if values {
            self.values().append_value(block, head, &mut value, scan.limit)?;
            if !self.records().is_valid(block, stamp, head, &key, &value) {
                return Err(self.records().checksum_error(block));
            }
        }
        let Ok(key) = String::from_utf8(key) else { return Err(self.damaged("a key is not UTF-8")) };
        Ok(Some(Entry { key, value, encoding: Encoding::of(head.kind), version: head.version }))
    }
}

//! Copies of all entries.

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

/// A key with its value, as they were at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The bytes of its value.
    pub value: Vec<u8>,
    /// How they are encoded.
    pub encoding: Encoding,
    /// The version of the change that gave the key this value.
    pub version: u64,
}

#[cfg(feature = "serde")]
impl Entry {
    /// The value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Mismatch`](crate::ErrorKind::Mismatch) for a value of another type.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T> {
        decode(self.encoding, &self.value)
    }
}

/// What is the same before and after while nobody changes anything.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::dict) struct Generation {
    redo_log: u64,
    /// How far the change in the redo log is carried out.
    progress: u64,
    commit_state: (u64, u64, u64),
}

impl Generation {
    /// Whether a repair is under way, or was cut off.
    pub(in crate::dict) fn is_repair_incomplete(&self) -> bool {
        self.redo_log == REPAIRING
    }

    /// Whether somebody is changing something, or died at it.
    pub(in crate::dict) fn is_changing(&self) -> bool {
        self.redo_log != 0
    }
}

/// Bytes of keys that a split which was cut off leads to twice, at the most: those of some lines of
/// entries.
pub(in crate::dict) const SPLIT_SLACK: usize = 1 << 20;

/// Where an entry is looked for, and what may still be copied.
pub(in crate::dict) struct ScanCursor<'a> {
    count: u64,
    bucket: u64,
    slot: u64,
    /// No more can be taken in than there is, whatever leads there twice.
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

    /// All entries, where nobody writes meanwhile.
    pub(in crate::dict) fn scan_locked(self, values: bool, limit: &WorkLimit) -> Result<Vec<Entry>> {
        self.scan(values, limit).map_err(|retry| match retry {
            Retry::Failed(error) => error,
            Retry::Changed => self.no_entry_error(),
        })
    }

    /// What tells whether anything is changed, for those who have no lock. The redo log comes
    /// first: a removal shows before its version does, and its writer may be slow, stopped or dead,
    /// so its stores are looked at themselves.
    pub(in crate::dict) fn generation(self) -> Result<Generation> {
        let redo_log = self.map.word(at::REDO_LEN)?;
        let mut progress = 0_u64;
        for nth in 0..number(redo_log).min(self.layout.log_entries) {
            let offset = self.map.word(at::REDO_LOG + 16 * nth)?;
            // Somebody may be writing another change over it, or may have damaged it: then nothing is stored there.
            let there = self.map.word(number(offset)).unwrap_or_default();
            progress = (progress.rotate_left(7) ^ offset).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            progress = (progress.rotate_left(7) ^ there).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        Ok(Generation { redo_log, progress, commit_state: self.commit_state()? })
    }

    /// All entries. Each is whole; that they are of one moment is for the caller to find out.
    pub(in crate::dict) fn scan(self, values: bool, limit: &WorkLimit) -> Result<Vec<Entry>, Retry> {
        let (count, mut lines) = self.index().count_and_most_lines()?;
        if count == 0 {
            self.check_no_incomplete_repair()?;
        }
        let mut entries = Vec::new();
        // Where a split was cut off, the entries of one bucket are there twice.
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
                    // The copy may be of two words; this is one.
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

    /// What counts of the record that a slot leads to and the one before it.
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
            // Also before an error is believed.
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

    /// A record as an entry, if it is one, and in the bucket that is looked through.
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
        // A split that is under way has it in two buckets.
        let is_here = bucket(hash, scan.count) == scan.bucket;
        let counts = is_here && head.kind != RecordKind::Removal && head.version > floor;
        // Before anything is copied.
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

//! All entries of a moment.

use std::sync::atomic::Ordering;
use std::vec;

use super::Dict;
use super::allocator::Storage;
use super::bucket_walk::BucketWalk;
use super::encoding::Encoding;
use super::index::{LINE_SLOTS, block_of, bucket, tag};
use super::layout::class::SMALLEST;
use super::layout::{at, number};
use super::read::{MAX_FAILED_READS, Retry};
use super::record::{self, HEADER_LEN, RecordHeader, RecordKind, STAMP};
use super::redo_log;
use super::transaction::ReadSession;
use super::work_limit::{MIN_WORK_TIME, WorkLimit, too_slow};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::retry::Attempts;
use crate::sys::fence;
use crate::types::Access;

#[cfg(feature = "serde")]
use {super::encoding::decode, serde::de::DeserializeOwned};

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
    /// [`ErrorKind::Mismatch`] for a value of another type.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T> {
        decode(self.encoding, &self.value)
    }
}

/// The entries of one moment, in no particular order.
#[derive(Debug)]
pub struct Entries(vec::IntoIter<Entry>);

impl Iterator for Entries {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Entries {}

impl Dict {
    /// All keys as they are at one moment, in no particular order. It is one call, with the bounds
    /// of [`entries`](Dict::entries); what it returns is a copy.
    ///
    /// # Errors
    ///
    /// As [`entries`](Dict::entries).
    pub fn keys(&self) -> Result<Vec<String>> {
        Ok(self.collect(false)?.into_iter().map(|entry| entry.key).collect())
    }

    /// All entries as they are at one moment, copied. Writers wait while a handle for reading and writing copies them; a read-only
    /// one copies again if somebody wrote meanwhile.
    ///
    /// All of it is done before this returns: iterating over what it returned waits for nothing and
    /// has no deadline. It waits for the lock up to the handle's timeout, and then copies for as
    /// long again, and at least for the handle's [`work_time`](super::DictOptions::work_time) of
    /// 50 ms. A dict that takes longer needs more of either.
    ///
    /// # Errors
    ///
    /// As [`set_bytes`](Dict::set_bytes), the lock being that of readers; [`ErrorKind::Timeout`]
    /// also where copying takes longer than the timeout; for a read-only handle
    /// [`ErrorKind::Contended`] where somebody wrote meanwhile until the timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("moment-{}", std::process::id()))?, 1 << 20)?;
    /// dict.set("one", &1)?;
    /// dict.set("two", &2)?;
    /// let mut sum = 0;
    /// for entry in dict.entries()? {
    ///     sum += entry.get::<i32>()?;
    /// }
    /// assert_eq!(sum, 3);
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn entries(&self) -> Result<Entries> {
        Ok(Entries(self.collect(true)?.into_iter()))
    }

    /// As `entries`, for those who have the lock, or who look themselves whether anybody wrote.
    pub(super) fn entries_in_snapshot(&self) -> Result<Entries> {
        match self.segment.map.access() {
            Access::ReadWrite => {
                Ok(Entries(self.storage().scan_locked(true, &WorkLimit::new(self.work_deadline()))?.into_iter()))
            }
            Access::ReadOnly | Access::CopyOnWrite => self.entries(),
        }
    }

    fn collect(&self, values: bool) -> Result<Vec<Entry>> {
        if self.segment.map.access() == Access::ReadWrite {
            let _reader = ReadSession::lock(self, self.lock_deadline())?;
            return self.storage().scan_locked(values, &WorkLimit::new(self.work_deadline()));
        }
        let limit = WorkLimit::new(self.work_deadline());
        let mut attempts = Attempts::new(self.lock_deadline().at_least(MIN_WORK_TIME));
        let mut in_vain = 0;
        loop {
            let before = self.storage().generation()?;
            let entries = self.storage().scan(values, &limit);
            fence(Ordering::Acquire);
            // Also before an error is believed.
            let changed = self.storage().generation()? != before;
            if !changed {
                in_vain += 1;
                match entries {
                    Ok(entries) => return Ok(entries),
                    Err(Retry::Failed(error)) => return Err(error),
                    Err(Retry::Changed) if in_vain == MAX_FAILED_READS => return Err(self.storage().no_entry_error()),
                    Err(Retry::Changed) => {}
                }
            } else {
                in_vain = 0;
            }
            if limit.is_over() || !attempts.pause(changed) {
                return Err(self.segment.name_error(Error::new(ErrorKind::Contended, "read")));
            }
        }
    }
}

/// What is the same before and after while nobody changes anything.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Generation {
    redo_log: u64,
    /// How far the change in the redo log is carried out.
    progress: u64,
    commit_state: (u64, u64, u64),
}

impl Generation {
    /// Whether a repair is under way, or was cut off.
    pub(super) fn is_repair_incomplete(&self) -> bool {
        self.redo_log == redo_log::REPAIRING
    }

    /// Whether somebody is changing something, or died at it.
    pub(super) fn is_changing(&self) -> bool {
        self.redo_log != 0
    }
}

/// Bytes of keys that a split which was cut off leads to twice, at the most: those of some lines of
/// entries.
const SPLIT_SLACK: usize = 1 << 20;

/// Where an entry is looked for, and what may still be copied.
struct ScanCursor<'a> {
    count: u64,
    bucket: u64,
    slot: u64,
    /// No more can be taken in than there is, whatever leads there twice.
    room: usize,
    limit: &'a WorkLimit,
}

impl Storage<'_> {
    /// All entries, where nobody writes meanwhile.
    pub(super) fn scan_locked(&self, values: bool, limit: &WorkLimit) -> Result<Vec<Entry>> {
        self.scan(values, limit).map_err(|retry| match retry {
            Retry::Failed(error) => error,
            Retry::Changed => self.no_entry_error(),
        })
    }

    /// What tells whether anything is changed, for those who have no lock. The redo log comes
    /// first: a removal shows before its version does, and its writer may be slow, stopped or dead,
    /// so its stores are looked at themselves.
    pub(super) fn generation(&self) -> Result<Generation> {
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
    fn scan(&self, values: bool, limit: &WorkLimit) -> Result<Vec<Entry>, Retry> {
        let (count, mut lines) = self.count_and_most_lines()?;
        if count == 0 {
            self.check_no_incomplete_repair()?;
        }
        let mut entries = Vec::new();
        // Where a split was cut off, the entries of one bucket are there twice.
        let room = (self.spans_used()? << self.layout.span_shift).saturating_add(SPLIT_SLACK);
        let mut scan = ScanCursor { count, bucket: 0, slot: 0, room, limit };
        for nth in 0..count {
            scan.bucket = nth;
            let mut words = [0; 8];
            let mut walk = BucketWalk::new(self, nth)?.with_budget(&mut lines);
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
    fn entry(&self, scan: &mut ScanCursor<'_>, values: bool) -> Result<Option<Entry>, Retry> {
        let mut block = block_of(scan.slot);
        for _ in 0..2 {
            let stamp = self.map.word(block + STAMP)?;
            if stamp == 0 {
                return Err(Retry::Changed);
            }
            let copied = self.key_at(block);
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
        &self,
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
        let bytes = (HEADER_LEN + key.len()).max(SMALLEST).saturating_add(if counts { head.value_len } else { 0 });
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
            self.append_value(block, head, &mut value, scan.limit)?;
            if !self.is_valid(block, stamp, head, &key, &value) {
                return Err(self.checksum_error(block));
            }
        }
        let Ok(key) = String::from_utf8(key) else { return Err(self.damaged("a key is not UTF-8")) };
        Ok(Some(Entry { key, value, encoding: Encoding::of(head.kind), version: head.version }))
    }
}

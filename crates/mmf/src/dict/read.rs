//! Reading: without a lock, beside writers that live, sleep or have died.
//!
//! A reader copies, and then makes sure that it copied one record: the record's stamp and the slot that led to it are what
//! they were. Before the bytes of a record are used for anything else its stamp is 0, and no stamp comes twice.
//!
//! A record whose stamp is larger than the commit's version is not there yet: the one before it counts.

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

use super::allocator::Storage;
use super::bucket_walk::BucketWalk;
use super::index::{block_of, bucket, bucket_count, matching_slots, tag};
use super::layout::{at, number};
use super::record::{self, HEADER_LEN, KEY_MAX, PREV, RecordHeader, RecordKind, STAMP, VERSION};
use super::redo_log;
use super::work_limit::{MIN_WORK_TIME, WorkLimit};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::Deadline;
use crate::segment::retry::Attempts;
use crate::sys::fence;

/// What a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) version: u64,
    pub(super) kind: RecordKind,
}

/// What is to be done with a value: where it is copied to.
pub(super) trait Sink {
    fn take(&mut self, storage: &Storage<'_>, block: usize, head: &RecordHeader, limit: &WorkLimit) -> Result<()>;

    /// Room for a value that is copied before its length is known.
    fn room(&mut self) -> &mut [MaybeUninit<u8>];

    /// The value is the first `len` bytes of the room, which has `room` bytes, if it is so long.
    ///
    /// # Safety
    ///
    /// All of the room was filled.
    unsafe fn filled(&mut self, room: usize, len: usize) -> bool;

    /// The value that was copied; `None` where none is.
    fn value(&self) -> Option<&[u8]>;
}

/// Nothing is copied.
pub(super) struct DiscardValue;

impl Sink for DiscardValue {
    #[inline]
    fn take(&mut self, _: &Storage<'_>, _: usize, _: &RecordHeader, _: &WorkLimit) -> Result<()> {
        Ok(())
    }

    #[inline(always)]
    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        &mut []
    }

    #[inline(always)]
    unsafe fn filled(&mut self, _: usize, _: usize) -> bool {
        true
    }

    #[inline(always)]
    fn value(&self) -> Option<&[u8]> {
        None
    }
}

/// Of a vector's room no more bytes are used before a value's length is known.
const SPECULATIVE_LEN: usize = 128;

impl Sink for &mut Vec<u8> {
    #[inline(always)]
    fn take(&mut self, storage: &Storage<'_>, block: usize, head: &RecordHeader, limit: &WorkLimit) -> Result<()> {
        self.clear();
        // Next time there is room for one of that length before it is known.
        let _ = self.try_reserve(SPECULATIVE_LEN / 2);
        storage.append_value(block, head, self, limit)
    }

    #[inline(always)]
    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        self.clear();
        let len = if self.capacity() < 16 { 0 } else { self.capacity().min(SPECULATIVE_LEN) };
        &mut self.spare_capacity_mut()[..len]
    }

    #[inline(always)]
    unsafe fn filled(&mut self, room: usize, len: usize) -> bool {
        if len > room {
            return false;
        }
        // SAFETY: as many bytes, and more, were filled.
        unsafe { self.set_len(len) };
        true
    }

    #[inline(always)]
    fn value(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// So many looks in vain while nothing changes are no bad luck.
pub(super) const MAX_FAILED_READS: u32 = 128;

/// Why a look did not tell.
pub(super) enum Retry {
    /// Somebody changed what was looked at.
    Changed,
    Failed(Error),
}

impl From<Error> for Retry {
    fn from(error: Error) -> Retry {
        Retry::Failed(error)
    }
}

/// What one record says.
enum RecordOutcome {
    /// As [`find_in_bucket`](Storage::find_in_bucket).
    #[allow(clippy::option_option, reason = "as there")]
    Settled(Option<Option<Found>>),
    /// Nothing yet: the change of this stamp is not committed, and the record before counts.
    Uncommitted { stamp: u64, before: usize },
}

/// Whether two keys are the same. Mostly they are short, and a call would cost more than the comparison.
#[inline(always)]
pub(super) fn keys_equal(a: &[u8], b: &[u8]) -> bool {
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
    // It may have some of those before it once more.
    word(a, last) == word(b, last)
}

/// Whether a record's checksum is that of its bytes.
#[inline(never)]
pub(super) fn has_valid_checksum(
    seed: u64,
    block: usize,
    stamp: u64,
    head: &RecordHeader,
    key: &[u8],
    value: &[u8],
) -> bool {
    head.sum(seed, key, value) ^ record::location_mix(block, stamp) == head.checksum
}

/// A record's head and key, copied.
pub(super) struct HeaderAndKey {
    pub(super) bytes: [MaybeUninit<u8>; HEADER_LEN + KEY_MAX],
}

impl HeaderAndKey {
    #[inline]
    pub(super) fn new() -> HeaderAndKey {
        HeaderAndKey { bytes: [const { MaybeUninit::uninit() }; HEADER_LEN + KEY_MAX] }
    }

    /// The first `HEADER_LEN` bytes of a block and `key_len` more, as far as the segment goes; what
    /// is behind reads as nothing.
    // Always: what is given in memory, in pieces, is slow to be taken from there at once.
    #[inline(always)]
    pub(super) fn copy<'b>(
        &'b mut self,
        storage: &Storage<'_>,
        block: usize,
        key_len: usize,
    ) -> Result<Option<(RecordHeader, u64, &'b [u8])>> {
        let mut len = (HEADER_LEN + key_len).min(HEADER_LEN + KEY_MAX);
        if len > storage.map.len().saturating_sub(block) {
            // Somebody else may have made it longer.
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

impl Storage<'_> {
    /// Whether a record is from before the file was opened, so that the disk had it meanwhile.
    #[inline(always)]
    pub(super) fn is_from_before_open(&self, version: u64, stamp: u64) -> bool {
        // A record that was moved since has a new stamp; a version that is damaged may be any.
        version.min(stamp) <= self.verify_up_to
    }

    /// Whether a record may differ from what was written: it is from before the file was opened, or
    /// a sync has failed since then.
    #[inline]
    pub(super) fn must_be_verified(&self, version: u64, stamp: u64) -> bool {
        self.is_from_before_open(version, stamp) || self.map.word(at::SUSPECT).is_ok_and(|suspect| suspect != 0)
    }

    /// Whether a copy of a record is what was written, as far as that is in doubt.
    #[inline(always)]
    pub(super) fn is_valid(&self, block: usize, stamp: u64, head: &RecordHeader, key: &[u8], value: &[u8]) -> bool {
        !self.must_be_verified(head.version, stamp) || has_valid_checksum(self.seed, block, stamp, head, key, value)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn checksum_error(&self, block: usize) -> Error {
        let error = self.damaged(format!("the record at {block} has another checksum than its bytes"));
        error.with_help("`check` says what else is damaged, `repair` keeps what is whole")
    }

    /// The head and the key of a record. The caller has the lock.
    pub(super) fn key_at(&self, block: usize) -> Result<(RecordHeader, Vec<u8>)> {
        let mut copy = HeaderAndKey::new();
        // Mostly keys are short.
        let Some((head, _, key)) = copy.copy(self, block, 64)? else { return Err(self.no_record_error(block)) };
        if let Some(key) = key.get(..head.key_len) {
            return Ok((head, key.to_vec()));
        }
        let whole = copy.copy(self, block, head.key_len)?;
        match whole.and_then(|(head, _, key)| Some((head, key.get(..head.key_len)?))) {
            Some((head, key)) => Ok((head, key.to_vec())),
            None => Err(self.no_record_error(block)),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn no_record_error(&self, block: usize) -> Error {
        self.damaged(format!("no record begins at {block}"))
    }

    #[cold]
    pub(super) fn no_entry_error(&self) -> Error {
        self.damaged("its index leads to what is no record")
    }

    /// What `key` has, with its value in `sink`, without a lock: tries beside writers for as long as
    /// `until` says, and copies for as long as `work` says.
    #[cold]
    #[inline(never)]
    pub(super) fn get(
        &self,
        hash: u64,
        key: &[u8],
        sink: &mut impl Sink,
        until: Deadline,
        work: Deadline,
    ) -> Result<Option<Found>> {
        let limit = WorkLimit::new(work);
        match self.try_get(hash, key, sink, &limit) {
            Ok(found) => Ok(found),
            Err(retry) => self.get_with_retries(hash, key, sink, (until, &limit), retry),
        }
    }

    #[cold]
    #[inline(never)]
    fn get_with_retries(
        &self,
        hash: u64,
        key: &[u8],
        sink: &mut impl Sink,
        (until, limit): (Deadline, &WorkLimit),
        mut retry: Retry,
    ) -> Result<Option<Found>> {
        let mut moment = None;
        let mut attempts = Attempts::new(until.at_least(MIN_WORK_TIME));
        for round in 0_u32.. {
            if round % MAX_FAILED_READS == 0 {
                // Whoever writes, stops or dies leaves what can be read; so what keeps a reader from it are changes.
                let now = Some(self.commit_state()?);
                if matches!(retry, Retry::Changed) && now == moment {
                    return Err(self.no_entry_error());
                }
                moment = now;
            }
            match retry {
                Retry::Failed(error) => return Err(error),
                Retry::Changed if limit.is_over() || !attempts.pause(true) => break,
                Retry::Changed => {}
            }
            match self.try_get(hash, key, sink, limit) {
                Ok(found) => return Ok(found),
                Err(why) => retry = why,
            }
        }
        Err(self.map.name_error(Error::new(ErrorKind::Contended, "read")))
    }

    /// What differs after every change.
    pub(super) fn commit_state(&self) -> Result<(u64, u64, u64)> {
        Ok((self.map.word(at::COMMIT)?, self.map.word(at::FLOOR)?, self.map.word(at::BUCKETS)?))
    }

    #[inline]
    fn try_get(&self, hash: u64, key: &[u8], sink: &mut impl Sink, limit: &WorkLimit) -> Result<Option<Found>, Retry> {
        let count = self.map.word(at::BUCKETS)?;
        if bucket_count(count) == 0 {
            self.check_no_incomplete_repair()?;
            fence(Ordering::Acquire);
            return if self.map.word(at::BUCKETS)? == count { Ok(None) } else { Err(Retry::Changed) };
        }
        let found = self.find_in_bucket(bucket_count(count), hash, key, sink, limit);
        match found {
            Ok(Some(found)) => Ok(found),
            // What was looked through may have been taken apart meanwhile, and what was read may have been anything.
            other => {
                fence(Ordering::Acquire);
                if self.map.word(at::BUCKETS)? != count {
                    return Err(Retry::Changed);
                }
                other.map(|_| None)
            }
        }
    }

    /// Where there is no index, a repair may have taken it away to make it anew.
    #[cold]
    pub(super) fn check_no_incomplete_repair(&self) -> Result<()> {
        if self.map.word(at::REDO_LEN)? == redo_log::REPAIRING { Err(redo_log::repair_error(self.map)) } else { Ok(()) }
    }

    /// `None`: no slot has the key. `Some(None)`: its slot says that it is not there.
    #[inline]
    #[allow(clippy::option_option, reason = "the two say different things, as told above")]
    fn find_in_bucket(
        &self,
        count: u64,
        hash: u64,
        key: &[u8],
        sink: &mut impl Sink,
        limit: &WorkLimit,
    ) -> Result<Option<Option<Found>>, Retry> {
        let mut words = [0; 8];
        let mut walk = BucketWalk::new(self, bucket(hash, count))?;
        while let Some(line) = walk.advance(&mut words)? {
            let mut candidates = matching_slots(&words, hash);
            while candidates != 0 {
                let nth = candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                if let Some(found) = self.read_slot(line + 8 * nth, hash, key, sink, limit)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Whether the record that a slot leads to is the key's, and what it says.
    #[inline]
    #[allow(clippy::option_option, reason = "as above")]
    fn read_slot(
        &self,
        at: usize,
        hash: u64,
        key: &[u8],
        sink: &mut impl Sink,
        limit: &WorkLimit,
    ) -> Result<Option<Option<Found>>, Retry> {
        let slot = self.map.word(at)?;
        if slot == 0 || slot >> 40 != tag(hash) {
            return Ok(None);
        }
        let stamp = || self.map.word(block_of(slot).saturating_add(STAMP)).ok();
        let before = stamp();
        let outcome = self.read_record(slot, key, sink, limit);
        fence(Ordering::Acquire);
        // Also before an error is believed. The stamp behind the slot, which may lead to the same block again, where meanwhile
        // other bytes looked like a stamp.
        if self.map.word(at)? != slot || stamp() != before {
            return Err(Retry::Changed);
        }
        outcome
    }

    #[inline]
    #[allow(clippy::option_option, reason = "as above")]
    fn read_record(
        &self,
        slot: u64,
        key: &[u8],
        sink: &mut impl Sink,
        limit: &WorkLimit,
    ) -> Result<Option<Option<Found>>, Retry> {
        match self.read_at_block(block_of(slot), key, sink, limit)? {
            RecordOutcome::Settled(outcome) => Ok(outcome),
            RecordOutcome::Uncommitted { stamp, before } => self.read_previous(stamp, before, key, sink, limit),
        }
    }

    /// The record before one that is not committed. It may be freed as soon as that is.
    #[cold]
    #[inline(never)]
    #[allow(clippy::option_option, reason = "as above")]
    fn read_previous(
        &self,
        newer: u64,
        block: usize,
        key: &[u8],
        sink: &mut impl Sink,
        limit: &WorkLimit,
    ) -> Result<Option<Option<Found>>, Retry> {
        let outcome = match block {
            0 => Ok(RecordOutcome::Settled(Some(None))),
            block => self.read_at_block(block, key, sink, limit),
        };
        fence(Ordering::Acquire);
        let is_under_way = self.map.word(at::REDO_LEN)? != 0;
        // Also before an error is believed.
        if self.map.word(at::COMMIT)? >= newer {
            return Err(Retry::Changed);
        }
        if !is_under_way {
            return Err(self.damaged("a record is from a change that nobody makes").into());
        }
        match outcome? {
            RecordOutcome::Settled(outcome) => Ok(outcome),
            RecordOutcome::Uncommitted { .. } => {
                Err(self.damaged("two changes at once, neither of them complete").into())
            }
        }
    }

    /// What one record says of a key.
    #[inline]
    fn read_at_block(
        &self,
        block: usize,
        key: &[u8],
        sink: &mut impl Sink,
        limit: &WorkLimit,
    ) -> Result<RecordOutcome, Retry> {
        let mut copy = HeaderAndKey::new();
        let stamp = self.map.word(block + STAMP)?;
        if stamp == 0 {
            return Err(Retry::Changed);
        }
        let Some((head, before, found_key)) = copy.copy(self, block, key.len())? else {
            return self.unless_changed(block, stamp, RecordOutcome::Settled(None));
        };
        if head.key_len != key.len() || !keys_equal(found_key, key) {
            return self.unless_changed(block, stamp, RecordOutcome::Settled(None));
        }
        if stamp > self.map.word(at::COMMIT)? {
            return self.unless_changed(block, stamp, RecordOutcome::Uncommitted { stamp, before: number(before) });
        }
        if head.kind == RecordKind::Removal || head.version <= self.map.word(at::FLOOR)? {
            return self.unless_changed(block, stamp, RecordOutcome::Settled(Some(None)));
        }
        let taken = sink.take(self, block, &head, limit);
        let found = Found { version: head.version, kind: head.kind };
        let found = self.unless_changed(block, stamp, RecordOutcome::Settled(Some(Some(found))))?;
        taken?;
        match sink.value() {
            Some(value) if !self.is_valid(block, stamp, &head, key, value) => Err(self.checksum_error(block).into()),
            _ => Ok(found),
        }
    }

    /// `outcome`, if the record is still the one that bore `stamp`.
    #[inline]
    fn unless_changed<T>(&self, block: usize, stamp: u64, outcome: T) -> Result<T, Retry> {
        fence(Ordering::Acquire);
        if self.map.word(block + STAMP)? == stamp { Ok(outcome) } else { Err(Retry::Changed) }
    }
}

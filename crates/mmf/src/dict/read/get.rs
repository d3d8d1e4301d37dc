//! Reading: without a lock, beside writers that live, sleep or have died.
//!
//! A reader copies, and then makes sure that it copied one record: the record's stamp and the slot that led to it are what
//! they were. Before the bytes of a record are used for anything else its stamp is 0, and no stamp comes twice.
//!
//! A record whose stamp is larger than the commit's version is not there yet: the one before it counts.

use std::ops::Deref;
use std::sync::atomic::Ordering;

use crate::dict::Dict;
use crate::dict::format::layout::{at, number};
use crate::dict::format::record::{RecordKind, STAMP};
use crate::dict::format::slot::{block_of, bucket, bucket_count, matching_slots, tag};
use crate::dict::read::fast_path::FastKeyReader;
use crate::dict::read::sink::{Found, Retry, Sink};
use crate::dict::store::bucket_walk::BucketWalk;
use crate::dict::store::records::{HeaderAndKey, keys_equal};
use crate::dict::store::storage::Storage;
use crate::dict::store::work_limit::{MIN_WORK_TIME, WorkLimit};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::Deadline;
use crate::segment::retry::Attempts;
use crate::sys::fence;

/// So many looks in vain while nothing changes are no bad luck.
pub(in crate::dict) const MAX_FAILED_READS: u32 = 128;

/// What one record says.
enum RecordOutcome {
    /// As [`find_in_bucket`](KeyReader::find_in_bucket).
    #[allow(clippy::option_option, reason = "as there")]
    Settled(Option<Option<Found>>),
    /// Nothing yet: the change of this stamp is not committed, and the record before counts.
    Uncommitted { stamp: u64, before: usize },
}

impl Dict {
    #[inline]
    pub(in crate::dict) fn read(&self, key: &str, sink: &mut impl Sink) -> Result<Option<Found>> {
        let hash = self.hash(key, "read")?;
        self.read_until(hash, key, sink, self.lock_deadline())
    }

    #[inline]
    pub(in crate::dict) fn read_until(
        &self,
        hash: u64,
        key: &str,
        sink: &mut impl Sink,
        until: Deadline,
    ) -> Result<Option<Found>> {
        match FastKeyReader::new(&self.storage()).get_fast(hash, key.as_bytes(), sink) {
            Some(found) => Ok(found),
            None => KeyReader::new(&self.storage()).get(hash, key.as_bytes(), sink, until, self.work_deadline()),
        }
    }
}

/// Slow path of reading a key.
#[derive(Clone, Copy)]
pub(in crate::dict) struct KeyReader<'s>(&'s Storage<'s>);

impl<'s> Deref for KeyReader<'s> {
    type Target = Storage<'s>;

    #[inline(always)]
    fn deref(&self) -> &Storage<'s> {
        self.0
    }
}

impl<'s> KeyReader<'s> {
    #[inline(always)]
    pub(in crate::dict) fn new(storage: &'s Storage<'s>) -> Self {
        KeyReader(storage)
    }

    /// What `key` has, with its value in `sink`, without a lock: tries beside writers for as long as
    /// `until` says, and copies for as long as `work` says.
    #[cold]
    #[inline(never)]
    pub(in crate::dict) fn get(
        self,
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
        self,
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

    #[inline]
    fn try_get(self, hash: u64, key: &[u8], sink: &mut impl Sink, limit: &WorkLimit) -> Result<Option<Found>, Retry> {
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

    /// `None`: no slot has the key. `Some(None)`: its slot says that it is not there.
    #[inline]
    #[allow(clippy::option_option, reason = "the two say different things, as told above")]
    fn find_in_bucket(
        self,
        count: u64,
        hash: u64,
        key: &[u8],
        sink: &mut impl Sink,
        limit: &WorkLimit,
    ) -> Result<Option<Option<Found>>, Retry> {
        let mut words = [0; 8];
        let mut walk = BucketWalk::new(&self, bucket(hash, count))?;
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
        self,
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
        self,
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
        self,
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
        self,
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
        let Some((head, before, found_key)) = copy.copy(&self, block, key.len())? else {
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
        let taken = sink.take(&self, block, &head, limit);
        let found = Found { version: head.version, kind: head.kind };
        let found = self.unless_changed(block, stamp, RecordOutcome::Settled(Some(Some(found))))?;
        taken?;
        match sink.value() {
            Some(value) if !self.records().is_valid(block, stamp, &head, key, value) => {
                Err(self.records().checksum_error(block).into())
            }
            _ => Ok(found),
        }
    }

    /// `outcome`, if the record is still the one that bore `stamp`.
    #[inline]
    fn unless_changed<T>(self, block: usize, stamp: u64, outcome: T) -> Result<T, Retry> {
        fence(Ordering::Acquire);
        if self.map.word(block + STAMP)? == stamp { Ok(outcome) } else { Err(Retry::Changed) }
    }
}

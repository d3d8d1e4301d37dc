//! [`KeyReader`]: the slow path of reading a key without a lock.
//!
//! The problem: a reader must return the value before a change or the value after it, never a
//! mixture. Writers may run at the same time, be stopped for any time, or be dead in the middle of
//! a change. A hostile peer may store anything, and must not keep the reader for ever.
//!
//! The algorithm ([`try_get`](KeyReader::try_get)):
//!
//! 1. Load BUCKETS. If there are no buckets, check that no repair is under way.
//! 2. Walk the bucket's lines. For each slot whose high bits match, load the slot and the record's
//!    stamp.
//! 3. Copy header and key. If the key differs, continue with the next slot.
//! 4. If the stamp is larger than COMMIT, the change is not committed: read the previous record
//!    instead ([`read_previous`](KeyReader::read_previous)).
//! 5. A removal, or a version up to FLOOR, means that the key is absent. Otherwise copy the value.
//! 6. Load the stamp and the slot again. If either has changed, start again.
//! 7. If no slot had the key, or an error occurred, load BUCKETS again. If it has changed, start
//!    again.
//!
//! A new start waits (back-off) until the deadline, and then ends with `Contended`. 128 failed
//! attempts ([`MAX_FAILED_READS`]) without a change of COMMIT, FLOOR or BUCKETS mean corruption.
//!
//! Why it is correct: before the bytes of a record are used for anything else its stamp is 0, and
//! no stamp is used twice. So an equal stamp before and after the copy means that all copied bytes
//! are of one record. The stamp of an uncommitted record leads to the previous record, which is
//! freed only after COMMIT has passed that stamp; `read_previous` checks this after its copy. An
//! error is reported only if the words that led to it are unchanged.
//!
//! Cost: one guarded call for each load and each copy.

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

/// The number of failed attempts, without a commit between them, that mean corruption.
pub(in crate::dict) const MAX_FAILED_READS: u32 = 128;

/// The result of reading one record.
enum RecordOutcome {
    /// The record is another key's (`None`), or says whether the key is there, as in
    /// [`find_in_bucket`](KeyReader::find_in_bucket).
    #[allow(clippy::option_option, reason = "as there")]
    Settled(Option<Option<Found>>),
    /// The change with this stamp is not committed. The record at `before` counts instead.
    Uncommitted { stamp: u64, before: usize },
}

impl Dict {
    /// Reads a key with the handle's timeout.
    #[inline]
    pub(in crate::dict) fn read(&self, key: &str, sink: &mut impl Sink) -> Result<Option<Found>> {
        let hash = self.hash(key, "read")?;
        self.read_until(hash, key, sink, self.lock_deadline())
    }

    /// Reads a key: takes the fast path, and then the slow path if the fast path returns `None`.
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

    /// Reads a key without a lock, and copies its value to `sink`. `until` limits the attempts
    /// beside writers, `work` limits the copies.
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
                // A writer that runs, stops or dies leaves readable records. So only further
                // changes can make an honest reader fail again.
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

    /// Tries once to read a key.
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
            // The bucket may have been split or shortened meanwhile, or a repair may have
            // overwritten what was read.
            other => {
                fence(Ordering::Acquire);
                if self.map.word(at::BUCKETS)? != count {
                    return Err(Retry::Changed);
                }
                other.map(|_| None)
            }
        }
    }

    /// Searches a bucket. Returns `None` if no slot has the key, and `Some(None)` if the key's
    /// record says that it is absent.
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

    /// Reads the record of a slot. Returns `None` if it is another key's.
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
        // This comes before an error is reported, too. The stamp is loaded after the slot: the slot
        // may lead to the same block again, where other bytes looked like a stamp meanwhile.
        if self.map.word(at)? != slot || stamp() != before {
            return Err(Retry::Changed);
        }
        outcome
    }

    /// Reads the record of a slot, or the one before it if that is not committed.
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

    /// Reads the record before one that is not committed. A writer may free it as soon as COMMIT
    /// has reached `newer`, so this checks COMMIT after the copy.
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
        // This comes before an error is reported, too.
        if self.map.word(at::COMMIT)? >= newer {
            return Err(Retry::Changed);
        }
        if !is_under_way {
            return Err(self.damaged("a record belongs to a change that is neither committed nor under way").into());
        }
        match outcome? {
            RecordOutcome::Settled(outcome) => Ok(outcome),
            RecordOutcome::Uncommitted { .. } => {
                Err(self.damaged("a key has two records of changes that are not committed").into())
            }
        }
    }

    /// Reads one record, and copies its value if it is the key's and counts.
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

    /// Returns `outcome` if the block still has the stamp `stamp`.
    #[inline]
    fn unless_changed<T>(self, block: usize, stamp: u64, outcome: T) -> Result<T, Retry> {
        fence(Ordering::Acquire);
        if self.map.word(block + STAMP)? == stamp { Ok(outcome) } else { Err(Retry::Changed) }
    }
}

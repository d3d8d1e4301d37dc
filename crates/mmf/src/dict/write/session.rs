//! [`WriteSession`]: the write lock of a dict, with what a writer does right after it has taken it.
//!
//! The problem: a writer must find a dict without half-made changes, and must make the disk record
//! that a flushed file has changes again before it changes anything.
//!
//! The algorithm:
//!
//! 1. Take the segment's write lock.
//! 2. Replay the redo log. If it had stores, wake watchers when the lock is released, since the
//!    dead writer may have woken none.
//! 3. If a rebuild was interrupted, do it again.
//! 4. Load DURABLE into `flush_state`.
//! 5. Before the first store of a change, [`mark_unflushed`](WriteSession::mark_unflushed): if
//!    SYNCING is set, set SUSPECT. If CLEAN or UNSURE is set, clear CLEAN, set UNSURE, sync that
//!    word, and clear UNSURE.
//! 6. Before the first change of a new dict, [`begin_boot`](WriteSession::begin_boot): store BOOT,
//!    and sync everything before the redo log's pairs.
//! 7. Prepare the change in `batch`, and commit it.
//! 8. Release the lock when the session is dropped.
//!
//! Why it is correct: the redo log makes each batch complete or absent. If the process dies in
//! step 5 before the disk has the word, UNSURE in memory makes the next writer sync it. So the disk
//! never has a page of a change while it still has CLEAN.
//!
//! Cost: one load each of REDO_LEN and DURABLE. The syncs of steps 5 and 6 happen once per flush
//! and once per dict, and only for files.

use std::ops::RangeBounds;

use crate::dict::Dict;
use crate::dict::format::layout::at;
use crate::dict::format::marks::{CLEAN, SYNCING, UNSURE};
use crate::dict::format::record::{MAX_COMMIT, RecordHeader, RecordKind};
use crate::dict::handle::DictState;
use crate::dict::recovery::open_after_crash;
use crate::dict::store::redo_log;
use crate::dict::store::storage::Storage;
use crate::dict::store::sync_mark::sync_or_mark;
use crate::dict::store::work_limit::WorkLimit;
use crate::dict::store::write_batch::WriteBatch;
use crate::error::{Error, Result};
use crate::segment::{Deadline, WriteLock};

/// A change of one key.
#[derive(Clone, Copy, Debug)]
pub(in crate::dict) struct KeyChange<'c> {
    pub(in crate::dict) key: &'c [u8],
    pub(in crate::dict) hash: u64,
    /// The new value with its kind, or `None` to remove the key.
    pub(in crate::dict) value: Option<(RecordKind, &'c [u8])>,
}

/// The record that a slot leads to before a change.
#[derive(Clone, Copy, Debug)]
pub(in crate::dict) struct ReplacedRecord {
    pub(in crate::dict) block: usize,
    pub(in crate::dict) in_spans: bool,
    /// Its version is at most FLOOR: the key is absent, but the record has not been freed yet.
    pub(in crate::dict) cleared: bool,
}

/// The record of a key that is present.
#[derive(Clone, Copy, Debug)]
pub(in crate::dict) struct StoredRecord {
    pub(in crate::dict) block: usize,
    pub(in crate::dict) head: RecordHeader,
}

/// The write lock, with the batch and the state that a change needs. Dropping it releases the lock.
pub(in crate::dict) struct WriteSession<'a> {
    pub(in crate::dict) dict: &'a Dict,
    pub(in crate::dict) storage: Storage<'a>,
    pub(in crate::dict) batch: &'a mut WriteBatch,
    /// The bits of DURABLE, see [`marks`](crate::dict::format::marks).
    pub(in crate::dict) flush_state: u64,
    pub(in crate::dict) limit: WorkLimit,
    lock: WriteLock<'a, DictState>,
}

impl Dict {
    /// Takes the write lock with the handle's timeout, and completes a dead writer's change.
    #[inline]
    pub(in crate::dict) fn writer<'a>(
        &'a self,
        batch: &'a mut WriteBatch,
        doing: &'static str,
    ) -> Result<WriteSession<'a>> {
        WriteSession::lock(self, batch, self.lock_deadline(), doing)
    }
}

impl<'a> WriteSession<'a> {
    /// Makes the disk record that the file has unflushed changes, unless it has that already. A
    /// writer calls it before the first store of a change.
    #[inline]
    pub(in crate::dict) fn mark_unflushed(&mut self) -> Result<()> {
        if self.flush_state & (CLEAN | UNSURE | SYNCING) == 0 { Ok(()) } else { self.mark_unflushed_slow() }
    }

    /// Returns whether nothing has changed since the last flush.
    #[inline]
    pub(in crate::dict) fn is_clean(&self) -> bool {
        self.flush_state & CLEAN != 0
    }

    #[cold]
    #[inline(never)]
    fn mark_unflushed_slow(&mut self) -> Result<()> {
        if self.flush_state & SYNCING != 0 {
            self.suspect()?;
        }
        if self.flush_state & (CLEAN | UNSURE) == 0 {
            return Ok(());
        }
        // If this process dies before the disk has it, UNSURE makes the next writer sync it.
        self.flush_state = self.flush_state & !CLEAN | UNSURE;
        self.sync_marked(at::DURABLE..at::DURABLE + 8)?;
        self.flush_state &= !UNSURE;
        self.storage.map.put_word(at::DURABLE, self.flush_state)
    }

    /// Stores BOOT before the first change of a new dict. The disk must not have any page of the
    /// change without BOOT.
    pub(in crate::dict) fn begin_boot(&mut self) -> Result<()> {
        let map = self.storage.map;
        map.put_word(at::BOOT, open_after_crash::boot_to_store(self.dict)?)?;
        if !self.dict.is_file() {
            return Ok(());
        }
        // The disk gets each page of the words now, so that `Mapping::write_anew` never has to
        // write these pages around memory, while other processes use them.
        map.make_range_dirty(0..at::REDO_LOG)?;
        self.sync_marked(..at::REDO_LOG)
    }

    /// Syncs a range of the file. SYNCING is set until the sync has succeeded.
    pub(in crate::dict) fn sync_marked(&mut self, range: impl RangeBounds<usize>) -> Result<()> {
        let map = self.storage.map;
        map.put_word(at::DURABLE, self.flush_state | SYNCING)?;
        match sync_or_mark(map, range, self.flush_state) {
            Ok(()) => map.put_word(at::DURABLE, self.flush_state),
            Err(error) => {
                self.flush_state |= SYNCING;
                Err(error)
            }
        }
    }

    /// Stores DURABLE and syncs it. If the sync fails, sets the sync mark and stores `if_failed`
    /// and UNSURE, since the disk may or may not have the word.
    pub(in crate::dict) fn sync_durable(&mut self, durable: u64, if_failed: u64) -> Result<()> {
        let map = self.storage.map;
        self.flush_state = durable;
        map.put_word(at::DURABLE, durable)?;
        let synced = sync_or_mark(map, at::DURABLE..at::DURABLE + 8, if_failed | UNSURE);
        if synced.is_err() {
            self.flush_state = if_failed | UNSURE | SYNCING;
        }
        synced
    }

    /// Sets SUSPECT if SYNCING was found without it: a process died during a sync.
    #[cold]
    pub(in crate::dict) fn suspect(&self) -> Result<()> {
        let map = self.storage.map;
        if map.word(at::SUSPECT)? == 0 { map.put_word(at::SUSPECT, 1) } else { Ok(()) }
    }

    /// Takes the lock, and completes a dead writer's change.
    #[inline]
    pub(in crate::dict) fn lock(
        dict: &'a Dict,
        batch: &'a mut WriteBatch,
        until: Deadline,
        doing: &'static str,
    ) -> Result<Self> {
        let lock = WriteSession::acquire(dict, until, doing)?;
        let mut writer = WriteSession::from_lock(lock, dict, batch);
        // The wait may have used all of `until`. The work has the timeout again.
        writer.limit.set(dict.work_deadline());
        writer.recover()?;
        Ok(writer)
    }

    /// Takes the lock without a replay of the redo log.
    #[inline]
    pub(in crate::dict) fn lock_without_recovery(
        dict: &'a Dict,
        batch: &'a mut WriteBatch,
        until: Deadline,
        doing: &'static str,
    ) -> Result<Self> {
        Ok(WriteSession::from_lock(WriteSession::acquire(dict, until, doing)?, dict, batch))
    }

    /// Takes the lock. The caller passes it to [`from_lock`](WriteSession::from_lock).
    #[inline(always)]
    pub(in crate::dict) fn acquire(
        dict: &'a Dict,
        until: Deadline,
        doing: &'static str,
    ) -> Result<WriteLock<'a, DictState>> {
        WriteLock::lock(&dict.segment, || until, doing, |outcome| outcome.map(|(lock, _)| lock))
    }

    /// Returns a session without a [limit](WorkLimit), which owns the lock. It is separate from
    /// [`lock`](WriteSession::lock) because a move of the session out of that function costs time.
    #[inline(always)]
    pub(in crate::dict) fn from_lock(
        lock: WriteLock<'a, DictState>,
        dict: &'a Dict,
        batch: &'a mut WriteBatch,
    ) -> Self {
        WriteSession { dict, storage: dict.storage(), batch, flush_state: 0, limit: WorkLimit::unset(), lock }
    }

    /// Completes a dead writer's change, and loads DURABLE.
    #[inline(always)]
    pub(in crate::dict) fn recover(&mut self) -> Result<()> {
        match redo_log::replay(self.storage.map, self.storage.layout) {
            // The dead writer may have died before it woke the watchers.
            Ok(true) => self.set_changed(),
            Ok(false) => {}
            Err(error) => self.rebuild_if_cut_off(error)?,
        }
        self.flush_state = self.storage.map.word(at::DURABLE)?;
        Ok(())
    }

    /// Does an interrupted rebuild again, or returns `error` if there was none.
    #[cold]
    #[inline(never)]
    fn rebuild_if_cut_off(&mut self, error: Error) -> Result<()> {
        if !redo_log::was_cut_off(self.storage.map)? {
            return Err(error);
        }
        open_after_crash::rebuild(self.dict)?;
        self.set_changed();
        Ok(())
    }

    /// Returns the version of the last change.
    #[inline]
    pub(in crate::dict) fn version(&self) -> Result<u64> {
        let version = self.storage.map.word(at::COMMIT)?;
        self.check_version(version)?;
        Ok(version)
    }

    /// Refuses a version above 2^63 - 1 as damage. No dict reaches it by changes, and additions to
    /// a version must not overflow.
    #[inline(always)]
    pub(in crate::dict) fn check_version(&self, version: u64) -> Result<()> {
        if version > MAX_COMMIT { Err(self.too_late(version)) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn too_late(&self, version: u64) -> Error {
        self.storage.damaged(format!("its last change has the version {version}"))
    }

    /// Commits the batch, and makes the release of the lock wake watchers.
    #[inline]
    pub(in crate::dict) fn commit_batch(&mut self) -> Result<()> {
        self.batch.commit(self.storage.map, self.storage.layout)?;
        self.set_changed();
        Ok(())
    }

    /// Makes the release of the lock wake watchers.
    #[inline]
    pub(in crate::dict) fn set_changed(&self) {
        self.lock.segment().set_changed();
    }

    /// Returns whether the file was flushed at least once.
    #[inline]
    pub(in crate::dict) fn has_been_flushed(&self) -> bool {
        self.flush_state & crate::dict::format::marks::FLUSHED_BEFORE != 0
    }
}

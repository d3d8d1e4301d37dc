//! Writing: under the segment's lock, as batches that the redo log has done to the end.

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

/// What is to be done with a key.
#[derive(Clone, Copy, Debug)]
pub(in crate::dict) struct KeyChange<'c> {
    pub(in crate::dict) key: &'c [u8],
    pub(in crate::dict) hash: u64,
    /// The value with its kind; `None` removes.
    pub(in crate::dict) value: Option<(RecordKind, &'c [u8])>,
}

/// The record that a slot leads to.
#[derive(Clone, Copy, Debug)]
pub(in crate::dict) struct ReplacedRecord {
    pub(in crate::dict) block: usize,
    pub(in crate::dict) in_spans: bool,
    /// It was cleared, and has not been freed yet.
    pub(in crate::dict) cleared: bool,
}

/// A record that is there.
#[derive(Clone, Copy, Debug)]
pub(in crate::dict) struct StoredRecord {
    pub(in crate::dict) block: usize,
    pub(in crate::dict) head: RecordHeader,
}

/// The lock, and what was found when it was taken. Dropped, it is released.
pub(in crate::dict) struct WriteSession<'a> {
    pub(in crate::dict) dict: &'a Dict,
    pub(in crate::dict) storage: Storage<'a>,
    pub(in crate::dict) batch: &'a mut WriteBatch,
    /// See `at::DURABLE`.
    pub(in crate::dict) flush_state: u64,
    pub(in crate::dict) limit: WorkLimit,
    lock: WriteLock<'a, DictState>,
}

impl Dict {
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
    /// To be called before the first store of a change.
    #[inline]
    pub(in crate::dict) fn mark_unflushed(&mut self) -> Result<()> {
        if self.flush_state & (CLEAN | UNSURE | SYNCING) == 0 { Ok(()) } else { self.mark_unflushed_slow() }
    }

    /// Whether nothing has changed since the last flush.
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

    /// Before the first change of all: the disk must not have anything of what is changed without the boot.
    pub(in crate::dict) fn begin_boot(&mut self) -> Result<()> {
        let map = self.storage.map;
        map.put_word(at::BOOT, open_after_crash::boot_to_store(self.dict)?)?;
        if !self.dict.is_file() {
            return Ok(());
        }
        // What every process uses at any moment must not be written around memory later, see
        // `Mapping::write_anew`: the disk has each page of it from now on.
        map.make_range_dirty(0..at::REDO_LOG)?;
        self.sync_marked(..at::REDO_LOG)
    }

    /// Syncs a range of the file, with the mark set until the sync has succeeded.
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

    /// Stores DURABLE and syncs it. If the sync fails, it is not known whether the disk has it, and
    /// the mark stands.
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

    /// Tells readers of a mark that a sync which was cut off has left.
    #[cold]
    pub(in crate::dict) fn suspect(&self) -> Result<()> {
        let map = self.storage.map;
        if map.word(at::SUSPECT)? == 0 { map.put_word(at::SUSPECT, 1) } else { Ok(()) }
    }

    /// Takes the lock, and brings what a dead writer left half done to its end.
    #[inline]
    pub(in crate::dict) fn lock(
        dict: &'a Dict,
        batch: &'a mut WriteBatch,
        until: Deadline,
        doing: &'static str,
    ) -> Result<Self> {
        let lock = WriteSession::acquire(dict, until, doing)?;
        let mut writer = WriteSession::from_lock(lock, dict, batch);
        // The wait may have taken all of `until`. The work has as much time again.
        writer.limit.set(dict.work_deadline());
        writer.recover()?;
        Ok(writer)
    }

    /// Takes the lock, and leaves everything as it is.
    #[inline]
    pub(in crate::dict) fn lock_without_recovery(
        dict: &'a Dict,
        batch: &'a mut WriteBatch,
        until: Deadline,
        doing: &'static str,
    ) -> Result<Self> {
        Ok(WriteSession::from_lock(WriteSession::acquire(dict, until, doing)?, dict, batch))
    }

    /// Takes the lock. What follows is that it is [held](WriteSession::from_lock).
    #[inline(always)]
    pub(in crate::dict) fn acquire(
        dict: &'a Dict,
        until: Deadline,
        doing: &'static str,
    ) -> Result<WriteLock<'a, DictState>> {
        WriteLock::lock(&dict.segment, || until, doing, |outcome| outcome.map(|(lock, _)| lock))
    }

    /// The holder of the lock, which it releases when it is dropped. It has no [limit](WorkLimit)
    /// yet. A call of its own, since moving the session out of [`lock`](WriteSession::lock) costs
    /// time.
    #[inline(always)]
    pub(in crate::dict) fn from_lock(
        lock: WriteLock<'a, DictState>,
        dict: &'a Dict,
        batch: &'a mut WriteBatch,
    ) -> Self {
        WriteSession { dict, storage: dict.storage(), batch, flush_state: 0, limit: WorkLimit::unset(), lock }
    }

    /// Brings what a dead writer left half done to its end.
    #[inline(always)]
    pub(in crate::dict) fn recover(&mut self) -> Result<()> {
        match redo_log::replay(self.storage.map, self.storage.layout) {
            // The dead writer may have woken no process that waits for changes.
            Ok(true) => self.set_changed(),
            Ok(false) => {}
            Err(error) => self.rebuild_if_cut_off(error)?,
        }
        self.flush_state = self.storage.map.word(at::DURABLE)?;
        Ok(())
    }

    /// Does a rebuild again that was cut off, or gives the error back.
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

    /// The version of the last change.
    #[inline]
    pub(in crate::dict) fn version(&self) -> Result<u64> {
        let version = self.storage.map.word(at::COMMIT)?;
        self.check_version(version)?;
        Ok(version)
    }

    /// No dict lives to see so many, and what is added to them must not pass the end.
    #[inline(always)]
    pub(in crate::dict) fn check_version(&self, version: u64) -> Result<()> {
        if version > MAX_COMMIT { Err(self.too_late(version)) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn too_late(&self, version: u64) -> Error {
        self.storage.damaged(format!("its last change has the version {version}"))
    }

    /// Commits the batch, and has the release of the lock wake watchers.
    #[inline]
    pub(in crate::dict) fn commit_batch(&mut self) -> Result<()> {
        self.batch.commit(self.storage.map, self.storage.layout)?;
        self.set_changed();
        Ok(())
    }

    /// Has the release of the lock wake those that wait for changes.
    #[inline]
    pub(in crate::dict) fn set_changed(&self) {
        self.lock.segment().set_changed();
    }

    #[inline]
    pub(in crate::dict) fn has_been_flushed(&self) -> bool {
        self.flush_state & crate::dict::format::marks::FLUSHED_BEFORE != 0
    }
}

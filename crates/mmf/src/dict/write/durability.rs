//! What a change stores and syncs so that a power cut leaves the flushed value of each key, or a
//! newer one.

use std::ops::RangeBounds;

use crate::dict::Report;
use crate::dict::format::layout::at;
use crate::dict::format::marks::{SYNCING, UNSURE};
use crate::dict::store::sync_mark;
use crate::dict::store::sync_mark::sync_or_mark;
use crate::dict::write::session::WriteSession;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::Deadline;

impl WriteSession<'_> {
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

    /// Makes all pages dirty, and looks whether all of the dict is whole. Behind it a sync, and
    /// then `clear_mark`.
    #[cold]
    #[inline(never)]
    pub(in crate::dict) fn verify(&mut self, until: Deadline) -> Result<()> {
        let map = self.storage.map;
        self.flush_state |= SYNCING;
        sync_mark::set(map, self.flush_state)?;
        map.make_dirty()?;
        let mut report = Report::default();
        self.dict.check_now(&mut report, until)?;
        match report.problems.first() {
            None => Ok(()),
            Some(problem) => {
                let reason =
                    format!("a sync of it failed, and not all is there that was written since then: {problem}");
                let error = map.name_error(Error::new(ErrorKind::Damaged { reason }, "flush"));
                Err(error.with_help("close it everywhere and run `mmf repair`, which keeps what is whole"))
            }
        }
    }

    /// Takes the mark away, after a sync of all that was verified.
    pub(in crate::dict) fn clear_mark(&mut self) -> Result<()> {
        let map = self.storage.map;
        self.flush_state &= !SYNCING;
        map.put_word(at::DURABLE, self.flush_state)?;
        map.put_word(at::SUSPECT, 0)
    }

    /// Refuses words that have gone back behind a version that this handle has seen.
    pub(in crate::dict) fn check_seen(&self, version: u64) -> Result<()> {
        let seen = self.dict.seen.fetch_max(version, std::sync::atomic::Ordering::Relaxed);
        if seen <= version {
            return Ok(());
        }
        let reason = format!("its last change has the version {version}, which was {seen} before");
        let error = self.storage.map.name_error(Error::new(ErrorKind::Damaged { reason }, "flush"));
        Err(error.with_help("its disk may have failed: close it everywhere and run `mmf repair`"))
    }
}

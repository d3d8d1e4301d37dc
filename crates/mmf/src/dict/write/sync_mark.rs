//! The sync mark: a failed sync stays known, also after the death of the process that the system
//! told of it.
//!
//! The problem: Linux marks a page clean although its write failed, and tells each open file
//! description once. From then on the page may go back to any older state that the disk has, at any
//! moment, and a later sync succeeds without it.
//!
//! The mark has two parts, both in the page of the dict's words:
//!
//! - [`SYNCING`] in DURABLE, for writers. It stands from before each sync until after its success.
//!   A writer that takes the lock and finds it knows that a sync failed, or that a process died in
//!   one.
//! - SUSPECT, for readers, which stands from the first writer's finding that until a flush or a
//!   repair has settled it. While it is not 0, readers verify the checksum of each value, and
//!   writers take no block that may be in use.
//!
//! After a failed sync the process that was told of it, which holds the lock:
//!
//! 1. stores all words again from a copy that it took before the sync, since their page may have
//!    gone back, too, and a redo log from the past would be carried out;
//! 2. sets both parts of the mark;
//! 3. makes each page dirty again: then the system keeps them, and tries to write them without
//!    being asked.
//!
//! A flush that finds the mark, after it has done 3 once more:
//!
//! 4. looks through all of the dict as `check` does: each record that the index or a list leads to
//!    must have its checksum, and index, table, lists and counts must agree. Where they do not, the
//!    flush fails, and so does each later one until a repair;
//! 5. syncs. Each page was dirty when it was looked at, so a page that has gone back since then is
//!    a write that failed since then, which this sync reports;
//! 6. clears the mark, and only then frees what the last flush has promised.
//!
//! What remains: a page that goes back before any process has seen a sync fail goes back unseen.
//! The look of step 4 finds it, unless all pages of a change, in a dict that was never flushed,
//! have gone back together.

use std::mem::MaybeUninit;
use std::ops::RangeBounds;

use crate::dict::format::layout::at;
use crate::dict::recovery::report::Report;
use crate::dict::store::index::bucket_count;
use crate::dict::store::redo_log;
use crate::dict::write::flush::UNSURE;
use crate::dict::write::session::WriteSession;
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::Mapping;
use crate::segment::Deadline;

/// In DURABLE: a sync is under way, has failed or was cut off.
pub(in crate::dict) const SYNCING: u64 = 8;

/// All words of a dict, before the redo log's pairs.
const WORDS: usize = (at::REDO_LOG - at::COMMIT) / 8;

/// Syncs a range of a dict's file. If the sync fails, the mark stands, beside what `durable` gives
/// for DURABLE, and each word is what it was before. The caller holds the lock; a flush has asked
/// for the signal handler.
pub(in crate::dict) fn sync_or_mark(map: &Mapping, range: impl RangeBounds<usize>, durable: u64) -> Result<()> {
    let mut room = [const { MaybeUninit::uninit() }; WORDS];
    let words = map.read_words_uninit(at::COMMIT, &mut room)?;
    let synced = map.sync_armed(range);
    if synced.is_err() {
        // The sync's error tells more than one of these.
        let _ = map.put_words(at::COMMIT, words);
        let _ = set(map, durable);
        let _ = map.make_dirty();
    }
    synced
}

/// Sets both parts of the mark.
fn set(map: &Mapping, durable: u64) -> Result<()> {
    map.put_word(at::SUSPECT, 1)?;
    map.put_word(at::DURABLE, durable | SYNCING)
}

/// Whether the mark stands, or a sync through this handle has failed.
pub(in crate::dict) fn stands(map: &Mapping) -> Result<bool> {
    Ok(map.word(at::DURABLE)? & SYNCING != 0 || map.word(at::SUSPECT)? != 0 || map.has_failed_sync())
}

/// Has the disk get all that is in memory, for a repair, which alone uses the dict: also where the
/// file system gives no data to what it could not write before. Readers without a lock take the
/// dict for half repaired meanwhile.
pub(in crate::dict) fn write_anew(map: &Mapping) -> Result<()> {
    let durable = map.word(at::DURABLE)?;
    set(map, durable)?;
    // A page that the system takes for clean may go back at any moment, and would not be written.
    map.make_dirty()?;
    match sync_or_mark(map, .., durable).and_then(|()| map.check_extents()) {
        Ok(()) => return Ok(()),
        // Another attempt of the disk would fail as this one did.
        Err(error) if !map.lacks_extents()? => return Err(error),
        Err(_) => {}
    }
    let words = [at::REDO_LEN, at::BUCKETS].map(|at| Ok((at, map.word(at)?)));
    let words = words.into_iter().collect::<Result<Vec<_>>>()?;
    map.put_word(at::REDO_LEN, redo_log::REPAIRING)?;
    map.put_word(at::BUCKETS, words[1].1 & !bucket_count(words[1].1))?;
    let written = map.write_anew(at::REDO_LOG);
    // The redo log last: until then no process takes a dict without buckets for empty.
    for (at, word) in words.into_iter().rev() {
        map.put_word(at, word)?;
    }
    written?;
    map.make_dirty()?;
    sync_or_mark(map, .., durable)?;
    map.check_extents()
}

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
        set(map, self.flush_state)?;
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

//! The sync mark: records in the file that a sync failed or was interrupted.
//!
//! The problem: if the write of a page fails, Linux marks the page clean all the same, and reports
//! the failure once to each open file description. From then on the page may go back to any older
//! state that the disk has, at any moment. A later sync succeeds without the page. The mark makes
//! the failure known after the process that received the error has died.
//!
//! ```text
//! DURABLE  bit 3, SYNCING: for writers. Set before each sync, cleared after its success
//! SUSPECT  u64: for readers. Not 0 from the first writer that finds SYNCING, until a flush or a
//!          repair has settled the failure
//! ```
//!
//! Both words lie in the page of the dict's words. While SUSPECT is not 0, readers verify the
//! checksum of each value, and writers take no block that may be in use.
//!
//! The algorithm of the process whose sync failed, which holds the lock:
//!
//! 1. Store all words again from a copy that it took before the sync. Their page may have gone
//!    back, too, and an old redo log would be replayed.
//! 2. Set both parts of the mark.
//! 3. Make each page dirty again, so that the system keeps it and tries to write it.
//!
//! The algorithm of a flush that finds the mark:
//!
//! 1. Set the mark and make each page dirty.
//! 2. Verify the whole dict as `check` does. Each record that the index or a list leads to must
//!    have its checksum, and index, table, lists and counts must agree. If they do not, this flush
//!    and each later one fails until a repair.
//! 3. Sync.
//! 4. Clear the mark. Only then free what the previous flush has promised to keep.
//!
//! Why it is correct: each page was dirty when it was verified. So a page that has gone back since
//! then is a write that failed since then, and the sync of step 3 reports it.
//!
//! What remains: a page that goes back before any process has received an error does so unnoticed.
//! The verification of step 2 finds it, with one exception: a dict that was never flushed, in which
//! all pages of a change have gone back together.
//!
//! Cost: a copy of 4 KiB and two stores for each sync. After a failure, a write to each page and a
//! scan of the dict.

use std::mem::MaybeUninit;
use std::ops::RangeBounds;

use crate::dict::format::layout::at;
use crate::dict::format::marks::{REPAIRING, SYNCING};
use crate::dict::format::slot::bucket_count;
use crate::error::Result;
use crate::mapping::Mapping;

/// The number of words of a dict before the redo log's pairs.
const WORDS: usize = (at::REDO_LOG - at::COMMIT) / 8;

/// Syncs a range of a dict's file. If the sync fails, restores each word, sets the mark, and stores
/// the bits of `durable` in DURABLE beside it. The caller holds the lock. A flush has called
/// `rearm` for the signal handler.
pub(in crate::dict) fn sync_or_mark(map: &Mapping, range: impl RangeBounds<usize>, durable: u64) -> Result<()> {
    let mut room = [const { MaybeUninit::uninit() }; WORDS];
    let words = map.read_words_uninit(at::COMMIT, &mut room)?;
    let synced = map.sync_armed(range);
    if synced.is_err() {
        // The caller gets the error of the sync, so errors of these steps are dropped.
        let _ = map.put_words(at::COMMIT, words);
        let _ = set(map, durable);
        let _ = map.make_dirty();
    }
    synced
}

/// Sets both parts of the mark.
pub(in crate::dict) fn set(map: &Mapping, durable: u64) -> Result<()> {
    map.put_word(at::SUSPECT, 1)?;
    map.put_word(at::DURABLE, durable | SYNCING)
}

/// Returns whether the mark stands, or a sync through this handle has failed.
pub(in crate::dict) fn stands(map: &Mapping) -> Result<bool> {
    Ok(map.word(at::DURABLE)? & SYNCING != 0 || map.word(at::SUSPECT)? != 0 || map.has_failed_sync())
}

/// Writes all of memory to the disk, for a repair, which has the dict to itself.
///
/// If the file system keeps no data for a block whose first write failed, this writes the pages
/// again in another way. Meanwhile a reader without a lock sees a repair under way.
pub(in crate::dict) fn write_anew(map: &Mapping) -> Result<()> {
    let durable = map.word(at::DURABLE)?;
    set(map, durable)?;
    // A sync does not write a page that the system considers clean, and such a page may go back at
    // any moment.
    map.make_dirty()?;
    match sync_or_mark(map, .., durable).and_then(|()| map.check_extents()) {
        Ok(()) => return Ok(()),
        // No block lacks data, so to write the pages again would fail in the same way.
        Err(error) if !map.lacks_extents()? => return Err(error),
        Err(_) => {}
    }
    let words = [at::REDO_LEN, at::BUCKETS].map(|at| Ok((at, map.word(at)?)));
    let words = words.into_iter().collect::<Result<Vec<_>>>()?;
    map.put_word(at::REDO_LEN, REPAIRING)?;
    map.put_word(at::BUCKETS, words[1].1 & !bucket_count(words[1].1))?;
    let written = map.write_anew(at::REDO_LOG);
    // REDO_LEN comes last: until then no process considers a dict without buckets empty.
    for (at, word) in words.into_iter().rev() {
        map.put_word(at, word)?;
    }
    written?;
    map.make_dirty()?;
    sync_or_mark(map, .., durable)?;
    map.check_extents()
}

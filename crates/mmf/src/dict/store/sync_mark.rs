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
use crate::dict::format::marks::{REPAIRING, SYNCING};
use crate::dict::format::slot::bucket_count;
use crate::error::Result;
use crate::mapping::Mapping;

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
pub(in crate::dict) fn set(map: &Mapping, durable: u64) -> Result<()> {
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
    map.put_word(at::REDO_LEN, REPAIRING)?;
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

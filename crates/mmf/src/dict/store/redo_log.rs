//! Replay of the redo log: completes the change of a writer that died after its commit point.
//!
//! The problem: a writer may die while it performs the stores of a committed change.
//! [`WriteBatch`](crate::dict::store::write_batch) describes how it writes the log, and its layout.
//!
//! The algorithm, run by each participant that has taken the write lock:
//!
//! 1. Load REDO_LEN. If it is 0, return.
//! 2. If it is [`REPAIRING`], or larger than the log, return an error.
//! 3. Check every pair before the first store. An offset that is before the payload, outside the
//!    mapping, not a multiple of 8, or in the log itself is damage.
//! 4. If COMMIT or BUCKETS already has the word that a pair stores there, begin with that pair.
//!    The stores before it are done, and later stores may have replaced them.
//! 5. Perform the stores in their order, and store 0 in REDO_LEN.
//!
//! Why it is correct: the stores are absolute, so a replay can itself be interrupted and repeated.
//! Step 4 keeps readers without a lock from seeing a word go back. Step 3 limits a hostile peer to
//! stores that it can make itself: those inside the mapping.
//!
//! Cost: one load if the log is empty, otherwise two guarded loads and a store for each pair.

use crate::dict::format::layout::{Layout, at, number};
use crate::dict::format::marks::{RECOVERING, REPAIRING};
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::Mapping;
use crate::segment::layout::PAYLOAD;

/// Replays the redo log, and returns whether it had stores. The caller holds the write lock.
#[inline(always)]
pub(in crate::dict) fn replay(map: &Mapping, layout: &Layout) -> Result<bool> {
    let count = map.word(at::REDO_LEN)?;
    if count == 0 {
        return Ok(false);
    }
    replay_entries(map, layout, count)?;
    Ok(true)
}

#[cold]
#[inline(never)]
pub(in crate::dict) fn replay_entries(map: &Mapping, layout: &Layout, count: u64) -> Result<()> {
    let damaged = |reason: String| map.name_error(Error::new(ErrorKind::Damaged { reason }, "recover"));
    if count == REPAIRING {
        return Err(repair_error(map));
    }
    let count = usize::try_from(count).ok().filter(|count| *count <= layout.log_entries);
    let Some(count) = count else { return Err(damaged("its redo log claims more than it has room for".to_owned())) };
    let redo_log = at::REDO_LEN..at::REDO_LEN + 8;
    let pairs = at::REDO_LOG..at::REDO_LOG + 16 * layout.log_entries;
    let pair = |nth: usize| -> Result<(usize, u64)> {
        Ok((number(map.word(at::REDO_LOG + 16 * nth)?), map.word(at::REDO_LOG + 16 * nth + 8)?))
    };
    let mut from = 0;
    for nth in 0..count {
        let (offset, value) = pair(nth)?;
        // Every pair is checked before the first store.
        let is_there = match map.word(offset) {
            Err(error) if matches!(error.kind(), ErrorKind::Fault { .. }) => return Err(error),
            there => there.is_ok(),
        };
        if offset < PAYLOAD || offset % 8 != 0 || !is_there || redo_log.contains(&offset) || pairs.contains(&offset) {
            return Err(damaged(format!("its redo log has a store to {offset}, which no change stores to")));
        }
        // The stores before this one are done. To repeat them would undo a later store of the batch
        // to the same word, which readers would see.
        if [at::COMMIT, at::BUCKETS].contains(&offset) && map.word(offset)? == value {
            from = nth;
        }
    }
    for nth in from..count {
        let (offset, value) = pair(nth)?;
        map.put_word(offset, value)?;
    }
    map.put_word(at::REDO_LEN, 0)
}

/// Returns the error for a dict whose repair or rebuild is under way or was interrupted.
#[cold]
pub(in crate::dict) fn repair_error(map: &Mapping) -> Error {
    let (reason, help) = match was_cut_off(map) {
        Ok(true) => (
            "the rebuild of it after a power cut is under way, or was cut off",
            "try again; if no process is rebuilding it, open it once for writing",
        ),
        _ => ("a repair of it is under way, or was cut off", "run `mmf repair`"),
    };
    map.name_error(Error::new(ErrorKind::Damaged { reason: reason.to_owned() }, "use")).with_help(help)
}

/// Returns whether a rebuild was interrupted. The holder of the lock then does it again.
pub(in crate::dict) fn was_cut_off(map: &Mapping) -> Result<bool> {
    Ok(map.word(at::REDO_LEN)? == REPAIRING && map.word(at::BOOT)? == RECOVERING)
}

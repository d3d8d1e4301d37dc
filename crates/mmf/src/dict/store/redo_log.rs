//! Replay of the redo log: completes the change of a writer that died after its commit point.
//!
//! [`WriteBatch`](crate::dict::store::write_batch::WriteBatch) tells how the log is written. A
//! replay checks every entry before it performs the first store: an offset outside the dict, or in
//! the log itself, is damage. It costs one load when the log is empty.

use crate::dict::format::layout::{Layout, at, number};
use crate::dict::format::marks::{RECOVERING, REPAIRING};
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::Mapping;
use crate::segment::layout::PAYLOAD;

/// Carries out what a dead writer left in the redo log, and tells whether there was anything. The
/// caller has the lock.
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
        // All of it is looked at before any of it is stored.
        let is_there = match map.word(offset) {
            Err(error) if matches!(error.kind(), ErrorKind::Fault { .. }) => return Err(error),
            there => there.is_ok(),
        };
        if offset < PAYLOAD || offset % 8 != 0 || !is_there || redo_log.contains(&offset) || pairs.contains(&offset) {
            return Err(damaged(format!("its redo log leads to {offset}, where no change is made")));
        }
        // What came before that is done, and readers would see it undone where a later store of the
        // batch is to the same word.
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

/// Whether a rebuild was cut off, which the holder of the lock does again.
pub(in crate::dict) fn was_cut_off(map: &Mapping) -> Result<bool> {
    Ok(map.word(at::REDO_LEN)? == REPAIRING && map.word(at::BOOT)? == RECOVERING)
}

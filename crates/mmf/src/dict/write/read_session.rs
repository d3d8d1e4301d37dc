//! [`ReadSession`]: the read lock of a dict, taken in a state without half-made changes.
//!
//! A reader with the lock must not see a change that a dead writer has half made. If the redo log
//! has stores, it releases the read lock, takes the write lock, which replays them, and tries again
//! until its deadline.

use crate::dict::Dict;
use crate::dict::format::layout::at;
use crate::dict::handle::DictState;
use crate::dict::store::work_limit::too_slow;
use crate::dict::store::write_batch::WriteBatch;
use crate::dict::write::session::WriteSession;
use crate::error::Result;
use crate::segment::{Deadline, ReadLock};

/// The read lock. Dropping it releases the lock.
pub(in crate::dict) struct ReadSession<'a> {
    _lock: ReadLock<'a, DictState>,
}

impl<'a> ReadSession<'a> {
    /// Takes the read lock, and completes a dead writer's change first.
    pub(in crate::dict) fn lock(dict: &'a Dict, until: Deadline) -> Result<ReadSession<'a>> {
        let segment = &dict.segment;
        let until = until.resolve();
        loop {
            let lock = ReadLock::lock(segment, || until, "read", |outcome| outcome.map(|(lock, _)| lock))?;
            let reader = ReadSession { _lock: lock };
            if segment.map.word(at::REDO_LEN)? == 0 {
                return Ok(reader);
            }
            // A writer has died. A write session replays its change.
            drop(reader);
            drop(WriteSession::lock(dict, &mut WriteBatch::new(), until, "read")?);
            // A hostile peer may store a new count each time.
            if until.is_over() {
                return Err(too_slow(&segment.map, "read"));
            }
        }
    }
}

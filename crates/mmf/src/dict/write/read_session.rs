//! [`ReadSession`]: the read lock.

use crate::dict::Dict;
use crate::dict::format::layout::at;
use crate::dict::handle::DictState;
use crate::dict::store::work_limit::too_slow;
use crate::dict::store::write_batch::WriteBatch;
use crate::dict::write::session::WriteSession;
use crate::error::Result;
use crate::segment::{Deadline, ReadLock};

/// The read lock. Dropped, it is released.
pub(in crate::dict) struct ReadSession<'a> {
    _lock: ReadLock<'a, DictState>,
}

impl<'a> ReadSession<'a> {
    pub(in crate::dict) fn lock(dict: &'a Dict, until: Deadline) -> Result<ReadSession<'a>> {
        let segment = &dict.segment;
        let until = until.resolve();
        loop {
            let lock = ReadLock::lock(segment, || until, "read", |outcome| outcome.map(|(lock, _)| lock))?;
            let reader = ReadSession { _lock: lock };
            if segment.map.word(at::REDO_LEN)? == 0 {
                return Ok(reader);
            }
            // A writer has died; what it began is finished first.
            drop(reader);
            drop(WriteSession::lock(dict, &mut WriteBatch::new(), until, "read")?);
            // A peer may begin changes as fast as they are finished.
            if until.is_over() {
                return Err(too_slow(&segment.map, "read"));
            }
        }
    }
}

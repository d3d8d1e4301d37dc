//! [`RegionStatus`]: the state of a region and its participants at one moment.

use std::time::{Duration, SystemTime};

use super::{Region, contents};
use crate::error::Result;
use crate::segment::waiter_counts::WaitReason;

/// The state of a region at one moment, for people and for monitoring. The next moment it may
/// differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionStatus {
    /// The length of the contents in bytes.
    pub len: u64,
    /// The number of bytes that the contents may grow to.
    pub capacity: u64,
    /// The version that [`Region::version`] returns.
    pub version: u64,
    /// Whether a writer died or panicked with a change half made.
    pub poisoned: bool,
    /// The time of creation, by the clock of the machine that created it.
    pub created: SystemTime,
    /// The handles that have locked or waited and have neither been dropped nor been noticed as
    /// dead.
    pub participants: Vec<Participant>,
}

/// A handle that takes part in a region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Participant {
    /// The process id, as the process itself sees it.
    pub process: u32,
    /// The time at which it joined.
    pub since: SystemTime,
    /// Whether it has the write lock, or has entered the lock as the writer and waits for readers
    /// to leave.
    pub writing: bool,
    /// The number of its threads that have a read lock.
    pub reading: u32,
    /// The number of its threads that have waited for the lock for 1 ms or longer, a writer that
    /// waits for readers to leave included.
    pub waiting: u32,
    /// The number of its threads that wait for a change.
    pub watching: u32,
}

impl Region {
    /// Returns the state of the region. Takes no lock and no place among the participants.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault);
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged).
    pub fn status(&self) -> Result<RegionStatus> {
        let segment = &self.segment;
        let doing = "examine";
        let readers = segment.lock.readers();
        let writer = segment.or_fault(segment.lock.writer(), doing)?;
        let mut participants = Vec::new();
        let of_this_boot = segment.is_of_this_boot()?;
        for slot in segment.or_fault(readers.occupied(), doing)? {
            // Participants of another boot are dead, though their slots may not be cleared yet.
            if !of_this_boot && !segment.is_alive(slot)? {
                continue;
            }
            participants.push(Participant {
                process: segment.process(slot)?,
                since: since_1970(segment.since(slot)?),
                writing: writer == Some(slot),
                reading: segment.or_fault(readers.count(slot), doing)?,
                waiting: segment.waiting(slot, WaitReason::Lock)?,
                watching: segment.waiting(slot, WaitReason::Change)?,
            });
        }
        Ok(RegionStatus {
            len: contents::len(segment, doing)? as u64,
            capacity: self.capacity(),
            version: self.version()?,
            poisoned: self.is_poisoned()?,
            created: since_1970(segment.header.created),
            participants,
        })
    }
}

fn since_1970(nanoseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

//! Reading, copying and growing the contents: under the lock, and without it.

use std::time::Instant;

use super::change::Segment;
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::MIN_WORK_TIME;
use crate::segment::Deadline;
use crate::segment::layout::PAYLOAD;
use crate::segment::retry::Attempts;
use crate::sys::guard::Fault;

/// Returns the length of the contents, checked against what is mapped: a peer can store any number.
#[inline]
pub(super) fn len(segment: &Segment, doing: &'static str) -> Result<usize> {
    match segment.container.len.load() {
        // It is at most a length of this process's memory.
        Ok(told) if told <= room(segment, segment.map.len() as u64) => Ok(usize::try_from(told).unwrap_or(0)),
        told => len_beyond(segment, told, doing),
    }
}

/// Returns how many bytes of contents fit an object of this length. A peer can make the object
/// longer than its capacity, so the capacity bounds what is copied.
#[inline]
fn room(segment: &Segment, there: u64) -> u64 {
    there.min(segment.header.capacity).saturating_sub(PAYLOAD as u64)
}

/// Asks the system for the length: a peer may have made the object longer.
#[cold]
#[inline(never)]
fn len_beyond(segment: &Segment, told: Result<u64, Fault>, doing: &'static str) -> Result<usize> {
    let told = segment.or_fault(told, doing)?;
    if told <= room(segment, segment.map.refresh()? as u64) {
        return Ok(usize::try_from(told).unwrap_or(0));
    }
    if told <= room(segment, segment.map.object().len()?) {
        let reason = format!("its contents of {told} bytes are more than this process can address");
        return Err(segment.name_error(Error::invalid(doing, reason)));
    }
    let reason = format!("its contents claim {told} bytes, more than the object has");
    Err(segment.name_error(Error::new(ErrorKind::Damaged { reason }, doing)))
}

/// Returns the error for contents that a writer left half changed when it died or panicked.
#[cold]
pub(super) fn poisoned(segment: &Segment, doing: &'static str) -> Error {
    let help = "examine the contents, correct or replace them under the lock for writing, then clear the poison (`clear_poison`)";
    segment.name_error(Error::new(ErrorKind::Poisoned, doing)).with_help(help)
}

/// Returns the deadline of a copy, which has at least [`MIN_WORK_TIME`] however long the wait for
/// the lock took.
pub(super) fn copy_deadline(until: Deadline) -> Option<Instant> {
    until.instant().map(|deadline| deadline.max(Instant::now() + MIN_WORK_TIME))
}

/// Replaces `bytes` by a copy of the contents. A long copy ends with the deadline.
pub(super) fn copy(segment: &Segment, bytes: &mut Vec<u8>, deadline: Option<Instant>) -> Result<()> {
    let len = len(segment, "read")?;
    bytes.clear();
    segment.map.append_pieces(PAYLOAD, len, bytes, || {
        if deadline.is_none_or(|deadline| Instant::now() < deadline) {
            return Ok(());
        }
        let error = segment.name_error(Error::new(ErrorKind::Timeout { holder: None }, "read"));
        Err(error.with_help("its contents are long: give the handle a longer `timeout`"))
    })
}

/// Copies the contents without a lock: repeats the copy until no writer has changed them meanwhile.
pub(super) fn read_unlocked(segment: &Segment, bytes: &mut Vec<u8>, until: Deadline) -> Result<()> {
    let doing = "read";
    let copy_deadline = copy_deadline(until);
    let mut attempts = Attempts::new(until);
    let mut last = None;
    loop {
        let before = segment.or_fault(segment.container.version.load(), doing)?;
        if segment.or_fault(segment.lock.is_poisoned(), doing)? {
            return Err(poisoned(segment, doing));
        }
        if before % 2 == 0 {
            copy(segment, bytes, copy_deadline)?;
            // Orders the next load of the version after the copy.
            std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
            if segment.or_fault(segment.container.version.load(), doing)? == before {
                return Ok(());
            }
        }
        // The change may be a dead writer's. This check is a system call, so it is made late.
        if before % 2 == 1 && attempts.are_many() && segment.is_abandoned(before)? {
            return Err(poisoned(segment, doing));
        }
        if !attempts.pause(last != Some(before)) {
            return Err(segment.name_error(Error::new(ErrorKind::Contended, doing)));
        }
        last = Some(before);
    }
}

/// Makes room for contents of `len` bytes. Readers see the new length after `set_len`.
#[inline]
pub(super) fn make_room(segment: &Segment, len: usize) -> Result<()> {
    if len as u64 <= room(segment, segment.map.len() as u64) { Ok(()) } else { make_more_room(segment, len) }
}

#[cold]
#[inline(never)]
fn make_more_room(segment: &Segment, len: usize) -> Result<()> {
    let doing = "write";
    let capacity = segment.header.capacity;
    let Some(size) = len.checked_add(PAYLOAD).filter(|size| *size as u64 <= capacity) else {
        let most = capacity - PAYLOAD as u64;
        let reason = format!("{len} bytes pass its capacity of {most}");
        return Err(segment.name_error(Error::invalid(doing, reason)).with_help("give it more when it is created"));
    };
    // Doubles the length if possible: each step costs a system call here and one in each peer.
    let wanted = size.max(segment.map.len().saturating_mul(2)).min(usize::try_from(capacity).unwrap_or(usize::MAX));
    if wanted == size || segment.map.grow(wanted).is_err() {
        segment.map.grow(size)?;
    }
    Ok(())
}

#[inline]
pub(super) fn set_len(segment: &Segment, len: usize, doing: &'static str) -> Result<()> {
    segment.or_fault(segment.container.len.store(len as u64), doing)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Region;
    use crate::mapping::COPY_CHUNK;
    use crate::name::Name;

    #[test]
    fn a_long_copy_ends_with_its_deadline_and_a_short_one_does_not() {
        let name = Name::local(format!("long copy {}", std::process::id())).unwrap();
        let region = Region::create_new(name, 3 * COPY_CHUNK as u64).unwrap();
        for (len, is_long) in [(COPY_CHUNK, false), (2 * COPY_CHUNK, true)] {
            region.write().unwrap().set(&vec![7; len]).unwrap();
            let mut bytes = Vec::new();
            let copied = copy(&region.segment, &mut bytes, Some(Instant::now()));
            match copied {
                Ok(()) => assert!(!is_long && bytes.len() == len),
                Err(error) => assert!(is_long && matches!(error.kind(), ErrorKind::Timeout { .. }), "{error}"),
            }
        }
    }

    #[test]
    fn a_copy_has_50_ms_however_short_the_timeout_is() {
        let began = Instant::now();
        for until in [Deadline::Now, Deadline::After(Duration::from_micros(100))] {
            assert!(copy_deadline(until).unwrap() >= began + MIN_WORK_TIME);
        }
        let long = Duration::from_secs(3);
        assert!(copy_deadline(Deadline::After(long)).unwrap() <= Instant::now() + long);
        assert_eq!(copy_deadline(Deadline::Never), None);
    }
}

//! The bytes that verbs read: those of raw memory in place, those of a region copied under its
//! lock.

use mmf::{Access, ErrorKind, LockError, Mapping, Region};

use super::{CHUNK, resolve};
use crate::cli::{Range, Reach};
use crate::failure::{FAILED, Failure, NO_SPACE, Result};
use crate::object::{Object, Opened};

/// A range of an object's bytes.
pub(super) struct Contents {
    from: usize,
    end: usize,
    bytes: Bytes,
    /// The failure to report after the bytes: the region is poisoned.
    doubt: Option<Failure>,
}

enum Bytes {
    InPlace(Box<Mapping>),
    /// Those of the range only.
    Copied(Vec<u8>),
}

impl Contents {
    pub(super) fn open(object: &Object, reach: &Reach, range: &Range) -> Result<Contents> {
        let in_place = |map: Box<Mapping>| {
            let (from, end) = resolve(range, map.len(), object)?;
            Ok(Contents { from, end, bytes: Bytes::InPlace(map), doubt: None })
        };
        if reach.raw {
            return in_place(Box::new(object.open(Access::ReadOnly, reach.any_owner)?));
        }
        let opened = object.open_to_read(reach.any_owner, reach.timeout_option.timeout);
        match opened.map_err(|error| object.advise_opener(error, "--size 1M"))? {
            Opened::Raw(map) => in_place(map),
            Opened::Unusable(error) => Err(unusable(error)),
            Opened::Dict(_) => {
                Err(Failure::new(FAILED, format!("cannot read {object}: it is a dict, which has no contents"))
                    .hint(format!("try: mmf export {0}, or mmf get {0} KEY", object.typed()))
                    .hint("for its raw bytes: the same command with --raw"))
            }
            Opened::Region(region) => copy(&region, object, range),
        }
    }

    /// The offsets of the first byte and of the end.
    pub(super) fn range(&self) -> (usize, usize) {
        (self.from, self.end)
    }

    /// Gives the bytes to `take`, a chunk at a time; of a page that is gone, those before it. Bytes
    /// in doubt are given before the failure.
    pub(super) fn for_chunks(self, mut take: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        match &self.bytes {
            Bytes::InPlace(map) => super::for_chunks(map, (self.from, self.end), take)?,
            Bytes::Copied(bytes) => {
                for (i, chunk) in bytes.chunks(CHUNK).enumerate() {
                    take(self.from + i * CHUNK, chunk)?;
                }
            }
        }
        self.doubt.map_or(Ok(()), Err)
    }
}

/// The error of a segment that this release cannot use, with advice.
fn unusable(error: mmf::Error) -> Failure {
    Failure::from(error).hint("for its raw bytes, try: the same command with --raw")
}

/// Copies the range under the lock, which is released before the bytes are written to a pipe that
/// may be slow.
fn copy(region: &Region, object: &Object, range: &Range) -> Result<Contents> {
    let (guard, poisoned) = match locked(region.read()) {
        Err(error) if *error.kind() == ErrorKind::ReadOnly => return copy_unlocked(region, object, range),
        locked => locked?,
    };
    let (from, end) = resolve(range, guard.len()?, object)?;
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(end - from).is_err() {
        return Err(Failure::new(NO_SPACE, format!("no memory for a copy of {} bytes", end - from)));
    }
    bytes.resize(end - from, 0);
    guard.read_at(from, &mut bytes)?;
    let doubt = poisoned.then(|| {
        let message = format!("{object} is poisoned: a writer died or panicked in the middle of a change");
        Failure::new(FAILED, message).hint(format!("to replace its contents, try: mmf write {}", object.typed()))
    });
    Ok(Contents { from, end, bytes: Bytes::Copied(bytes), doubt })
}

fn copy_unlocked(region: &Region, object: &Object, range: &Range) -> Result<Contents> {
    let mut bytes = region.to_vec()?;
    let (from, end) = resolve(range, bytes.len(), object)?;
    bytes.truncate(end);
    bytes.drain(..from);
    Ok(Contents { from, end, bytes: Bytes::Copied(bytes), doubt: None })
}

/// The guard, and whether the contents are poisoned.
pub(super) fn locked<G>(result: Result<G, LockError<G>>) -> mmf::Result<(G, bool)> {
    match result {
        Ok(guard) => Ok((guard, false)),
        Err(LockError::Poisoned(guard)) => Ok((guard, true)),
        Err(LockError::Failed(error)) => Err(error),
    }
}

/// Replaces the whole contents by `bytes`, and clears poison.
pub(super) fn replace(region: &Region, bytes: &[u8]) -> Result<()> {
    let (mut guard, poisoned) = locked(region.write())?;
    guard.set(bytes)?;
    if poisoned {
        region.clear_poison()?;
    }
    Ok(())
}

//! The lock beside a map: who has it, and what was there before he changed the map, so that whoever comes after his death
//! can put it back.
//!
//! It is a [`Region`] of its own, whose lock survives the death of whoever holds it. Its contents, the ledger, are these:
//!
//! | offset | bytes | |
//! | --- | --- | --- |
//! | 0 | 1 | 1 while the map is being changed: what is below is to be put back |
//! | 1 | 1 | how far the holder has come with the old gem's semaphore, see [`Claim`] |
//! | 8 | 8 | how many bytes are to be put back |
//! | 16 | that many | the map's first bytes as they were |
//!
//! A flag is one byte, which a death cannot leave half written; and a process that is killed has done all that comes before
//! the instruction at which it was.

use std::time::Duration;

use mmf::{Access, ErrorKind, LockError, Mapping, Region, WriteGuard};

use crate::error::{Error, Result};
use crate::sys::Semaphore;
use crate::wait::Wait;

const ARMED: usize = 0;
const CLAIM: usize = 1;
const LENGTH: usize = 8;
const UNDO: usize = 16;

/// Where whoever has the lock stands with the semaphore that processes of the old gem take.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Claim {
    /// It has not got it.
    No = 0,
    /// It is taking or giving it back: whether it has it, only the semaphore knows.
    Perhaps = 1,
    /// It has it.
    Yes = 2,
}

/// How long the semaphore of somebody who died while taking it is waited for. Processes of the old gem have it for the time
/// of a copy, so after this it was the dead who had it.
const DEAD: Duration = Duration::from_secs(1);

/// The lock of a map.
pub struct Latch {
    side: Side,
    semaphore: Option<Semaphore>,
}

enum Side {
    /// This process takes the lock.
    Taking(Region),
    /// This process may not write beside the map, and looks whether somebody came between.
    Watching(Region),
    /// There is nothing beside the map, and this process may not make it.
    Missing,
}

/// The lock in hand. Dropped, it is released.
pub struct Exclusive<'a> {
    guard: Option<WriteGuard<'a>>,
    semaphore: Option<&'a Semaphore>,
}

impl Latch {
    pub(crate) fn taking(region: Region, semaphore: Option<Semaphore>) -> Latch {
        Latch { side: Side::Taking(region), semaphore }
    }

    pub(crate) fn watching(region: Region) -> Latch {
        Latch { side: Side::Watching(region), semaphore: None }
    }

    pub(crate) fn missing() -> Latch {
        Latch { side: Side::Missing, semaphore: None }
    }

    /// Runs `body`, which only reads the map, while nobody changes it. It runs again where somebody did.
    pub(crate) fn read<R>(&self, map: &Mapping, wait: Wait<'_>, mut body: impl FnMut() -> Result<R>) -> Result<R> {
        let region = match &self.side {
            Side::Missing => return body(),
            Side::Watching(region) => return watch(region, wait, body),
            Side::Taking(region) => region,
        };
        if self.semaphore.is_some() {
            let _held = self.exclusive(map, wait)?;
            return body();
        }
        loop {
            let slice = wait.slice();
            match if slice.is_zero() { region.try_read() } else { region.read_for(slice) } {
                Ok(guard) if flag(|buf| guard.read_at(ARMED, buf), guard.len()?)? == 0 => return body(),
                Err(LockError::Failed(error)) => wait.go_on(retry(error)?)?,
                // What a dead process left is put back by whoever can.
                Ok(_) | Err(LockError::Poisoned(_)) => {}
            }
            self.exclusive(map, wait)?;
        }
    }

    /// The lock, with everything put back that a dead process left half done.
    pub(crate) fn exclusive(&self, map: &Mapping, wait: Wait<'_>) -> Result<Exclusive<'_>> {
        let Side::Taking(region) = &self.side else {
            return Ok(Exclusive { guard: None, semaphore: None });
        };
        loop {
            let slice = wait.slice();
            let (guard, poisoned) = match if slice.is_zero() { region.try_write() } else { region.write_for(slice) } {
                Ok(guard) => (guard, false),
                Err(LockError::Poisoned(guard)) => (guard, true),
                Err(LockError::Failed(error)) => {
                    wait.go_on(retry(error)?)?;
                    continue;
                }
            };
            let mut held = Exclusive { guard: Some(guard), semaphore: None };
            if let Some(semaphore) = &self.semaphore {
                held.claim(semaphore, wait)?;
            }
            held.put_back(map)?;
            if poisoned {
                region.clear_poison()?;
            }
            return Ok(held);
        }
    }
}

impl<'a> Exclusive<'a> {
    /// Puts `bytes` at the map's start so that a death in the middle leaves either these or what was there.
    pub(crate) fn replace(&mut self, map: &Mapping, bytes: &[u8]) -> Result<()> {
        // Nobody else sees what is copied on write.
        let Some(guard) = self.guard.as_mut().filter(|_| map.access() == Access::ReadWrite) else {
            return Ok(map.write_at(0, bytes)?);
        };
        let mut undo = Vec::with_capacity(bytes.len() + UNDO - LENGTH);
        undo.extend((bytes.len() as u64).to_le_bytes());
        undo.extend(map.read_to_vec(0, bytes.len())?);
        guard.write_at(LENGTH, &undo)?;
        guard.write_at(ARMED, &[1])?;
        let done = map.write_at(0, bytes);
        if done.is_err() {
            // What can be put back is; the page that is gone stays gone.
            let _ = map.write_at(0, &undo[UNDO - LENGTH..]);
        }
        guard.write_at(ARMED, &[0])?;
        Ok(done?)
    }

    fn put_back(&mut self, map: &Mapping) -> Result<()> {
        let Some(guard) = &mut self.guard else { return Ok(()) };
        if flag(|buf| guard.read_at(ARMED, buf), guard.len()?)? == 0 {
            return Ok(());
        }
        if map.access() != Access::ReadWrite {
            return Err(Error::HalfWritten);
        }
        // Any process could write any length there.
        let there = guard.len()?.saturating_sub(UNDO).min(map.refresh()?);
        let len = usize::try_from(guard.get::<u64>(LENGTH)?.to_le()).unwrap_or(usize::MAX).min(there);
        let mut bytes = vec![0; len];
        guard.read_at(UNDO, &mut bytes)?;
        map.write_at(0, &bytes)?;
        Ok(guard.write_at(ARMED, &[0])?)
    }

    /// Takes the old gem's semaphore, which the system does not take back from the dead: the ledger tells whether one of
    /// ours died with it.
    fn claim(&mut self, semaphore: &'a Semaphore, wait: Wait<'_>) -> Result<()> {
        let Some(guard) = &mut self.guard else { return Ok(()) };
        let left = flag(|buf| guard.read_at(CLAIM, buf), guard.len()?)?;
        if left != Claim::Yes as u8 {
            let died_taking_it = left == Claim::Perhaps as u8;
            let wait = if died_taking_it { wait.at_least(DEAD) } else { wait };
            set(guard, Claim::Perhaps)?;
            while !semaphore.take(wait.slice())? {
                match wait.go_on(None) {
                    Ok(()) => {}
                    Err(Error::Timeout { .. }) if died_taking_it && wait.waits() => break,
                    Err(error) => {
                        if !died_taking_it {
                            set(guard, Claim::No)?;
                        }
                        return Err(error);
                    }
                }
            }
            set(guard, Claim::Yes)?;
        }
        self.semaphore = Some(semaphore);
        Ok(())
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        if let (Some(guard), Some(semaphore)) = (&mut self.guard, self.semaphore) {
            // Where the ledger cannot be written, the next one finds a claim that stands, and has the semaphore.
            if set(guard, Claim::Perhaps).is_ok() && semaphore.give().is_ok() {
                let _ = set(guard, Claim::No);
            }
        }
    }
}

fn set(guard: &mut WriteGuard<'_>, claim: Claim) -> Result<()> {
    Ok(guard.write_at(CLAIM, &[claim as u8])?)
}

/// A flag of the ledger, which is empty at first.
fn flag(read: impl FnOnce(&mut [u8]) -> mmf::Result<()>, len: usize) -> Result<u8> {
    let mut flag = [0];
    if len > CLAIM {
        read(&mut flag)?;
    }
    Ok(flag[0])
}

/// What is worth another try, with the one who was in the way.
fn retry(error: mmf::Error) -> Result<Option<u32>> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(None),
        ErrorKind::Timeout { holder } => Ok(holder.map(|holder| holder.process)),
        _ => Err(error.into()),
    }
}

/// Without the right to lock: what was read counts if nobody had the lock before, and the version is the same after.
fn watch<R>(region: &Region, wait: Wait<'_>, mut body: impl FnMut() -> Result<R>) -> Result<R> {
    loop {
        let before = region.status()?;
        if before.poisoned {
            return Err(Error::HalfWritten);
        }
        let writer = before.participants.iter().find(|participant| participant.writing).map(|writer| writer.process);
        if writer.is_none() {
            let result = body();
            let after = region.status()?;
            if after.version == before.version && !after.participants.iter().any(|participant| participant.writing) {
                return result;
            }
        }
        let slice = wait.slice();
        wait.go_on(writer)?;
        std::thread::sleep(slice.min(Region::POLL));
    }
}

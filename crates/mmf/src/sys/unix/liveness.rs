//! Liveness of named objects: each process that holds an object has a shared lock on one byte of
//! its file, far behind the end.
//!
//! The lock belongs to an open file description ([`fcntl(2)`, "Open file description locks"][ofd])
//! that is never mapped, duplicated or passed on. The kernel therefore releases it exactly when the
//! last process that has the description is gone. A process that removes an object holds that byte
//! exclusively meanwhile.
//!
//! [ofd]: https://man7.org/linux/man-pages/man2/fcntl.2.html

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::forks;
use super::namespace_dir::{Identity, IfMissing, NamespaceDir, file_name};
use super::native::{self, LockKind};
use super::remove::{ExpectedFile, remove_if_dead};
use super::system;
use crate::error::{Error, ErrorKind, Result};
use crate::name::Name;

/// The time for which a process waits for another that creates or removes an object. That takes
/// microseconds unless the other process is stopped.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Flags for opening any file of a shared directory: follow no links, do not block on a fifo,
/// inherit nothing.
pub(super) const SAFE_OPEN: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// The processes that hold a file's live byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holders {
    /// No process: dead processes left the file.
    None,
    /// Processes that have the object open.
    Some,
    /// One process that is creating or removing the object.
    Maker,
}

pub(super) fn holders(fd: impl AsFd) -> Result<Holders> {
    match native::lock_owner(fd.as_fd()).map_err(system("probe"))? {
        None => Ok(Holders::None),
        Some(LockKind::Shared) => Ok(Holders::Some),
        Some(LockKind::Exclusive) => Ok(Holders::Maker),
    }
}

/// Pauses between checks of an object that another process is creating or removing, until a
/// timeout.
pub(super) struct BusyRetry {
    since: Instant,
    most: Duration,
    rounds: u32,
}

impl BusyRetry {
    pub(super) fn new() -> BusyRetry {
        BusyRetry::of(BUSY_TIMEOUT)
    }

    pub(super) fn of(most: Duration) -> BusyRetry {
        BusyRetry { since: Instant::now(), most, rounds: 0 }
    }

    pub(super) fn wait(&mut self, doing: &'static str) -> Result<()> {
        #[cfg(test)]
        ON_WAIT.with(|call| call.borrow_mut().as_mut().map_or((), |call| call()));
        if self.since.elapsed() > self.most {
            return Err(Error::new(ErrorKind::Busy, doing)
                .with_help("is the process that makes or removes it stopped? try again, or end it"));
        }
        self.rounds += 1;
        if self.rounds > 10 {
            std::thread::sleep(Duration::from_micros(200));
        } else {
            std::thread::yield_now();
        }
        Ok(())
    }
}

#[cfg(test)]
thread_local! {
    static ON_WAIT: std::cell::RefCell<Option<Box<dyn FnMut()>>> = const { std::cell::RefCell::new(None) };
}

/// Calls a function before each wait of this thread, for tests.
#[cfg(test)]
pub(super) fn on_wait(call: Option<Box<dyn FnMut()>>) {
    ON_WAIT.with(|place| *place.borrow_mut() = call);
}

/// This process's lock on a named object.
pub(super) struct LivenessHold {
    /// A separate file description, closed first when this is dropped.
    fd: Option<OwnedFd>,
    name: Name,
    identity: Identity,
    /// Whether the file was found to be an object under this name alone.
    proven: bool,
    /// The process that took it. A forked child shares the description, and must neither unlock nor
    /// judge.
    process: u32,
    /// The count of forks when it was taken.
    forks: u32,
}

impl LivenessHold {
    /// Takes the lock through a description that belongs to it alone. Returns `None` if another
    /// process has the byte exclusively.
    pub(super) fn hold(fd: OwnedFd, name: &Name) -> Result<Option<LivenessHold>> {
        let forks = forks::made();
        match native::lock(fd.as_fd(), LockKind::Shared) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Ok(None),
            Err(errno) => return Err(system("hold")(errno)),
        }
        let identity = Identity::of(&rustix::fs::fstat(&fd).map_err(system("hold"))?);
        let process = forks::this_process();
        Ok(Some(LivenessHold { fd: Some(fd), name: name.clone(), identity, proven: false, process, forks }))
    }

    /// Records that the file is an object of this name: this process created it, or found it under
    /// no other name while it held it. Only such a file is marked as given up when it is removed.
    pub(super) fn proven(mut self) -> LivenessHold {
        self.proven = true;
        self
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }
}

impl Drop for LivenessHold {
    fn drop(&mut self) {
        let fd = self.fd.take();
        if forks::this_process() != self.process {
            return;
        }
        // Without a fork, no other process holds the object by this description. A process that
        // another thread is just starting has a copy of it for a moment, which would look like a
        // live holder.
        if let Some(fd) = fd.as_ref().filter(|_| self.forks == forks::made()) {
            native::unlock(fd.as_fd());
        }
        drop(fd);
        // A later creation or listing sweeps a file that cannot be removed now.
        if let Ok(dir) = NamespaceDir::open(self.name.scope(), IfMissing::Report) {
            let expected_file =
                if self.proven { ExpectedFile::Object(self.identity) } else { ExpectedFile::File(self.identity) };
            let _ = remove_if_dead(&dir, &file_name(&self.name), expected_file);
        }
    }
}

//! Liveness of named objects: a shared lock on one byte of the file, far behind its end, for as long as a process
//! holds the object.
//!
//! The lock belongs to an open file description ([`fcntl(2)`, "Open file description locks"][ofd]) that is never mapped,
//! duplicated or passed on, so the system gives it up exactly when the last process that has the description is gone.
//! Who removes an object, or makes a dead one anew, holds the same byte exclusively.
//!
//! [ofd]: https://man7.org/linux/man-pages/man2/fcntl.2.html

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::forks;
use super::native::{self, LockKind};
use super::scope::{Identity, Missing, ScopeDir, file_name};
use super::system;
use crate::error::{Error, ErrorKind, Result};
use crate::name::Name;

/// How long a process that makes or removes an object is waited for; it does so in microseconds unless it is stopped.
const PATIENCE: Duration = Duration::from_secs(1);

/// Flags for looking at whatever stands in a shared directory: no links, no blocking on a fifo, nothing inherited.
pub(super) const WARY: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// Who holds a file's live byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holders {
    /// Nobody: what is there was left by the dead.
    None,
    /// Processes that have it open.
    Some,
    /// One process that makes or removes it right now.
    Maker,
}

pub(super) fn holders(fd: impl AsFd) -> Result<Holders> {
    match native::lock_owner(fd.as_fd()).map_err(system("probe"))? {
        None => Ok(Holders::None),
        Some(LockKind::Shared) => Ok(Holders::Some),
        Some(LockKind::Exclusive) => Ok(Holders::Maker),
    }
}

/// Waits a little between looks at an object that somebody is making or removing, until patience ends.
pub(super) struct Patience {
    since: Instant,
    most: Duration,
    rounds: u32,
}

impl Patience {
    pub(super) fn new() -> Patience {
        Patience::of(PATIENCE)
    }

    pub(super) fn of(most: Duration) -> Patience {
        Patience { since: Instant::now(), most, rounds: 0 }
    }

    pub(super) fn wait(&mut self, doing: &'static str) -> Result<()> {
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

/// This process's hold on a named object.
pub(super) struct Live {
    /// Its own description, closed first when this is dropped.
    fd: Option<OwnedFd>,
    name: Name,
    identity: Identity,
    /// A forked child shares the description: it must neither unlock nor judge.
    process: rustix::process::Pid,
    /// The count of forks when it was taken.
    forks: u32,
}

impl Live {
    /// Takes hold through a description that is this hold's own; `None` where somebody has the byte exclusively.
    pub(super) fn hold(fd: OwnedFd, name: &Name) -> Result<Option<Live>> {
        let forks = forks::made();
        match native::lock(fd.as_fd(), LockKind::Shared) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Ok(None),
            Err(errno) => return Err(system("hold")(errno)),
        }
        let identity = Identity::of(&rustix::fs::fstat(&fd).map_err(system("hold"))?);
        let process = rustix::process::getpid();
        Ok(Some(Live { fd: Some(fd), name: name.clone(), identity, process, forks }))
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let fd = self.fd.take();
        if rustix::process::getpid() != self.process {
            return;
        }
        // Without a fork nobody holds the object by this description; but a process that another thread is just
        // starting has a copy of it for a moment, which would look like life.
        if let Some(fd) = fd.as_ref().filter(|_| self.forks == forks::made()) {
            native::unlock(fd.as_fd());
        }
        drop(fd);
        // What cannot be removed now is swept by whoever creates or lists next.
        if let Ok(dir) = ScopeDir::open(self.name.scope(), Missing::Report) {
            let _ = remove_if_dead(&dir, &file_name(&self.name), Some(self.identity));
        }
    }
}

/// What became of a file that was judged.
#[derive(Debug)]
pub(super) enum Judged {
    /// It was dead and is gone.
    Removed { size: u64 },
    /// Somebody holds it, or it is no file of ours.
    Alive,
    /// It is dead, but this user may not remove it.
    Kept { size: u64, owner: u32, why: Errno },
}

/// Removes the file if nobody holds it, and if it is the one expected.
pub(super) fn remove_if_dead(dir: &ScopeDir, file_name: &str, expected: Option<Identity>) -> Result<Judged> {
    let look = match rustix::fs::openat(&dir.fd, file_name, OFlags::RDONLY | WARY, Mode::empty()) {
        Ok(look) => look,
        // Gone already, or nothing that this user may judge; `AGAIN`: its owner has a lease on it (`F_SETLEASE`), and so
        // could stop every sweep.
        Err(Errno::NOENT | Errno::ACCESS | Errno::LOOP | Errno::NXIO | Errno::AGAIN) => return Ok(Judged::Alive),
        Err(errno) => return Err(system("judge")(errno)),
    };
    let stat = rustix::fs::fstat(&look).map_err(system("judge"))?;
    let identity = Identity::of(&stat);
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()
        || expected.is_some_and(|expected| expected != identity)
        || holders(&look)? != Holders::None
    {
        return Ok(Judged::Alive);
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let kept = |why| Ok(Judged::Kept { size, owner: stat.st_uid, why });
    let own = match lockable(dir, file_name, &look, &stat) {
        Ok(own) => own,
        // Somebody else has just removed it.
        Err(Errno::NOENT) => return Ok(Judged::Alive),
        Err(why) => return kept(why),
    };
    if rustix::fs::fstat(&own).is_ok_and(|stat| Identity::of(&stat) != identity)
        || native::lock(own.as_fd(), LockKind::Exclusive).is_err()
        || !dir.holds(file_name, identity)
    {
        return Ok(Judged::Alive);
    }
    // Under the exclusive lock nobody can take hold of it, and nobody else removes it.
    match rustix::fs::unlinkat(&dir.fd, file_name, rustix::fs::AtFlags::empty()) {
        Ok(()) => Ok(Judged::Removed { size }),
        Err(why) => kept(why),
    }
}

/// A description that can take the exclusive lock, which needs the right to write. An owner who gave that right away
/// (mode 0444) takes it back for the dead file.
fn lockable(dir: &ScopeDir, file_name: &str, look: &OwnedFd, stat: &rustix::fs::Stat) -> Result<OwnedFd, Errno> {
    let open = || rustix::fs::openat(&dir.fd, file_name, OFlags::RDWR | WARY, Mode::empty());
    match open() {
        // Another link may be the name of something else of this user's, put here by somebody to have its mode changed.
        Err(Errno::ACCESS) if stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_nlink == 1 => {
            rustix::fs::fchmod(look, Mode::RUSR | Mode::WUSR)?;
            let opened = open();
            // Back at once: the description keeps its right, and somebody may just have taken hold of the object.
            let _ = rustix::fs::fchmod(look, Mode::from_raw_mode(stat.st_mode));
            opened
        }
        opened => opened,
    }
}

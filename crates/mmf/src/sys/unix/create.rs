//! Atomic creation of files: a file gets its size, mode and contents before it gets its name.
//!
//! # Problem
//!
//! A process that opens an object must never find a file that is incomplete, even if the creator is
//! killed at any instruction.
//!
//! # Algorithm
//!
//! 1. `UnpublishedFile::in_dir` creates a file without a name (`O_TMPFILE` on Linux). If the file
//!    system cannot, it creates a file under a temporary name.
//! 2. `prepare` allocates the space, writes the first bytes and sets the mode.
//! 3. `publish` gives the file its name, by a call that never replaces an existing file: `linkat`,
//!    or a rename that refuses to replace. If the file system has no such rename, it links the file
//!    and then removes the temporary name.
//!
//! # Correctness
//!
//! Step 3 is one system call and the commit point. A creator that is killed earlier leaves no file,
//! or one under a temporary name. A live creator holds the live byte of a temporary file, so a
//! sweep removes that file only after its creator is gone.
//!
//! # Cost
//!
//! A fixed number of system calls, and the allocation of the space. A temporary name adds an open,
//! a mode change, a lock and two checks.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Resource;

use super::liveness::SAFE_OPEN;
use super::namespace_dir::{Identity, TEMPORARY};
use super::native::{self, LockKind};
use super::object::size;
use super::system;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{LargePages, Permissions, Spec};

/// A file that has no name yet. The file is gone once this is dropped.
pub(super) struct UnpublishedFile<'dir> {
    fd: OwnedFd,
    dir: BorrowedFd<'dir>,
    /// The temporary name, if the file system requires a name.
    temporary: Option<TemporaryName<'dir>>,
}

struct TemporaryName<'dir> {
    dir: BorrowedFd<'dir>,
    /// `None` once the file has its own name in place of this one.
    name: Option<String>,
    /// Holds the live byte, so that no sweep removes the file as one of a killed creator. `None` if
    /// the description was passed on, or if the file system has no such locks.
    hold: Option<OwnedFd>,
}

impl Drop for TemporaryName<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = rustix::fs::unlinkat(self.dir, &**name, AtFlags::empty());
        }
    }
}

impl TemporaryName<'_> {
    fn name(&self) -> Result<&str, Errno> {
        self.name.as_deref().ok_or(Errno::NOENT)
    }

    /// Opens the file again, with a separate file description.
    fn open(&self) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(self.dir, self.name()?, OFlags::RDWR | SAFE_OPEN, Mode::empty())
    }
}

impl<'dir> UnpublishedFile<'dir> {
    pub(super) fn in_dir(dir: BorrowedFd<'dir>) -> Result<UnpublishedFile<'dir>> {
        if let Some(fd) = native::unnamed(dir).map_err(system("create"))? {
            return Ok(UnpublishedFile { fd, dir, temporary: None });
        }
        UnpublishedFile::with_temporary_name(dir)
    }

    /// Creates a file under a temporary name, for file systems that require one. If the creator is
    /// killed, the file stays until a sweep removes it.
    fn with_temporary_name(dir: BorrowedFd<'dir>) -> Result<UnpublishedFile<'dir>> {
        // Each further attempt means that a sweep removed the file between its creation and the
        // lock.
        for _ in 0..1000 {
            let name = temporary_name();
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(dir, &*name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(fd) => fd,
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(system("create")(errno)),
            };
            let mut temporary = TemporaryName { dir, name: Some(name), hold: None };
            // A umask may have removed the owner's rights, without which the file cannot be opened
            // again.
            rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(system("create"))?;
            let Ok(hold) = temporary.open() else { continue };
            match native::lock(hold.as_fd(), LockKind::Shared) {
                Ok(()) => temporary.hold = Some(hold),
                Err(Errno::AGAIN | Errno::ACCESS) => continue,
                Err(_) => {}
            }
            let identity = |stat: rustix::fs::Stat| Identity::of(&stat);
            let named = temporary.name().and_then(|name| rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW));
            if rustix::fs::fstat(&fd).map(identity) == named.map(identity) {
                return Ok(UnpublishedFile { fd, dir, temporary: Some(temporary) });
            }
        }
        Err(Error::new(ErrorKind::Busy, "create"))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Gives the file its space, first bytes and mode. `size` is a result of [`size_to_make`].
    pub(super) fn prepare(&self, size: u64, spec: &Spec) -> Result<()> {
        allocate(self.fd.as_fd(), 0, size).map_err(system("create"))?;
        write_all(&self.fd, &spec.first_bytes).map_err(system("create"))?;
        self.set_mode(spec)
    }

    /// Sets the requested mode, independently of the umask.
    fn set_mode(&self, spec: &Spec) -> Result<()> {
        let mode = mode_of(spec.permissions.as_ref().unwrap_or(&Permissions::User))?;
        rustix::fs::fchmod(&self.fd, mode).map_err(system("create"))
    }

    /// Returns a separate file description, which holds a lock.
    pub(super) fn second_description(&mut self) -> Result<OwnedFd> {
        if let Some(hold) = self.temporary.as_mut().and_then(|temporary| temporary.hold.take()) {
            return Ok(hold);
        }
        let opened = match &self.temporary {
            Some(temporary) => temporary.open(),
            // A umask may have removed the owner's rights: restores them, and tries again.
            None => native::reopen(self.fd.as_fd()).or_else(|_| {
                rustix::fs::fchmod(&self.fd, Mode::RUSR | Mode::WUSR)?;
                native::reopen(self.fd.as_fd())
            }),
        };
        opened.map_err(|errno| system("create")(errno).with_help("is /proc mounted?"))
    }

    /// Gives the file its name. Returns `EXIST` if the name is taken; the caller may try again.
    pub(super) fn publish(&mut self, name: &OsStr) -> Result<(), Errno> {
        let Some(temporary) = &mut self.temporary else {
            return native::link_unnamed(self.fd.as_fd(), self.dir, name);
        };
        match native::rename_new(self.dir, temporary.name()?, name) {
            Ok(()) => {
                temporary.name = None;
                Ok(())
            }
            // The file system has no such rename. A link refuses to replace a file as well, and
            // dropping this value removes the temporary name.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(self.dir, temporary.name()?, self.dir, name, AtFlags::empty())
            }
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// Returns a name that no file has.
pub(super) fn temporary_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_nanos());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{TEMPORARY}{}-{now:x}-{count:x}", rustix::process::getpid().as_raw_nonzero())
}

/// Returns the mode bits that stand for these permissions.
pub(super) fn mode_of(permissions: &Permissions) -> Result<Mode> {
    match permissions {
        Permissions::User => Ok(Mode::RUSR | Mode::WUSR),
        Permissions::Everyone => Ok(Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH),
        Permissions::Mode(mode) if mode & !0o777 == 0 => {
            // Mode's raw type is narrower on some systems; nine bits fit each type.
            #[allow(clippy::cast_possible_truncation, clippy::useless_conversion)]
            Ok(Mode::from_raw_mode(*mode as rustix::fs::RawMode))
        }
        Permissions::Mode(mode) => {
            Err(Error::invalid("create", format!("mode {mode:o} has more than the nine bits of rights")))
        }
        Permissions::Sddl(_) => {
            Err(Error::unsupported("create", "SDDL permissions, which are Windows' own; give a mode"))
        }
    }
}

/// Allocates the bytes from `from` to `to`, zeroed. Never shortens a file.
pub(super) fn extend(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<(), Errno> {
    if from < to {
        if let Err(errno) = check_file_limit(to) {
            // A peer with a larger limit may have grown the file to this length in the meantime.
            return if size(&rustix::fs::fstat(fd)?) >= to { Ok(()) } else { Err(errno) };
        }
    }
    allocate(fd, from, to)
}

/// Allocates as [`extend`] does, for a length that [`check_file_limit`] has accepted.
pub(super) fn allocate(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<(), Errno> {
    match native::allocate(fd, from, to) {
        // The file system cannot allocate: sets the length under a lock, since two processes that
        // grow the file could shorten it.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => native::with_growth_lock(fd, || {
            if size(&rustix::fs::fstat(fd)?) < to { rustix::fs::ftruncate(fd, to) } else { Ok(()) }
        }),
        result => result,
    }
}

/// Returns `FBIG` if the process's limit forbids a file of that size. The system itself would send
/// `SIGXFSZ`, which ends the process unless it has a handler
/// ([`getrlimit(2)`](https://man7.org/linux/man-pages/man2/getrlimit.2.html), `RLIMIT_FSIZE`).
pub(super) fn check_file_limit(len: u64) -> Result<(), Errno> {
    // The system counts with signed offsets, and would report an invalid argument.
    if i64::try_from(len).is_err() {
        return Err(Errno::FBIG);
    }
    match rustix::process::getrlimit(Resource::Fsize).current {
        Some(most) if len > most => Err(Errno::FBIG),
        _ => Ok(()),
    }
}

pub(super) fn write_all(fd: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pwrite(fd, &bytes[done..], done as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Returns the size that `create` allocates, rounded up to whole large pages if they are requested.
/// Returns `FBIG` if no file may be so large.
pub(super) fn size_to_make(spec: &Spec) -> Result<u64> {
    let mut size = spec.size.unwrap_or(0);
    if spec.large_pages == LargePages::Require {
        size = (size.checked_next_multiple_of(native::LARGE_PAGE as u64))
            .ok_or_else(|| Error::invalid("create", "the size cannot be rounded up to large pages"))?;
    }
    check_file_limit(size).map_err(system("create"))?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::super::namespace_dir::{IfMissing, NamespaceDir, is_temporary};
    use super::super::sweep::{entries, sweep_dir};
    use super::*;
    use crate::name::Scope;

    /// Runs on every system, including those with files without names.
    #[test]
    fn a_temporary_name_is_swept_once_its_creator_is_gone_and_not_before() {
        let dir = NamespaceDir::open(Scope::Local, IfMissing::Make).unwrap();
        let mine = format!("{TEMPORARY}{}-", rustix::process::getpid().as_raw_nonzero());
        let left = || entries(&dir).unwrap().temporaries.into_iter().filter(|file| file.starts_with(&mine)).count();
        let before = left();
        let name = format!("mmf.newborn-{}", std::process::id());
        let spec = Spec { size: Some(100), ..Spec::default() };

        let unpublished = UnpublishedFile::with_temporary_name(dir.fd.as_fd()).unwrap();
        unpublished.prepare(100, &spec).unwrap();
        assert!(unpublished.temporary.as_ref().is_some_and(|temporary| is_temporary(temporary.name().unwrap())));
        sweep_dir(&dir).unwrap();
        assert_eq!(left(), before + 1, "a living creator's file was swept");
        drop(unpublished);
        assert_eq!(left(), before);

        // Simulates a creator that is killed: its descriptors are closed, and it removes nothing.
        let mut unpublished = UnpublishedFile::with_temporary_name(dir.fd.as_fd()).unwrap();
        let left_behind = unpublished.temporary.as_mut().unwrap().name.take();
        assert!(dir.stat_of(&left_behind.unwrap()).is_some());
        drop(unpublished);
        sweep_dir(&dir).unwrap();
        assert_eq!(left(), before, "a dead creator's file stays");

        let mut unpublished = UnpublishedFile::with_temporary_name(dir.fd.as_fd()).unwrap();
        let hold = unpublished.second_description().unwrap();
        unpublished.publish(name.as_ref()).unwrap();
        assert_eq!(unpublished.publish(name.as_ref()), Err(Errno::NOENT));
        drop(unpublished);
        assert_eq!(left(), before);
        assert_eq!(dir.stat_of(&name).unwrap().st_nlink, 1);
        drop(hold);
        sweep_dir(&dir).unwrap();
        assert!(dir.stat_of(&name).is_none());
    }
}

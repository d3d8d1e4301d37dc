//! Where named objects lie: a directory per scope, and a file name per object.
//!
//! `Local` is a directory of this user's own (mode 0700) whose path depends on the user id alone, so that programs
//! started in different ways meet; `Global` is the sticky directory that everyone shares.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Uid, geteuid};

use super::liveness::BusyRetry;
use super::native::{self, SHARED_DIR};
use super::system;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Name, Scope};
use crate::types::Spec;

/// What the files of objects begin with.
pub(super) const PREFIX: &str = "mmf.";

/// What the files begin with that have no name of their own yet, or none any more.
pub(super) const TEMPORARY: &str = ".mmf-";

/// Whether a file of this name is one that a creator or a remover left if no process holds it.
pub(super) fn is_temporary(file_name: &str) -> bool {
    file_name.starts_with(TEMPORARY)
}

/// The directory of a scope, open.
pub(super) struct NamespaceDir {
    pub(super) fd: OwnedFd,
    pub(super) scope: Scope,
    path: String,
}

/// Whether a missing directory is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfMissing {
    Make,
    /// Then nothing is in it: `NotFound`.
    Report,
}

impl NamespaceDir {
    pub(super) fn open(scope: Scope, missing: IfMissing) -> Result<NamespaceDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let shared = rustix::fs::open(SHARED_DIR, flags, Mode::empty()).map_err(|errno| {
            system("open")(errno).on(SHARED_DIR).with_help("named memory needs this directory; is it mounted?")
        })?;
        if scope != Scope::Local {
            return Ok(NamespaceDir { fd: shared, scope, path: SHARED_DIR.to_owned() });
        }
        let (fd, path) = own_dir(shared.as_fd(), missing)?;
        Ok(NamespaceDir { fd, scope, path })
    }

    /// Refuses a directory in which other users can give one object's name to another object of the
    /// same owner: `Global` is a directory that all users may write to, and only the sticky bit
    /// keeps them from renaming what is not theirs.
    pub(super) fn check_sticky(&self, spec: &Spec) -> Result<()> {
        if self.scope != Scope::Global || spec.allow_other_owners {
            return Ok(());
        }
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&self.fd).map_err(system("open"))?.st_mode);
        if mode.contains(Mode::SVTX) || !mode.intersects(Mode::WGRP | Mode::WOTH) {
            return Ok(());
        }
        let error = Error::unsupported("open", "global names in a directory where other users can rename them");
        Err(error.on(&self.path).with_help(format!("run `chmod +t {SHARED_DIR}` as root, or allow other owners")))
    }

    /// Tells that this process takes memory, once nobody has the turn: waits a second at most, and goes on untold then.
    pub(super) fn join(&self) -> Option<OwnedFd> {
        self.flock(FlockOperation::NonBlockingLockShared, BusyRetry::new())
    }

    /// Has the turn alone, once nobody else has it and all who joined are done. It waits longer than others, since taking
    /// memory takes time, and goes on without where somebody is stopped meanwhile. Dropped, the turn ends.
    pub(super) fn take_turn(&self) -> Option<OwnedFd> {
        self.flock(FlockOperation::NonBlockingLockExclusive, BusyRetry::of(Duration::from_secs(10)))
    }

    /// The lock is on the user's own directory in either scope: another user could hold one on the
    /// directory that all share, and delay each creation. So the users of one machine have a turn
    /// each.
    fn flock(&self, operation: FlockOperation, mut busy_retry: BusyRetry) -> Option<OwnedFd> {
        // A description of its own, for the lock to end with.
        let fd = match self.scope {
            Scope::Local => rustix::fs::openat(&self.fd, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?,
            Scope::Global | Scope::Exact => own_dir(self.fd.as_fd(), IfMissing::Make).ok()?.0,
        };
        while rustix::fs::flock(&fd, operation).is_err() {
            busy_retry.wait("create").ok()?;
        }
        Some(fd)
    }

    /// For people to read.
    pub(super) fn path_of(&self, file_name: &str) -> String {
        format!("{}/{file_name}", self.path)
    }

    /// Whether `file_name` still is the file with this identity.
    pub(super) fn holds(&self, file_name: &str, identity: Identity) -> bool {
        self.stat_of(file_name).is_some_and(|stat| Identity::of(&stat) == identity)
    }

    /// What stands under this name.
    pub(super) fn stat_of(&self, file_name: &str) -> Option<Stat> {
        rustix::fs::statat(&self.fd, file_name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }
}

/// Refuses (`PERM`) what stands in the place of this user's own directory and is another user's, or
/// open to others.
pub(super) fn check_own_dir(stat: &Stat, user: Uid) -> Result<(), Errno> {
    let shut = !Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO);
    let own = stat.st_uid == user.as_raw();
    let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
    if own && shut && is_dir { Ok(()) } else { Err(Errno::PERM) }
}

/// This user's own directory, open, and its path.
fn own_dir(shared: BorrowedFd<'_>, missing: IfMissing) -> Result<(OwnedFd, String)> {
    let user = geteuid();
    let path = format!("{SHARED_DIR}/mmf-{}", user.as_raw());
    let name = &path[SHARED_DIR.len() + 1..];
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = || rustix::fs::openat(shared, name, flags, Mode::empty());
    let mut opened = open();
    if opened.as_ref().err() == Some(&Errno::NOENT) && missing == IfMissing::Make {
        match rustix::fs::mkdirat(shared, name, Mode::RWXU) {
            // Two processes may both be first.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(system("create")(errno).on(path)),
        }
        opened = open();
    }
    let squatted = "another user made what stands there; its owner or root must remove it";
    for mended in [false, true] {
        match opened {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).map_err(system("open"))?;
                let mode = Mode::from_raw_mode(stat.st_mode);
                if check_own_dir(&stat, user).is_err() {
                    let owner = format!("user {} with mode {:04o}", stat.st_uid, stat.st_mode & 0o7777);
                    return Err(Error::new(ErrorKind::ForeignOwner { owner }, "open").on(path).with_help(squatted));
                }
                if mended || mode.contains(Mode::RWXU) {
                    return Ok((fd, path));
                }
            }
            // A directory that this user may not read, as an umask can make it.
            Err(Errno::ACCESS) if !mended => {}
            Err(Errno::NOENT) => return Err(Error::new(ErrorKind::NotFound, "open")),
            Err(errno @ (Errno::LOOP | Errno::NOTDIR | Errno::ACCESS)) => {
                return Err(system("open")(errno).on(path).with_help(squatted));
            }
            Err(errno) => return Err(system("open")(errno).on(path)),
        }
        // The umask, which belongs to the whole process, took rights from the mode that was asked
        // for.
        let _ = native::own_dir_for_owner(shared, name, user);
        opened = open();
    }
    Err(Error::new(ErrorKind::Busy, "open").on(path))
}

/// The file that holds the object of this name.
pub(super) fn file_name(name: &Name) -> String {
    match name.scope() {
        Scope::Local | Scope::Global => format!("{PREFIX}{}", name.as_str()),
        Scope::Exact => name.as_str().trim_start_matches('/').to_owned(),
    }
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    dev: u64,
    ino: u64,
}

impl Identity {
    // The fields' types differ between systems.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
    pub(super) fn of(stat: &Stat) -> Identity {
        Identity { dev: stat.st_dev as u64, ino: stat.st_ino as u64 }
    }

    pub(super) fn number(self) -> u128 {
        u128::from(self.dev) << 64 | u128::from(self.ino)
    }
}

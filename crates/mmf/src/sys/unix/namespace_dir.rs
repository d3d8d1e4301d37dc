//! Directories of named objects: one directory for each scope, and one file for each object.
//!
//! `Local` is this user's own directory (mode 0700). Its path depends only on the user id, so that
//! programs started in different ways use one directory. `Global` is the sticky directory that all
//! users share.

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

/// Prefix of the files of objects.
pub(super) const PREFIX: &str = "mmf.";

/// Prefix of files that have no name of their own yet, or no name any more.
pub(super) const TEMPORARY: &str = ".mmf-";

/// Returns whether a file of this name was left by a creator or a remover, if no process holds it.
pub(super) fn is_temporary(file_name: &str) -> bool {
    file_name.starts_with(TEMPORARY)
}

/// The open directory of a scope.
pub(super) struct NamespaceDir {
    pub(super) fd: OwnedFd,
    pub(super) scope: Scope,
    path: String,
}

/// Selects whether a missing directory is created.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfMissing {
    Make,
    /// Returns `NotFound`: a missing directory contains no objects.
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

    /// Refuses a directory in which other users can give one object's name to another object of one
    /// owner. All users may write to the directory of `Global`, and only the sticky bit keeps them
    /// from renaming files of others.
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

    /// Announces that this process takes memory, once no process has the turn. Waits up to 1 s, and
    /// returns `None` if the turn is still taken.
    pub(super) fn join(&self) -> Option<OwnedFd> {
        self.flock(FlockOperation::NonBlockingLockShared, BusyRetry::new())
    }

    /// Takes the turn exclusively, once no other process has it and all processes that called
    /// [`join`](Self::join) are done. Waits up to 10 s, since taking memory takes time, and returns
    /// `None` if a process is stopped meanwhile. Dropping the result ends the turn.
    pub(super) fn take_turn(&self) -> Option<OwnedFd> {
        self.flock(FlockOperation::NonBlockingLockExclusive, BusyRetry::of(Duration::from_secs(10)))
    }

    /// Locks the user's own directory, in either scope. Another user could hold a lock on the
    /// shared directory and so delay each creation. Each user therefore has a separate turn.
    fn flock(&self, operation: FlockOperation, mut busy_retry: BusyRetry) -> Option<OwnedFd> {
        // A separate file description, whose closing ends the lock.
        let fd = match self.scope {
            Scope::Local => rustix::fs::openat(&self.fd, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?,
            Scope::Global | Scope::Exact => own_dir(self.fd.as_fd(), IfMissing::Make).ok()?.0,
        };
        while rustix::fs::flock(&fd, operation).is_err() {
            busy_retry.wait("create").ok()?;
        }
        Some(fd)
    }

    /// Returns the path of a file, for display.
    pub(super) fn path_of(&self, file_name: &str) -> String {
        format!("{}/{file_name}", self.path)
    }

    /// Returns whether `file_name` still leads to the file with this identity.
    pub(super) fn holds(&self, file_name: &str, identity: Identity) -> bool {
        self.stat_of(file_name).is_some_and(|stat| Identity::of(&stat) == identity)
    }

    /// Returns the metadata of the file under this name.
    pub(super) fn stat_of(&self, file_name: &str) -> Option<Stat> {
        rustix::fs::statat(&self.fd, file_name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }
}

/// Refuses (`PERM`) a file in the place of this user's own directory that belongs to another user
/// or is accessible to other users.
pub(super) fn check_own_dir(stat: &Stat, user: Uid) -> Result<(), Errno> {
    let shut = !Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO);
    let own = stat.st_uid == user.as_raw();
    let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
    if own && shut && is_dir { Ok(()) } else { Err(Errno::PERM) }
}

/// Opens this user's own directory, and returns it with its path.
fn own_dir(shared: BorrowedFd<'_>, missing: IfMissing) -> Result<(OwnedFd, String)> {
    let user = geteuid();
    let path = format!("{SHARED_DIR}/mmf-{}", user.as_raw());
    let name = &path[SHARED_DIR.len() + 1..];
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = || rustix::fs::openat(shared, name, flags, Mode::empty());
    let mut opened = open();
    if opened.as_ref().err() == Some(&Errno::NOENT) && missing == IfMissing::Make {
        match rustix::fs::mkdirat(shared, name, Mode::RWXU) {
            // Two processes may create it at one time.
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
            // This user may not read the directory, as a umask can cause.
            Err(Errno::ACCESS) if !mended => {}
            Err(Errno::NOENT) => return Err(Error::new(ErrorKind::NotFound, "open")),
            Err(errno @ (Errno::LOOP | Errno::NOTDIR | Errno::ACCESS)) => {
                return Err(system("open")(errno).on(path).with_help(squatted));
            }
            Err(errno) => return Err(system("open")(errno).on(path)),
        }
        // The umask, which applies to the whole process, removed rights from the requested mode.
        let _ = native::own_dir_for_owner(shared, name, user);
        opened = open();
    }
    Err(Error::new(ErrorKind::Busy, "open").on(path))
}

/// Returns the name of the file that holds the object of this name.
pub(super) fn file_name(name: &Name) -> String {
    match name.scope() {
        Scope::Local | Scope::Global => format!("{PREFIX}{}", name.as_str()),
        Scope::Exact => name.as_str().trim_start_matches('/').to_owned(),
    }
}

/// The identity of a file, independent of its name.
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

//! Where named objects lie: a directory per scope, and a file name per object.
//!
//! `Local` is a directory of this user's own (mode 0700) whose path depends on the user id alone, so that programs
//! started in different ways meet; `Global` is the sticky directory that everyone shares.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::live::Patience;
use super::native::SHARED_DIR;
use super::system;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Name, Scope};

/// What the files of objects begin with.
pub(super) const PREFIX: &str = "mmf.";

/// The directory of a scope, open.
pub(super) struct ScopeDir {
    pub(super) fd: OwnedFd,
    pub(super) scope: Scope,
    path: String,
}

/// Whether a missing directory is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    /// Then nothing is in it: `NotFound`.
    Report,
}

impl ScopeDir {
    pub(super) fn open(scope: Scope, missing: Missing) -> Result<ScopeDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let shared = rustix::fs::open(SHARED_DIR, flags, Mode::empty()).map_err(|errno| {
            system("open")(errno).on(SHARED_DIR).with_help("named memory needs this directory; is it mounted?")
        })?;
        if scope != Scope::Local {
            return Ok(ScopeDir { fd: shared, scope, path: SHARED_DIR.to_owned() });
        }
        let uid = rustix::process::geteuid();
        let own = format!("mmf-{}", uid.as_raw());
        let path = format!("{SHARED_DIR}/{own}");
        let open = || rustix::fs::openat(&shared, &*own, flags | OFlags::NOFOLLOW, Mode::empty());
        let mut opened = open();
        if opened.as_ref().err() == Some(&Errno::NOENT) && missing == Missing::Make {
            match rustix::fs::mkdirat(&shared, &*own, Mode::RWXU) {
                // Two processes may both be first.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(system("create")(errno).on(path)),
            }
            opened = open();
        }
        let squatted = "somebody else made what stands there; it must be removed by its owner or by root";
        let fd = opened.map_err(|errno| match errno {
            Errno::NOENT => Error::new(ErrorKind::NotFound, "open"),
            Errno::LOOP | Errno::NOTDIR => system("open")(errno).on(&path).with_help(squatted),
            errno => system("open")(errno).on(&path),
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(system("open"))?;
        if stat.st_uid != uid.as_raw() || Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
            let owner = format!("user {} with mode {:04o}", stat.st_uid, stat.st_mode & 0o7777);
            return Err(Error::new(ErrorKind::ForeignOwner { owner }, "open").on(path).with_help(squatted));
        }
        Ok(ScopeDir { fd, scope, path })
    }

    /// Tells that this process takes memory, once nobody has the turn: waits a second at most, and goes on untold then.
    pub(super) fn join(&self) -> Option<OwnedFd> {
        self.flock(FlockOperation::NonBlockingLockShared, Patience::new())
    }

    /// Has the turn alone, once nobody else has it and all who joined are done. It waits longer than others, since taking
    /// memory takes time, and goes on without where somebody is stopped meanwhile. Dropped, the turn ends.
    pub(super) fn take_turn(&self) -> Option<OwnedFd> {
        self.flock(FlockOperation::NonBlockingLockExclusive, Patience::of(Duration::from_secs(10)))
    }

    fn flock(&self, operation: FlockOperation, mut patience: Patience) -> Option<OwnedFd> {
        // A description of its own, for the lock to end with.
        let fd = rustix::fs::openat(&self.fd, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        while rustix::fs::flock(&fd, operation).is_err() {
            patience.wait("create").ok()?;
        }
        Some(fd)
    }

    /// For people to read.
    pub(super) fn path_of(&self, file_name: &str) -> String {
        format!("{}/{file_name}", self.path)
    }

    /// The names of objects in this directory, each with the file that would hold it.
    pub(super) fn names(&self) -> Result<Vec<(Name, String)>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(system("list"))? {
            let entry = entry.map_err(system("list"))?;
            let plausible = matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown);
            let Ok(file_name) = entry.file_name().to_str() else { continue };
            let Some(text) = file_name.strip_prefix(PREFIX).filter(|_| plausible) else { continue };
            // What cannot be a name of ours is somebody else's file.
            if let Ok(name) = Name::new(self.scope, text) {
                names.push((name, file_name.to_owned()));
            }
        }
        Ok(names)
    }

    /// Whether `file_name` still is the file with this identity.
    pub(super) fn holds(&self, file_name: &str, identity: Identity) -> bool {
        rustix::fs::statat(&self.fd, file_name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| Identity::of(&stat) == identity)
    }
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
    pub(super) fn of(stat: &rustix::fs::Stat) -> Identity {
        Identity { dev: stat.st_dev as u64, ino: stat.st_ino as u64 }
    }

    pub(super) fn number(self) -> u128 {
        u128::from(self.dev) << 64 | u128::from(self.ino)
    }
}

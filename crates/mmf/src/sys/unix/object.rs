//! An object of the system: a descriptor, and a lock that keeps its name alive as long as a process
//! holds the object.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, FdFlags};

use super::create::{allocate, extend, mode_of, size_to_make};
use super::file::NameOnDisk;
use super::liveness::LivenessHold;
#[cfg(any(linux_like, apple))]
use super::liveness::SAFE_OPEN;
use super::namespace_dir::Identity;
use super::{extents, file, is_exhausted, named, native, system};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Source;
use crate::types::{Access, LargePages, ObjectInfo, Spec};

pub(crate) struct Object {
    fd: OwnedFd,
    /// Held for its drop: the name lives as long as a process holds the object.
    live: Option<LivenessHold>,
    location: Option<String>,
    /// Queried once: a description leads to one file for ever.
    identity: OnceLock<u128>,
    /// The length at the time when this handle opened, created or last grew the object.
    known_len: AtomicU64,
    /// Whether the file system was found to be local to this machine when the object was created.
    is_local: bool,
    /// The name of a file, until it is known to be on the disk.
    name: Option<NameOnDisk>,
}

impl Object {
    pub(crate) fn create(source: &Source, spec: &Spec) -> Result<Object> {
        match source {
            Source::Named(name) => named::create(name, spec),
            Source::File(path) => file::create(path, spec),
        }
    }

    pub(crate) fn open(source: &Source, spec: &Spec) -> Result<Object> {
        match source {
            Source::Named(name) => named::open(name, spec),
            Source::File(path) => file::open(path, spec),
        }
    }

    /// Opens an object for a caller that creates a missing one. Refuses another user's file.
    pub(crate) fn find(source: &Source, spec: &Spec) -> Result<Object> {
        match source {
            Source::Named(name) => named::open(name, spec),
            Source::File(path) => file::find(path, spec),
        }
    }

    pub(crate) fn anonymous(spec: &Spec) -> Result<Object> {
        let fd = native::anonymous()?;
        let size = size_to_make(spec)?;
        allocate(fd.as_fd(), 0, size).map_err(system("create"))?;
        native::seal(fd.as_fd()).map_err(system("create"))?;
        Object::new(fd, None, None, size, spec)
    }

    pub(crate) fn from_handle(handle: OwnedFd, spec: &Spec) -> Result<Object> {
        let flags = rustix::fs::fcntl_getfl(&handle).map_err(system("open"))?;
        let held = flags & OFlags::RWMODE;
        let enough = match spec.access {
            Access::ReadWrite => held == OFlags::RDWR,
            Access::ReadOnly | Access::CopyOnWrite => held != OFlags::WRONLY,
        };
        if !enough {
            return Err(Error::new(ErrorKind::PermissionDenied, "open")
                .with_help("the handle passed on has fewer rights than the access asked for"));
        }
        let stat = check_demands(&handle, spec)?;
        // A descriptor that another process passed on may be inheritable.
        rustix::io::fcntl_setfd(&handle, FdFlags::CLOEXEC).map_err(system("open"))?;
        Object::new(handle, None, None, size(&stat), spec)
    }

    /// Wraps a descriptor that is close-on-exec and whose object has `len` bytes.
    pub(super) fn new(
        fd: OwnedFd,
        live: Option<LivenessHold>,
        location: Option<String>,
        len: u64,
        spec: &Spec,
    ) -> Result<Object> {
        if spec.inheritable {
            rustix::io::fcntl_setfd(&fd, FdFlags::empty()).map_err(system("open"))?;
        }
        let identity = live.as_ref().map(|live| OnceLock::from(live.identity().number())).unwrap_or_default();
        Ok(Object { fd, live, location, identity, known_len: AtomicU64::new(len), is_local: false, name: None })
    }

    /// Wraps a file that was opened under this path.
    pub(super) fn of_file(fd: OwnedFd, stat: &Stat, path: &Path, spec: &Spec) -> Result<Object> {
        let identity = OnceLock::from(Identity::of(stat).number());
        Ok(Object { identity, ..Object::of_new_file(fd, size(stat), path, spec)? })
    }

    /// Wraps a file that was created under this path, with `len` bytes.
    pub(super) fn of_new_file(fd: OwnedFd, len: u64, path: &Path, spec: &Spec) -> Result<Object> {
        let name = (spec.access == Access::ReadWrite).then(|| NameOnDisk::new(path));
        let location = Some(path.to_string_lossy().into_owned());
        Ok(Object { name, ..Object::new(fd, None, location, len, spec)? })
    }

    /// Records that no other machine shares the file system.
    pub(super) fn local(self) -> Object {
        Object { is_local: true, ..self }
    }

    pub(crate) fn len(&self) -> Result<u64> {
        Ok(size(&rustix::fs::fstat(&self.fd).map_err(system("measure"))?))
    }

    /// Reads the first bytes, and returns how many there are. Returns `None` if the object must be
    /// mapped to be read.
    pub(crate) fn read_start(&self, bytes: &mut [u8]) -> Option<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pread(&self.fd, &mut bytes[done..], done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        Some(done)
    }

    /// A file may have another length by now.
    pub(crate) fn known_len(&self) -> u64 {
        self.known_len.load(Ordering::Relaxed)
    }

    pub(crate) fn max_len(&self) -> Option<u64> {
        None
    }

    pub(crate) fn grow(&self, len: u64) -> Result<()> {
        let now = self.len()?;
        let grow = || extend(self.fd.as_fd(), now, len).map_err(system("grow"));
        // A file's disk space does not depend on named memory.
        let grown = if self.live.is_some() { named::with_room(grow) } else { grow().map_err(out_of_space) };
        grown?;
        self.known_len.store(len.max(now), Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<()> {
        match native::sync(self.fd.as_fd()) {
            // Memory has no disk.
            Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(system("sync")(errno)),
        }
        // The directory comes second: if the file's sync wrote the file system's journal, the
        // directory's entry is already on the disk.
        self.name.as_ref().map_or(Ok(()), |name| name.sync(self.fd.as_fd()))
    }

    #[cfg(test)]
    pub(super) fn name_on_disk(&self) -> Option<&NameOnDisk> {
        self.name.as_ref()
    }

    pub(crate) fn unwritten(&self, len: u64) -> Result<Vec<Range<u64>>> {
        extents::unwritten(self.fd.as_fd(), len).map_err(system("examine"))
    }

    pub(crate) fn allocated(&self, len: u64) -> Result<Vec<Range<u64>>> {
        extents::allocated(self.fd.as_fd(), len).map_err(system("examine"))
    }

    pub(crate) fn write_around(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let file = extents::around(self.fd.as_fd()).map_err(system("write to"))?;
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pwrite(&file, rest, offset + done as u64) {
                Ok(0) => return Err(system("write to")(Errno::IO)),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(system("write to")(errno)),
            }
        }
        Ok(())
    }

    pub(crate) fn info(&self) -> Result<ObjectInfo> {
        let stat = rustix::fs::fstat(&self.fd).map_err(system("examine"))?;
        Ok(info_of(&stat, self.location.clone()))
    }

    /// Opens the file again, with a separate file description that holds locks.
    ///
    /// Needs the rights that opening the file for writing needs, and the file's path or `/proc`. A
    /// process that gives up these rights calls it before.
    #[cfg(any(linux_like, apple))]
    pub(super) fn second_description(&self) -> Result<OwnedFd> {
        // The path costs half of what `/proc` costs, if it still leads to this file.
        let flags = OFlags::RDWR | SAFE_OPEN;
        let by_path = self.location.as_ref().and_then(|path| rustix::fs::open(path, flags, Mode::empty()).ok());
        if let Some(fd) = by_path {
            let found = Identity::of(&rustix::fs::fstat(&fd).map_err(system("open a second time"))?);
            if found.number() == self.identity()? {
                return Ok(fd);
            }
        }
        native::reopen(self.fd.as_fd()).map_err(system("open a second time"))
    }

    /// Returns the identity of the file.
    pub(crate) fn identity(&self) -> Result<u128> {
        if let Some(identity) = self.identity.get() {
            return Ok(*identity);
        }
        let identity = Identity::of(&rustix::fs::fstat(&self.fd).map_err(system("examine"))?).number();
        // `set` blocks no other thread while the system is queried, unlike `get_or_init`. A thread
        // that was first stored an equal value.
        let _ = self.identity.set(identity);
        Ok(identity)
    }

    /// Returns whether another machine may have the file open. Its locks say nothing about the
    /// liveness of processes on this machine.
    pub(crate) fn is_remote(&self) -> Result<bool> {
        if self.is_local { Ok(false) } else { native::is_remote(self.fd.as_fd()).map_err(system("examine")) }
    }

    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn into_handle(self) -> OwnedFd {
        self.fd
    }
}

pub(super) fn info_of(stat: &Stat, location: Option<String>) -> ObjectInfo {
    ObjectInfo {
        owner: format!("user {}", stat.st_uid),
        permissions: format!("{:04o}", stat.st_mode & 0o7777),
        location,
    }
}

/// Returns flags that open with no more rights than the access needs.
pub(super) fn open_flags(access: Access) -> OFlags {
    match access {
        Access::ReadWrite => OFlags::RDWR,
        Access::ReadOnly | Access::CopyOnWrite => OFlags::RDONLY,
    }
}

/// Checks that an existing object meets the demands, and returns its metadata.
pub(super) fn check_demands(fd: impl AsFd, spec: &Spec) -> Result<Stat> {
    let stat = rustix::fs::fstat(fd).map_err(system("open"))?;
    check_kind(&stat)?;
    let size = size(&stat);
    if let Some(wanted) = spec.size.filter(|wanted| *wanted > size) {
        let wanted = format!("{wanted} bytes at least");
        return Err(Error::mismatch("its size", wanted, format!("{size} bytes")));
    }
    if let Some(wanted) = &spec.permissions {
        let (mode, found) = (mode_of(wanted)?, Mode::from_raw_mode(stat.st_mode));
        if mode != found {
            let (mode, found) = (mode.as_raw_mode(), found.as_raw_mode());
            return Err(Error::mismatch("its mode", format!("{mode:04o}"), format!("{found:04o}")));
        }
    }
    if spec.large_pages == LargePages::Require && size % native::LARGE_PAGE as u64 != 0 {
        let wanted = format!("a multiple of {}", native::LARGE_PAGE);
        return Err(Error::mismatch("its size", wanted, format!("{size} bytes")));
    }
    Ok(stat)
}

/// Returns how many bytes the file has.
pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Refuses a file that has no bytes to map: a directory, a fifo, a device.
pub(super) fn check_kind(stat: &Stat) -> Result<()> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind.is_file() || kind == native::SHM_TYPE {
        return Ok(());
    }
    Err(Error::unsupported("open", "mapping what is no regular file or shared memory"))
}

/// Refuses a file that belongs to neither this user nor root.
pub(super) fn check_owner(stat: &Stat, spec: &Spec) -> Result<()> {
    let trusted = stat.st_uid == rustix::process::geteuid().as_raw() || stat.st_uid == 0;
    if trusted || spec.allow_other_owners {
        return Ok(());
    }
    let owner = format!("user {}", stat.st_uid);
    Err(Error::new(ErrorKind::ForeignOwner { owner }, "open").with_help("allow other owners if that user is trusted"))
}

/// Returns the error for a named object whose file has further links.
pub(super) fn hard_linked(doing: &'static str, stat: &Stat, path: &str, name: &str) -> Error {
    Error::new(ErrorKind::HardLinked { links: links(stat) }, doing).with_help(format!(
        "a user who may write to it can have made the others; `find {} -samefile {path}` shows those that can be seen: \
         remove them, or give the object up with `mmf rm {name}` as its owner or root",
        native::SHARED_DIR
    ))
}

/// Returns how many names the file has.
#[allow(clippy::unnecessary_cast)] // the field's type differs between systems
pub(super) fn links(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

/// Adds to the error where memory for named objects comes from, if it is exhausted.
pub(super) fn out_of_space(error: Error) -> Error {
    if is_exhausted(&error) { error.with_help(native::NO_SPACE_HELP) } else { error }
}

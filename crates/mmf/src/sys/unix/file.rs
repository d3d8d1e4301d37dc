//! Objects in files.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::create::{UnpublishedFile, size_to_make};
use super::namespace_dir::Identity;
use super::object::{Object, check_demands, links, open_flags};
use super::remove::is_own;
use super::{native, system};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{LargePages, Spec};

pub(super) fn create(path: &Path, spec: &Spec) -> Result<Object> {
    create_where(path, spec, native::is_remote)
}

/// `is_remote`: whether other machines share the file system of such a file.
fn create_where(path: &Path, spec: &Spec, is_remote: impl Fn(BorrowedFd<'_>) -> Result<bool, Errno>) -> Result<Object> {
    refuse_large_pages(spec)?;
    let (dir, name) = directory_of(path)?;
    if rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Err(Error::new(ErrorKind::AlreadyExists, "create"));
    }
    let mut unpublished = UnpublishedFile::in_dir(dir.as_fd())?;
    // Before it has a name that would stay.
    let is_segment = !spec.first_bytes.is_empty();
    if is_segment && is_remote(unpublished.as_fd()).map_err(system("create"))? {
        return Err(Error::remote_segment("create"));
    }
    let size = size_to_make(spec)?;
    unpublished.prepare(size, spec)?;
    unpublished.publish(name).map_err(system("create"))?;
    let object = Object::of_new_file(unpublished.into_fd(), size, path, spec)?;
    Ok(if is_segment { object.local() } else { object })
}

pub(super) fn open(path: &Path, spec: &Spec) -> Result<Object> {
    refuse_large_pages(spec)?;
    let fd = rustix::fs::open(path, flags(spec), Mode::empty()).map_err(not_opened)?;
    let stat = check_demands(&fd, spec)?;
    Object::of_file(fd, &stat, path, spec)
}

/// NONBLOCK: a fifo must be refused, not waited for.
fn flags(spec: &Spec) -> OFlags {
    open_flags(spec.access) | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY
}

fn not_opened(errno: Errno) -> Error {
    match errno {
        Errno::ISDIR => Error::unsupported("open", "mapping a directory"),
        // A socket, or a device that nothing drives (`open(2)`).
        Errno::NXIO => Error::unsupported("open", "mapping what is no regular file").with_source(errno.into()),
        errno => system("open")(errno),
    }
}

/// Opens what exists for a caller that creates what is missing. In a directory where other users
/// create names too, what they put there is refused, as Linux refuses it to `open(2)` with
/// `O_CREAT` where `fs.protected_regular` and `fs.protected_symlinks` are set ([`proc_sys_fs(5)`]).
///
/// [`proc_sys_fs(5)`]: https://man7.org/linux/man-pages/man5/proc_sys_fs.5.html
pub(super) fn find(path: &Path, spec: &Spec) -> Result<Object> {
    refuse_large_pages(spec)?;
    if spec.allow_other_owners {
        return open(path, spec);
    }
    match rustix::fs::open(path, flags(spec) | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(fd) => {
            let stat = check_demands(&fd, spec)?;
            if is_trusted(&stat) && stat.st_nlink == 1 {
                return Object::of_file(fd, &stat, path, spec);
            }
        }
        // A symbolic link; FreeBSD and NetBSD have errors of their own for it, and there is nothing
        // to open either way.
        Err(errno @ (Errno::NOENT | Errno::ACCESS)) => return Err(not_opened(errno)),
        Err(_) => {}
    }
    let (dir, name) = directory_of(path)?;
    let around = rustix::fs::fstat(&dir).map_err(system("open the directory of"))?;
    if !others_create_names_in(&around) {
        return open(path, spec);
    }
    let trusted = |stat: &Stat| is_trusted(stat) || stat.st_uid == around.st_uid;
    let entry = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(system("open"))?;
    if !trusted(&entry) {
        return Err(planted(&entry));
    }
    if FileType::from_raw_mode(entry.st_mode).is_symlink() {
        return open(path, spec);
    }
    let fd = rustix::fs::openat(&dir, name, flags(spec) | OFlags::NOFOLLOW, Mode::empty()).map_err(not_opened)?;
    let stat = check_demands(&fd, spec)?;
    if !trusted(&stat) {
        return Err(planted(&stat));
    }
    if stat.st_nlink > 1 {
        let help =
            "another user may have given one of your files this name; open it as an existing file if it is meant";
        return Err(Error::new(ErrorKind::HardLinked { links: links(&stat) }, "open").with_help(help));
    }
    Object::of_file(fd, &stat, path, spec)
}

/// This user's own, or root's.
fn is_trusted(stat: &Stat) -> bool {
    is_own(stat) || stat.st_uid == 0
}

/// Whether it is a directory in which users who do not work together create files: all users may
/// write to it, or it is sticky and a group may.
fn others_create_names_in(dir: &Stat) -> bool {
    let mode = Mode::from_raw_mode(dir.st_mode);
    mode.contains(Mode::WOTH) || mode.contains(Mode::SVTX | Mode::WGRP)
}

fn planted(stat: &Stat) -> Error {
    let owner = format!("user {}", stat.st_uid);
    Error::new(ErrorKind::ForeignOwner { owner }, "open").with_help(
        "every user can put files into its directory; open it as an existing file, or allow other owners, if it is meant",
    )
}

/// The directory that a path's last name is in, and that name.
fn directory_of(path: &Path) -> Result<(OwnedFd, &OsStr)> {
    let Some(name) = path.file_name() else {
        return Err(Error::invalid("open", "the path does not end in a file's name"));
    };
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent, flags, Mode::empty()).map_err(system("open the directory of"))?;
    Ok((dir, name))
}

/// The name of a file, which reaches the disk with its directory and not with the file: `fsync(2)`
/// says that a file whose directory was not synced may be missing after a power cut.
///
/// Each handle syncs the directory once, with its first sync of the file, since the process that
/// created the file may have ended before it synced anything.
pub(super) struct NameOnDisk {
    /// From the root, so that the working directory may change.
    path: PathBuf,
    synced: AtomicBool,
}

impl NameOnDisk {
    pub(super) fn new(path: &Path) -> NameOnDisk {
        let relative = !path.is_absolute();
        let absolute = relative.then(|| std::path::absolute(path).ok()).flatten();
        NameOnDisk { path: absolute.unwrap_or_else(|| path.to_owned()), synced: AtomicBool::new(false) }
    }

    /// Brings the name of this file to the disk, once.
    pub(super) fn sync(&self, file: BorrowedFd<'_>) -> Result<()> {
        self.sync_with(file, |dir| match native::sync(dir) {
            // The way to empty the drive's cache (macOS) may be for files alone.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => rustix::fs::fsync(dir),
            synced => synced,
        })
    }

    fn sync_with(&self, file: BorrowedFd<'_>, sync: impl Fn(BorrowedFd<'_>) -> Result<(), Errno>) -> Result<()> {
        // Relaxed: two threads that both sync are right.
        if self.synced.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(dir) = self.directory(file)? {
            match sync(dir.as_fd()) {
                // A file system whose directories cannot be synced (`fsync(2)`).
                Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::ROFS) => {}
                Err(errno) => return Err(system("sync the directory of")(errno)),
            }
        }
        self.synced.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The directory that has the file under this name; `None` where another process has renamed or
    /// removed it, or where this user may not read the directory. Then the name is that process's,
    /// or its creator's, to sync.
    fn directory(&self, file: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
        let this = Identity::of(&rustix::fs::fstat(file).map_err(system("examine"))?);
        match Self::directory_with(&self.path, this)? {
            // A symbolic link leads to the directory that the file is in.
            None => std::fs::canonicalize(&self.path).map_or(Ok(None), |path| Self::directory_with(&path, this)),
            found => Ok(found),
        }
    }

    fn directory_with(path: &Path, file: Identity) -> Result<Option<OwnedFd>> {
        let (dir, name) = match directory_of(path) {
            Ok(found) => found,
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::InvalidInput { .. } => return Ok(None),
                _ => return Err(error),
            },
        };
        let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
        Ok(stat.is_ok_and(|stat| Identity::of(&stat) == file).then_some(dir))
    }
}

fn refuse_large_pages(spec: &Spec) -> Result<()> {
    if spec.large_pages == LargePages::Require {
        return Err(Error::unsupported("open", "large pages for a file; they are for named and anonymous memory"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_other_machines_could_open_is_refused_and_leaves_nothing() {
        let dir = std::env::temp_dir().join(format!("mmf-remote-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("segment");
        let spec = Spec { size: Some(4096), first_bytes: vec![1], ..Spec::default() };
        let error = create_where(&path, &spec, |_| Ok(true)).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{error}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        let raw = Spec { size: Some(4096), ..Spec::default() };
        create_where(&path, &raw, |_| Ok(true)).unwrap();
        std::fs::remove_file(&path).unwrap();
        create_where(&path, &spec, |_| Ok(false)).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_first_sync_of_a_handle_syncs_the_directory_of_its_file_until_that_succeeds() {
        let dir = std::env::temp_dir().join(format!("mmf-synced-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("file");
        let link = dir.join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let spec = Spec { size: Some(4096), ..Spec::default() };
        let object = create(&path, &spec).unwrap();
        let expected = Identity::of(&rustix::fs::stat(&dir).unwrap());
        for path in [&path, &link] {
            let name = NameOnDisk::new(path);
            let syncs = std::cell::Cell::new(0);
            let sync = |result| {
                name.sync_with(object.handle(), |dir| {
                    assert_eq!(Identity::of(&rustix::fs::fstat(dir).unwrap()), expected);
                    syncs.set(syncs.get() + 1);
                    result
                })
            };
            assert!(sync(Err(Errno::IO)).is_err());
            assert!(sync(Err(Errno::IO)).is_err(), "an error is told as long as it stands");
            sync(Ok(())).unwrap();
            sync(Ok(())).unwrap();
            assert_eq!(syncs.get(), 3);
        }
        // What each sync of an object does.
        let synced = |object: &Object| object.name_on_disk().unwrap().synced.load(Ordering::Relaxed);
        let opened = open(&path, &spec).unwrap();
        for object in [&object, &opened] {
            assert!(!synced(object));
            object.sync().unwrap();
            assert!(synced(object));
        }
        // A file of another name by now is the business of the process that renamed it.
        std::fs::rename(&path, dir.join("other")).unwrap();
        std::fs::write(&path, "").unwrap();
        let name = NameOnDisk::new(&path);
        name.sync_with(object.handle(), |_| panic!("this directory does not have it under this name")).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

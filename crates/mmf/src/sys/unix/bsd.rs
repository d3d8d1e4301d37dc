//! FreeBSD and its kin: files in the directory for temporary ones, `flock`, `shm_open` for exact names.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, FlockOperation, Mode};
use rustix::io::Errno;
use rustix::process::Uid;

pub(super) use super::shm::{create_exact, exact_path, open_exact, unlink_exact};
use crate::error::{Error, Result};

pub(super) const SHARED_DIR: &str = "/tmp";
pub(super) const NO_SPACE_HELP: &str = "see `df /tmp`";
/// What `fstat` calls shared memory that is no file in a directory.
pub(super) const SHM_TYPE: FileType = FileType::RegularFile;
pub(super) const EXACT_MAX: usize = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockKind {
    Shared,
    Exclusive,
}

/// As open-file-description locks, but on the whole file: these systems have none on bytes.
pub(super) fn lock(fd: BorrowedFd<'_>, kind: LockKind) -> Result<(), Errno> {
    let operation = match kind {
        LockKind::Shared => FlockOperation::NonBlockingLockShared,
        LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    rustix::fs::flock(fd, operation)
}

/// Gives the lock up for every copy of the description.
pub(super) fn unlock(fd: BorrowedFd<'_>) {
    // It fails only for what holds no lock.
    let _ = rustix::fs::flock(fd, FlockOperation::Unlock);
}

/// There is no way to ask, so it tries; whoever is refused for that moment tries again.
pub(super) fn lock_owner(fd: BorrowedFd<'_>) -> Result<Option<LockKind>, Errno> {
    for (kind, owner) in [(LockKind::Exclusive, None), (LockKind::Shared, Some(LockKind::Shared))] {
        match lock(fd, kind) {
            Ok(()) => {
                rustix::fs::flock(fd, FlockOperation::Unlock)?;
                return Ok(owner);
            }
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(Some(LockKind::Exclusive))
}

/// The descriptor of a mapping holds no lock of its own, so this one is for growth alone.
pub(super) fn with_growth_lock(_fd: BorrowedFd<'_>, grow: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    grow()
}

/// There are no files without a name here, so the two functions below are not reached.
pub(super) fn unnamed(_dir: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    Ok(None)
}

pub(super) fn link_unnamed(_fd: BorrowedFd<'_>, _dir: BorrowedFd<'_>, _name: &OsStr) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

pub(super) fn reopen(_fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

/// There is no rename that refuses to replace; the caller links instead.
pub(super) fn rename_new(_dir: BorrowedFd<'_>, _from: &str, _to: &OsStr) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// Never shortens, and is refused by file systems that cannot (`posix_fallocate(2)`).
pub(super) fn allocate(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<(), Errno> {
    if from >= to {
        return Ok(());
    }
    match rustix::fs::fallocate(fd, rustix::fs::FallocateFlags::empty(), from, to - from) {
        Err(Errno::INVAL) => Err(Errno::OPNOTSUPP),
        result => result,
    }
}

/// Whether an exact name is a file in a directory, which can be linked.
pub(super) const EXACT_IS_FILE: bool = false;

/// There is no mark for a file that was an object: only root can set the sticky bit of a file
/// (`chmod(2)`, `EFTYPE`).
pub(super) const GIVEN_UP: Mode = Mode::empty();

/// Gives this user's own directory the mode 0700. The call follows no link (`chmodat(2)`,
/// `AT_SYMLINK_NOFOLLOW`), and the directory around it is sticky, so that no other user can put
/// something of this user's in its place.
pub(super) fn own_dir_for_owner(shared: BorrowedFd<'_>, name: &str, user: Uid) -> Result<(), Errno> {
    super::namespace_dir::check_own_dir(&rustix::fs::statat(shared, name, AtFlags::SYMLINK_NOFOLLOW)?, user)?;
    rustix::fs::chmodat(shared, name, Mode::RWXU, AtFlags::SYMLINK_NOFOLLOW)
}

/// Positions are good for one stream alone here (`seekdir(3)`), so that each read begins at the
/// beginning.
pub(super) fn seek_dir(_dir: &Dir, _position: i64) {}

pub(super) fn position_after(_entry: &DirEntry) -> i64 {
    0
}

/// Whether the file lies on a file system that other machines share (`statfs(2)`, `MNT_LOCAL`).
pub(super) fn is_remote(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)] // the types differ between systems
    Ok(rustix::fs::fstatfs(fd)?.f_flags as u64 & libc::MNT_LOCAL as u64 == 0)
}

/// A file that is never given a name.
pub(super) fn anonymous() -> Result<OwnedFd> {
    super::unnamed_in_shared_dir()
}

pub(super) fn seal(_fd: BorrowedFd<'_>) -> Result<(), Errno> {
    Ok(())
}

/// Returns `None`: the process id is taken in its place.
pub(super) fn word_zeroed_by_forks() -> Option<&'static AtomicU32> {
    None
}

/// Returns `false`: `/dev/urandom` is read in its place.
pub(super) fn random(_bytes: &mut [u8]) -> bool {
    false
}

pub(super) fn sync(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fsync(fd)
}

pub(super) const FLUSH: rustix::mm::MsyncFlags = rustix::mm::MsyncFlags::SYNC;
/// An address is a hint; who asks compares.
pub(super) const FIXED: rustix::mm::MapFlags = rustix::mm::MapFlags::empty();
pub(super) const LARGE_PAGE: usize = 2 << 20;

/// The system promotes pages by itself.
pub(super) fn prefer_large_pages(_address: *mut u8, _len: usize) {}

pub(super) fn require_large_pages(_address: *mut u8, _len: usize) -> Result<()> {
    Err(Error::unsupported("map", "demanding large pages"))
}

/// The system has no call that reports pages that are gone, so it is only advised (`madvise(2)`).
pub(super) fn populate(address: *mut u8, len: usize, _write: bool) -> Result<(), Errno> {
    // SAFETY: advice on a mapping of our own; it changes no contents.
    unsafe { rustix::mm::madvise(address.cast(), len, rustix::mm::Advice::WillNeed) }
}

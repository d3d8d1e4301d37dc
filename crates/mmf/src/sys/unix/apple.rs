//! macOS: files in the directory for temporary ones, open-file-description locks, `shm_open` for exact names.
//!
//! `shm_open` itself would not do for the other scopes: its names have 31 bytes, cannot be listed or locked, and its
//! objects cannot grow.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Uid;

pub(super) use super::ofd::{LockKind, lock, lock_owner, unlock, with_growth_lock};
pub(super) use super::shm::{create_exact, exact_path, open_exact, unlink_exact};
use crate::error::{Error, Result};

pub(super) const SHARED_DIR: &str = "/tmp";
pub(super) const NO_SPACE_HELP: &str = "see `df /tmp`";
/// What `fstat` calls shared memory: nothing, the kernel fills in no type (`pshm_stat` in XNU's `posix_shm.c`).
pub(super) const SHM_TYPE: FileType = FileType::Unknown;
/// `PSHMNAMLEN` less the slash.
pub(super) const EXACT_MAX: usize = 30;

/// In the kernel since 2015, in the public headers since macOS 14 (`sys/fcntl.h`).
pub(super) const OFD_SETLK: libc::c_int = 90;
pub(super) const OFD_GETLK: libc::c_int = 92;

/// There are no files without a name here, so `link_unnamed` is not reached.
pub(super) fn unnamed(_dir: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    Ok(None)
}

pub(super) fn link_unnamed(_fd: BorrowedFd<'_>, _dir: BorrowedFd<'_>, _name: &OsStr) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// By its path (`fcntl(2)`, `F_GETPATH`), since a file under `/dev/fd` shares the description. `STALE` where the path is
/// another file's by now.
pub(super) fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let path = rustix::fs::getpath(fd)?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let again = rustix::fs::open(path, flags, Mode::empty())?;
    let (known, found) = (rustix::fs::fstat(fd)?, rustix::fs::fstat(&again)?);
    if (known.st_dev, known.st_ino) == (found.st_dev, found.st_ino) { Ok(again) } else { Err(Errno::STALE) }
}

/// Renames within a directory, or `EXIST` where the new name is taken (`renameatx_np(2)`).
pub(super) fn rename_new(dir: BorrowedFd<'_>, from: &str, to: &OsStr) -> Result<(), Errno> {
    rustix::fs::renameat_with(dir, from, dir, to, rustix::fs::RenameFlags::NOREPLACE)
}

/// Sets disk aside (`fcntl(2)`, `F_PREALLOCATE`); the length is the caller's to set.
pub(super) fn allocate(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<(), Errno> {
    if from >= to {
        return Ok(());
    }
    let Ok(length) = i64::try_from(to - from) else { return Err(Errno::FBIG) };
    let mut store = libc::fstore_t {
        fst_flags: libc::F_ALLOCATEALL,
        fst_posmode: libc::F_PEOFPOSMODE,
        fst_offset: 0,
        fst_length: length,
        fst_bytesalloc: 0,
    };
    // SAFETY: the descriptor is open, and the command reads and writes one `fstore_t` only.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_PREALLOCATE, &raw mut store) };
    if done == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSPC) {
        return Err(Errno::NOSPC);
    }
    Err(Errno::OPNOTSUPP)
}

/// Whether an exact name is a file in a directory, which can be linked.
pub(super) const EXACT_IS_FILE: bool = false;

/// The mark of a file that was an object and is none any more: the sticky bit, without a meaning
/// for files (`chmod(2)`).
pub(super) const GIVEN_UP: Mode = Mode::SVTX;

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

/// `fsync` leaves the data in the drive; this does not (`fcntl(2)`, `F_FULLFSYNC`).
pub(super) fn sync(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fcntl_fullfsync(fd)
}

/// `fsync` does not find pages that were changed through a mapping unless `msync` has handed them over.
pub(super) const FLUSH: rustix::mm::MsyncFlags = rustix::mm::MsyncFlags::SYNC;
/// An address is a hint; who asks compares.
pub(super) const FIXED: rustix::mm::MapFlags = rustix::mm::MapFlags::empty();
pub(super) const LARGE_PAGE: usize = 2 << 20;

/// There are none for shared memory.
pub(super) fn prefer_large_pages(_address: *mut u8, _len: usize) {}

pub(super) fn require_large_pages(_address: *mut u8, _len: usize) -> Result<()> {
    Err(Error::unsupported("map", "large pages for shared memory"))
}

pub(super) fn populate(address: *mut u8, len: usize, _write: bool) -> Result<(), Errno> {
    super::touch(address, len)
}

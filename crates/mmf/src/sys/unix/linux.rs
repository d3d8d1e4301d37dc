//! Linux: tmpfs, `O_TMPFILE`, memfd, open-file-description locks.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU32;

use rustix::fs::{Dir, DirEntry, FallocateFlags, FileType, MemfdFlags, Mode, OFlags, SealFlags, SeekFrom};
use rustix::io::Errno;
use rustix::mm;
use rustix::process::Uid;

use super::create::{UnpublishedFile, size_to_make};
use super::liveness::SAFE_OPEN;
use super::namespace_dir::{IfMissing, NamespaceDir};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Scope;
use crate::types::Spec;

/// The directory that everyone shares and that lies in memory ([`shm_overview(7)`]).
///
/// [`shm_overview(7)`]: https://man7.org/linux/man-pages/man7/shm_overview.7.html
pub(super) const SHARED_DIR: &str = "/dev/shm";

/// What an exhausted named object needs.
pub(super) const NO_SPACE_HELP: &str =
    "see `df /dev/shm`; a container gives it 64 MiB unless started with a larger --shm-size";

pub(super) use super::ofd::{LockKind, lock, lock_owner, unlock, with_growth_lock};

/// The commands of open-file-description locks ([`fcntl_locking(2)`]).
///
/// [`fcntl_locking(2)`]: https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html
pub(super) const OFD_SETLK: libc::c_int = libc::F_OFD_SETLK;
pub(super) const OFD_GETLK: libc::c_int = libc::F_OFD_GETLK;

/// A second description of an open file that needs no name ([`proc_pid_fd(5)`]).
///
/// [`proc_pid_fd(5)`]: https://man7.org/linux/man-pages/man5/proc_pid_fd.5.html
pub(super) fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::open(proc_path(fd), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Maps a word that is 0 now, and in each forked child until the child stores something there
/// ([`madvise(2)`], `MADV_WIPEONFORK`). It stays mapped to the end of the process. `None` before
/// Linux 4.14, and where the system does not tell good advice from bad, as some emulators do not.
///
/// [`madvise(2)`]: https://man7.org/linux/man-pages/man2/madvise.2.html
pub(super) fn word_zeroed_by_forks() -> Option<&'static AtomicU32> {
    let (len, read_write) = (super::page_size(), mm::ProtFlags::READ | mm::ProtFlags::WRITE);
    // SAFETY: reserves memory of the kernel's choosing.
    let page = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, read_write, mm::MapFlags::PRIVATE) }.ok()?;
    // SAFETY: no kernel knows this advice, and the page was just mapped and nothing is in it.
    let knows_bad_advice = unsafe { libc::madvise(page, len, -1) } != 0;
    // SAFETY: the page was just mapped, and zeros are what is in it.
    let advised = unsafe { mm::madvise(page, len, mm::Advice::LinuxWipeOnFork) };
    if !knows_bad_advice || advised.is_err() {
        // SAFETY: just mapped, and given to no other code.
        let _ = unsafe { mm::munmap(page, len) };
        return None;
    }
    // SAFETY: aligned to a page, never unmapped, and written through atomics alone.
    Some(unsafe { AtomicU32::from_ptr(page.cast()) })
}

fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A file without a name in this directory; `None` where the file system has no such thing
/// ([`open(2)`](https://man7.org/linux/man-pages/man2/open.2.html), `O_TMPFILE`).
pub(super) fn unnamed(dir: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, c".", flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Names a file that has none; `EXIST` where the name is taken.
pub(super) fn link_unnamed(fd: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    rustix::fs::linkat(rustix::fs::CWD, proc_path(fd), dir, name, rustix::fs::AtFlags::SYMLINK_FOLLOW)
}

/// Renames within a directory, or `EXIST` where the new name is taken (`renameat2(2)`).
pub(super) fn rename_new(dir: BorrowedFd<'_>, from: &str, to: &OsStr) -> Result<(), Errno> {
    rustix::fs::renameat_with(dir, from, dir, to, rustix::fs::RenameFlags::NOREPLACE)
}

/// What `fstat` calls shared memory that is no file in a directory.
pub(super) const SHM_TYPE: FileType = FileType::RegularFile;

/// The longest text of an exact name: a file's name without the slash.
pub(super) const EXACT_MAX: usize = 255;

/// Whether an exact name is a file in a directory, which can be linked.
pub(super) const EXACT_IS_FILE: bool = true;

/// The mark of a file that was an object and is none any more: the sticky bit, which Linux ignores
/// on files (`inode(7)`).
pub(super) const GIVEN_UP: Mode = Mode::SVTX;

/// Gives this user's own directory the mode 0700, and changes nothing else that stands there. The
/// descriptor is of a kind that needs no right to the directory, and `/proc` leads from it to just
/// that directory (`open(2)`, `O_PATH`).
pub(super) fn own_dir_for_owner(shared: BorrowedFd<'_>, name: &str, user: Uid) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(shared, name, flags, Mode::empty())?;
    super::namespace_dir::check_own_dir(&rustix::fs::fstat(&dir)?, user)?;
    rustix::fs::chmod(proc_path(dir.as_fd()), Mode::RWXU)
}

/// Lets the next read of a directory begin at a position that [`position_after`] gave, or at any
/// other number.
pub(super) fn seek_dir(dir: &Dir, position: i64) {
    // A position that the file system refuses leaves the beginning.
    if let (Ok(fd), Ok(position)) = (dir.fd(), u64::try_from(position)) {
        let _ = rustix::fs::seek(fd, SeekFrom::Start(position));
    }
}

/// The position behind an entry of a directory (`getdents(2)`, `d_off`).
pub(super) fn position_after(entry: &DirEntry) -> i64 {
    entry.offset()
}

/// Exact names are files in the shared directory ([`shm_open(3)`]); ours appear there complete.
///
/// [`shm_open(3)`]: https://man7.org/linux/man-pages/man3/shm_open.3.html
///
/// Returns the length as well.
pub(super) fn create_exact(file: &str, spec: &Spec) -> Result<(OwnedFd, u64)> {
    let dir = NamespaceDir::open(Scope::Exact, IfMissing::Report)?;
    let mut unpublished = UnpublishedFile::in_dir(dir.fd.as_fd())?;
    let size = size_to_make(spec)?;
    unpublished.prepare(size, spec)?;
    unpublished.publish(file.as_ref()).map_err(|errno| Error::system("create", errno.into()))?;
    Ok((unpublished.into_fd(), size))
}

pub(super) fn open_exact(file: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(exact_path(file), flags | SAFE_OPEN, Mode::empty())
}

pub(super) fn unlink_exact(file: &str) -> Result<(), Errno> {
    rustix::fs::unlink(exact_path(file))
}

/// For people to read, and where it is.
pub(super) fn exact_path(file: &str) -> String {
    format!("{SHARED_DIR}/{file}")
}

/// Makes the bytes from `from` to `to` exist and be allocated. Never shortens a file.
pub(super) fn allocate(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<(), Errno> {
    if from >= to {
        return Ok(());
    }
    if to - from >= LARGE && is_memory(fd) && to - from > memory_available().unwrap_or(u64::MAX) {
        return Err(Errno::NOSPC);
    }
    // A signal takes back all that a call has allocated, so after one it is asked for less at a time: a timer could
    // else keep it from ever getting done.
    let (mut at, mut step) = (from, to - from);
    while at < to {
        let piece = step.min(to - at);
        match rustix::fs::fallocate(fd, FallocateFlags::empty(), at, piece) {
            Ok(()) => at += piece,
            Err(Errno::INTR) => step = (piece / 2).max(LEAST_PIECE),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// What is allocated faster than signals come.
const LEAST_PIECE: u64 = 1 << 20;

/// From here on it is asked whether there is so much memory: a memfd has no limit of its own and a tmpfs one that may
/// be as large as the machine, so that allocating what is not there ends with the kernel killing processes.
const LARGE: u64 = 64 << 20;

fn is_memory(fd: BorrowedFd<'_>) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    #[allow(clippy::unnecessary_cast)] // narrower on 32-bit systems
    rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type as i64 == TMPFS_MAGIC)
}

/// Bytes that can be had without killing anybody
/// ([`proc_meminfo(5)`](https://man7.org/linux/man-pages/man5/proc_meminfo.5.html)).
fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |field: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((kib("MemAvailable")? + kib("SwapFree")?) << 10)
}

/// Whether the file lies on a file system that other machines may share ([`statfs(2)`] lists most types).
///
/// [`statfs(2)`]: https://man7.org/linux/man-pages/man2/statfs.2.html
pub(super) fn is_remote(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let kind = rustix::fs::fstatfs(fd)?.f_type;
    // The field's type differs between systems; the numbers have 32 bits.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    may_be_shared(kind as u32, || Ok(rustix::fs::major(rustix::fs::fstat(fd)?.st_dev)))
}

/// `major` tells that of the device which the file system is on, 0 where it is on none. It is asked
/// for where it matters.
fn may_be_shared(kind: u32, major: impl FnOnce() -> Result<u32, Errno>) -> Result<bool, Errno> {
    const SHARED: [u32; 18] = [
        0x6969,      // NFS
        0x517b,      // SMB
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB 2
        0x7375_7245, // Coda
        0x5346_414f, // AFS
        0x6b41_4653, // AFS of the kernel
        0x00c3_6400, // Ceph
        0x0102_1997, // 9P
        0x0bd0_0bd0, // Lustre
        0x0116_1970, // GFS2
        0x7461_636f, // OCFS2
        0x2003_0528, // OrangeFS
        0x1983_0326, // BeeGFS
        0x4750_4653, // GPFS
        0xaad7_aaea, // PanFS
        0x786f_4256, // VirtualBox's shared folders
        0xbacb_acbc, // VMware's
    ];
    /// File systems in programs: sshfs and what virtual machines share (virtiofs) as well as fuse-overlayfs, and nothing but
    /// their names tells them apart. One on a disk of its own (ntfs-3g) has that disk's number.
    const FUSE: u32 = 0x6573_5546;
    Ok(SHARED.contains(&kind) || (kind == FUSE && major()? == 0))
}

/// Memory without a name, sealed so that nobody who gets the descriptor can shrink it ([`memfd_create(2)`]).
///
/// [`memfd_create(2)`]: https://man7.org/linux/man-pages/man2/memfd_create.2.html
pub(super) fn anonymous() -> Result<OwnedFd> {
    rustix::fs::memfd_create("mmf", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(super::system("create"))
}

pub(super) fn seal(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fcntl_add_seals(fd, SealFlags::SHRINK)
}

/// Fills the bytes with random ones without a descriptor ([`getrandom(2)`]); `false` where the
/// system cannot: a kernel before 3.17, or one that has gathered too little randomness yet.
///
/// [`getrandom(2)`]: https://man7.org/linux/man-pages/man2/getrandom.2.html
pub(super) fn random(bytes: &mut [u8]) -> bool {
    let len = bytes.len();
    rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::NONBLOCK) == Ok(len)
}

/// What was written is on the disk.
pub(super) fn sync(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fsync(fd)
}

/// `msync` that hands pages to the system without waiting for the disk; `fsync` finds them there.
pub(super) const FLUSH: mm::MsyncFlags = mm::MsyncFlags::ASYNC;

/// The flag that refuses an address that is taken. Android's headers lack its name.
#[cfg(target_os = "linux")]
pub(super) const FIXED: mm::MapFlags = mm::MapFlags::FIXED_NOREPLACE;
#[cfg(target_os = "android")]
pub(super) const FIXED: mm::MapFlags = mm::MapFlags::from_bits_retain(0x10_0000);

/// What large pages of shared memory are made of here.
pub(super) const LARGE_PAGE: usize = 2 << 20;

/// Asks for large pages where the kernel sees fit.
pub(super) fn prefer_large_pages(address: *mut u8, len: usize) {
    // SAFETY: advice on a mapping of our own; it changes no contents. Refusal is no loss: they were preferred.
    let _ = unsafe { mm::madvise(address.cast(), len, mm::Advice::LinuxHugepage) };
}

/// Makes the mapping of large pages now, or says what is missing
/// ([`madvise(2)`](https://man7.org/linux/man-pages/man2/madvise.2.html), `MADV_COLLAPSE`, Linux 6.1).
pub(super) fn require_large_pages(address: *mut u8, len: usize) -> Result<()> {
    prefer_large_pages(address, len);
    // SAFETY: a mapping of our own; collapsing changes no contents.
    let done = unsafe { libc::madvise(address.cast(), len, MADV_COLLAPSE) };
    if done == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    let what = "large pages for this object".to_owned();
    Err(Error::new(ErrorKind::Unsupported { what }, "map").with_source(error).with_help(large_pages_help()))
}

/// Says why the kernel may have refused large pages.
fn large_pages_help() -> String {
    // SAFETY: asks for a number and touches no memory.
    let disabled = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) };
    // Kernels from 6.18 on set bit 1 where `madvise` still gets them.
    if disabled == 1 {
        return "this process has switched large pages off with prctl(PR_SET_THP_DISABLE), as Ruby does when it starts; \
                call prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0) first, or ask for large pages only where they can be had (`Prefer`)"
            .to_owned();
    }
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_default();
    let chosen = setting.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    format!(
        "Linux 6.1 and free 2 MiB pages are needed, and /sys/kernel/mm/transparent_hugepage/shmem_enabled \
         (now `{}`) must not be `deny`",
        chosen.unwrap_or("missing")
    )
}

const MADV_COLLAPSE: libc::c_int = 25;

/// Brings the pages in; a page that is gone is an error and no signal (`MADV_POPULATE_*`, Linux 5.14). Older kernels
/// read a byte of each page through a system call.
pub(super) fn populate(address: *mut u8, len: usize, write: bool) -> Result<(), Errno> {
    let advice = if write { mm::Advice::LinuxPopulateWrite } else { mm::Advice::LinuxPopulateRead };
    loop {
        // SAFETY: a mapping of our own; populating changes no contents.
        match unsafe { mm::madvise(address.cast(), len, advice) } {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::INVAL) => return super::touch(address, len),
            // Memory that the machine's own checks have condemned is gone as well.
            Err(HWPOISON) => return Err(Errno::FAULT),
            result => return result,
        }
    }
}

#[cfg(target_os = "linux")]
const HWPOISON: Errno = Errno::HWPOISON;
/// Android's headers lack its name.
#[cfg(target_os = "android")]
const HWPOISON: Errno = Errno::from_raw_os_error(133);

#[cfg(test)]
mod tests {
    #[test]
    fn what_other_machines_may_share_is_told_by_its_type() {
        let (tmpfs, ext4, nfs, fuse) = (0x0102_1994, 0xef53, 0x6969, 0x6573_5546);
        let may_be_shared = |kind, major| super::may_be_shared(kind, || Ok(major)).unwrap();
        assert!(!may_be_shared(tmpfs, 0) && !may_be_shared(ext4, 8));
        assert!(may_be_shared(nfs, 0));
        // sshfs, virtiofs; and ntfs-3g on a disk.
        assert!(may_be_shared(fuse, 0) && !may_be_shared(fuse, 8));
    }
}

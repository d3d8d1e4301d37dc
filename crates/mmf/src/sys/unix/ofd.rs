//! Open-file-description locks: on the live byte, and on the byte beside it for those who grow a file.

// The constants' types differ between systems.
#![allow(clippy::useless_conversion)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::native::{OFD_GETLK, OFD_SETLK};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockKind {
    Shared,
    Exclusive,
}

/// The live byte: behind every end that a file can have in practice.
const LIVE_BYTE: i64 = 1 << 62;
/// Held exclusively while a file's length is set.
const GROW_BYTE: i64 = LIVE_BYTE + 1;
/// From here on a byte per participant of a segment, held exclusively for its life.
const FIRST_SLOT_BYTE: i64 = LIVE_BYTE + 64;
/// From here on a second byte per participant, held exclusively once its checks of the file are
/// done. It is behind every byte that a forged slot in the lock's word, of 16 bits, can lead to.
const FIRST_CHECKED_BYTE: i64 = LIVE_BYTE + (1 << 20);
/// The number of slots of a segment.
const SLOT_COUNT: i64 = 256;

/// With 64 bits for the offsets. For 32-bit processors the `fcntl` of glibc and Android takes a narrower one, so that the
/// system is called without it ([`fcntl(2)`](https://man7.org/linux/man-pages/man2/fcntl.2.html), `fcntl64`).
#[cfg(all(target_pointer_width = "32", any(target_os = "android", all(target_os = "linux", target_env = "gnu"))))]
type Flock = libc::flock64;
#[cfg(not(all(
    target_pointer_width = "32",
    any(target_os = "android", all(target_os = "linux", target_env = "gnu"))
)))]
type Flock = libc::flock;

/// # Safety
///
/// The descriptor is open, the command is one of locks, and the lock may be read and written.
#[cfg(all(target_pointer_width = "32", any(target_os = "android", all(target_os = "linux", target_env = "gnu"))))]
unsafe fn fcntl(fd: libc::c_int, command: libc::c_int, lock: *mut Flock) -> libc::c_long {
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_fcntl64, fd, command, lock) }
}
#[cfg(not(all(
    target_pointer_width = "32",
    any(target_os = "android", all(target_os = "linux", target_env = "gnu"))
)))]
use libc::fcntl;

fn byte(at: i64, kind: i32) -> Flock {
    // SAFETY: `flock` is plain integers; all zeros are valid, and `l_pid` must be zero for these locks.
    let mut lock: Flock = unsafe { std::mem::zeroed() };
    // F_RDLCK, F_WRLCK, F_UNLCK and SEEK_SET fit their fields, whose types differ between systems.
    #[allow(clippy::cast_possible_truncation)]
    {
        lock.l_type = kind as _;
        lock.l_whence = libc::SEEK_SET as _;
    }
    lock.l_start = at;
    lock.l_len = 1;
    lock
}

fn command(fd: BorrowedFd<'_>, command: libc::c_int, lock: &mut Flock) -> Result<(), Errno> {
    loop {
        // SAFETY: the descriptor is open, and these commands read and write one `flock` only.
        let done = unsafe { fcntl(fd.as_raw_fd(), command, std::ptr::from_mut(lock)) };
        if done != -1 {
            return Ok(());
        }
        let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
        if errno != Errno::INTR {
            return Err(errno);
        }
    }
}

/// Takes the live byte, or changes a hold on it, at once or not at all (`AGAIN`). Released when the last copy of the
/// description is closed. An exclusive lock needs a description that can write.
pub(super) fn lock(fd: BorrowedFd<'_>, kind: LockKind) -> Result<(), Errno> {
    let kind = match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
    };
    command(fd, OFD_SETLK, &mut byte(LIVE_BYTE, kind.into()))
}

/// Gives the live byte up for every copy of the description.
pub(super) fn unlock(fd: BorrowedFd<'_>) {
    // It fails only for what holds no lock.
    let _ = command(fd, OFD_SETLK, &mut byte(LIVE_BYTE, libc::F_UNLCK.into()));
}

/// Who else holds the live byte, seen from this description.
pub(super) fn lock_owner(fd: BorrowedFd<'_>) -> Result<Option<LockKind>, Errno> {
    let mut probe = byte(LIVE_BYTE, libc::F_WRLCK.into());
    command(fd, OFD_GETLK, &mut probe)?;
    let kind = i32::from(probe.l_type);
    Ok(if kind == i32::from(libc::F_UNLCK) {
        None
    } else if kind == i32::from(libc::F_RDLCK) {
        Some(LockKind::Shared)
    } else {
        Some(LockKind::Exclusive)
    })
}

/// Runs `grow` while no other process of ours sets the file's length. Waits a second at most (`AGAIN`).
pub(super) fn with_growth_lock(fd: BorrowedFd<'_>, grow: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let since = Instant::now();
    while let Err(errno) = command(fd, OFD_SETLK, &mut byte(GROW_BYTE, libc::F_WRLCK.into())) {
        if errno != Errno::AGAIN || since.elapsed() > Duration::from_secs(1) {
            return Err(errno);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let grown = grow();
    let released = command(fd, OFD_SETLK, &mut byte(GROW_BYTE, libc::F_UNLCK.into()));
    grown.and(released)
}

fn slot_byte(slot: usize, kind: i32) -> Flock {
    byte_of(FIRST_SLOT_BYTE, slot, kind)
}

fn byte_of(first: i64, slot: usize, kind: i32) -> Flock {
    // Slots are counted in hundreds.
    byte(first + i64::try_from(slot).unwrap_or(0), kind)
}

/// As [`lock_slot`], for the second byte of a slot.
pub(super) fn lock_checked(fd: BorrowedFd<'_>, slot: usize) -> Result<(), Errno> {
    command(fd, OFD_SETLK, &mut byte_of(FIRST_CHECKED_BYTE, slot, libc::F_WRLCK.into()))
}

/// As [`unlock_slot`], for the second byte of a slot.
pub(super) fn unlock_checked(fd: BorrowedFd<'_>, slot: usize) -> Result<(), Errno> {
    command(fd, OFD_SETLK, &mut byte_of(FIRST_CHECKED_BYTE, slot, libc::F_UNLCK.into()))
}

/// As [`slot_is_locked`], for the second bytes of all slots at once.
pub(super) fn any_checked_is_locked(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut all = byte(FIRST_CHECKED_BYTE, libc::F_RDLCK.into());
    all.l_len = SLOT_COUNT;
    is_locked(fd, all)
}

fn is_locked(fd: BorrowedFd<'_>, mut probe: Flock) -> Result<bool, Errno> {
    command(fd, OFD_GETLK, &mut probe)?;
    Ok(i32::from(probe.l_type) != i32::from(libc::F_UNLCK))
}

/// Takes the byte of a slot, at once or not at all (`AGAIN`).
pub(super) fn lock_slot(fd: BorrowedFd<'_>, slot: usize) -> Result<(), Errno> {
    command(fd, OFD_SETLK, &mut slot_byte(slot, libc::F_WRLCK.into()))
}

/// Takes the byte of a slot as others may at the same time, but nobody exclusively; at once or not at all (`AGAIN`).
pub(super) fn share_slot(fd: BorrowedFd<'_>, slot: usize) -> Result<(), Errno> {
    command(fd, OFD_SETLK, &mut slot_byte(slot, libc::F_RDLCK.into()))
}

pub(super) fn unlock_slot(fd: BorrowedFd<'_>, slot: usize) -> Result<(), Errno> {
    command(fd, OFD_SETLK, &mut slot_byte(slot, libc::F_UNLCK.into()))
}

/// Whether another description has the byte exclusively. Asked as a reader would, so that a shared lock, which anybody who
/// may read can take, does not look like life.
pub(super) fn slot_is_locked(fd: BorrowedFd<'_>, slot: usize) -> Result<bool, Errno> {
    is_locked(fd, slot_byte(slot, libc::F_RDLCK.into()))
}

//! Open-file-description locks, on single bytes far behind the end of a file.
//!
//! # Problem
//!
//! The liveness of objects and participants needs locks that the kernel releases when a process
//! dies. Locks of processes (`F_SETLK`) do not suffice: closing any descriptor of the file releases
//! them.
//!
//! # Layout of the locked bytes
//!
//! ```text
//! 2^62                  live byte: shared by holders, exclusive for a remover
//! 2^62 + 1              growth: exclusive while a process sets the file's length
//! 2^62 + 64 + slot      liveness token of a participant, 256 slots
//! 2^62 + 2^20 + slot    second token of a participant, 256 slots
//! ```
//!
//! # Correctness
//!
//! A lock belongs to an open file description, and the kernel releases it when the last copy of the
//! description is closed. All calls are non-blocking. They return `AGAIN` if another description
//! holds a conflicting lock.
//!
//! # Cost
//!
//! One system call for each operation.

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
/// Locked exclusively while a process sets a file's length.
const GROW_BYTE: i64 = LIVE_BYTE + 1;
/// The first of 256 bytes, one for each participant of a segment. A participant locks its byte
/// exclusively for its life.
const FIRST_SLOT_BYTE: i64 = LIVE_BYTE + 64;
/// The first of the second bytes, one for each participant. A participant locks its second byte
/// exclusively once it has checked the file. This range is behind every byte that a forged 16-bit
/// slot in the lock's word can select.
const FIRST_CHECKED_BYTE: i64 = LIVE_BYTE + (1 << 20);
/// The number of slots of a segment.
const SLOT_COUNT: i64 = 256;

/// Calls `fcntl` with 64-bit offsets. On 32-bit processors, the `fcntl` of glibc and Android takes
/// a narrower structure, so this function calls the kernel directly
/// ([`fcntl(2)`](https://man7.org/linux/man-pages/man2/fcntl.2.html), `fcntl64`).
#[cfg(all(target_pointer_width = "32", any(target_os = "android", all(target_os = "linux", target_env = "gnu"))))]
type Flock = libc::flock64;
#[cfg(not(all(
    target_pointer_width = "32",
    any(target_os = "android", all(target_os = "linux", target_env = "gnu"))
)))]
type Flock = libc::flock;

/// # Safety
///
/// The descriptor is open, the command is a lock command, and `lock` is readable and writable.
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
    // SAFETY: `flock` consists of plain integers. All zeros are valid, and `l_pid` must be zero for
    // these locks.
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

/// Takes the live byte or changes the lock on it, without waiting (`AGAIN`). Closing the last copy
/// of the description releases the lock. An exclusive lock needs a description that can write.
pub(super) fn lock(fd: BorrowedFd<'_>, kind: LockKind) -> Result<(), Errno> {
    let kind = match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
    };
    command(fd, OFD_SETLK, &mut byte(LIVE_BYTE, kind.into()))
}

/// Releases the live byte for every copy of the description.
pub(super) fn unlock(fd: BorrowedFd<'_>) {
    // Fails only if the description holds no lock.
    let _ = command(fd, OFD_SETLK, &mut byte(LIVE_BYTE, libc::F_UNLCK.into()));
}

/// Returns how other descriptions hold the live byte.
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

/// Runs `grow` while no other process of this library sets the file's length. Waits up to 1 s
/// (`AGAIN`).
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
    // A slot number is below 256, so it fits.
    byte(first + i64::try_from(slot).unwrap_or(0), kind)
}

/// Takes the second byte of a slot, as [`lock_slot`] does the first.
pub(super) fn lock_checked(fd: BorrowedFd<'_>, slot: usize) -> Result<(), Errno> {
    command(fd, OFD_SETLK, &mut byte_of(FIRST_CHECKED_BYTE, slot, libc::F_WRLCK.into()))
}

/// Releases the second byte of a slot, as [`unlock_slot`] does the first.
pub(super) fn unlock_checked(fd: BorrowedFd<'_>, slot: usize) -> Result<(), Errno> {
    command(fd, OFD_SETLK, &mut byte_of(FIRST_CHECKED_BYTE, slot, libc::F_UNLCK.into()))
}

/// Returns whether another description has the second byte of any slot exclusively, as
/// [`slot_is_locked`] does for one slot.
pub(super) fn any_checked_is_locked(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut all = byte(FIRST_CHECKED_BYTE, libc::F_RDLCK.into());
    all.l_len = SLOT_COUNT;
    is_locked(fd, all)
}

fn is_locked(fd: BorrowedFd<'_>, mut probe: Flock) -> Result<bool, Errno> {
    command(fd, OFD_GETLK, &mut probe)?;
    Ok(i32::from(probe.l_type) != i32::from(libc::F_UNLCK))
}

/// Takes the byte of a slot exclusively, without waiting (`AGAIN`).
pub(super) fn lock_slot(fd: BorrowedFd<'_>, slot: usize) -> Result<(), Errno> {
    command(fd, OFD_SETLK, &mut slot_byte(slot, libc::F_WRLCK.into()))
}

/// Takes the byte of a slot shared, without waiting (`AGAIN`). Other descriptions may share it, but
/// none gets it exclusively.
pub(super) fn share_slot(fd: BorrowedFd<'_>, slot: usize) -> Result<(), Errno> {
    command(fd, OFD_SETLK, &mut slot_byte(slot, libc::F_RDLCK.into()))
}

pub(super) fn unlock_slot(fd: BorrowedFd<'_>, slot: usize) -> Result<(), Errno> {
    command(fd, OFD_SETLK, &mut slot_byte(slot, libc::F_UNLCK.into()))
}

/// Returns whether another description has the byte exclusively. The query asks for a shared lock.
/// A process that may only read can take a shared lock, and such a lock must not look like a live
/// participant.
pub(super) fn slot_is_locked(fd: BorrowedFd<'_>, slot: usize) -> Result<bool, Errno> {
    is_locked(fd, slot_byte(slot, libc::F_RDLCK.into()))
}

//! Copies within this process by `process_vm_readv(2)`.
//!
//! The kernel reads the source with `get_user_pages` and writes the destination with
//! `copy_to_user`. If it cannot reach a page, it returns `EFAULT` or a short count, and never
//! raises a signal.

use std::{io, ptr};

pub(super) const NEEDS: &str = "process_vm_readv is forbidden here (seccomp, or a kernel without it)";

/// Copies bytes and returns how many bytes are certainly copied. The kernel may stop at any page.
///
/// # Safety
///
/// The conditions of [`copy`](super::copy) hold.
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> io::Result<usize> {
    let local = libc::iovec { iov_base: dst.cast(), iov_len: len };
    let remote = libc::iovec { iov_base: src.cast_mut().cast(), iov_len: len };
    // The process id is not cached, because a fork changes it. SAFETY: getpid takes no arguments
    // and cannot fail.
    let pid = unsafe { libc::getpid() };
    // SAFETY: each list has one element. The kernel writes only within `local`, which the caller
    // allows.
    let copied = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
}

/// Returns whether the page of this address is readable, and brings the page into memory.
///
/// `rt_sigprocmask(2)` with an operation that does not exist first reads its set, and fails with
/// `EFAULT` if the page is gone. Otherwise it fails with `EINVAL`. System-call filters that forbid
/// `process_vm_readv` allow this call, because signal handlers need it.
pub(super) fn can_be_read(address: *const u8) -> bool {
    const NO_OPERATION: libc::c_int = -1;
    const SET_SIZE: usize = 8;
    // The set is aligned to its size, so it lies within one page.
    let set = address.map_addr(|address| address - address % SET_SIZE);
    let no_set = ptr::null_mut::<u8>();
    // The kernel reads no set at a null pointer.
    if set.is_null() {
        return false;
    }
    // SAFETY: the kernel checks access to the set itself. It changes nothing, because the operation
    // does not exist.
    let outcome = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, NO_OPERATION, set, no_set, SET_SIZE) };
    outcome == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT)
}

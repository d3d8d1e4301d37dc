//! `process_vm_readv(2)` on this very process. It reads one side with `get_user_pages` and writes the other with
//! `copy_to_user`; what either cannot reach is `EFAULT` or a short count, never a signal.

use std::{io, ptr};

pub(super) const NEEDS: &str = "process_vm_readv is forbidden here (seccomp, or a kernel without it)";

/// Copies, and returns how many bytes it surely did: it may have stopped at any page.
///
/// # Safety
///
/// As [`copy`](super::copy).
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> io::Result<usize> {
    let local = libc::iovec { iov_base: dst.cast(), iov_len: len };
    let remote = libc::iovec { iov_base: src.cast_mut().cast(), iov_len: len };
    // The id is asked for each time: a fork changes it.
    // SAFETY: getpid takes nothing and cannot fail.
    let pid = unsafe { libc::getpid() };
    // SAFETY: one element each; the system writes only within the first, which the caller allows.
    let copied = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
}

/// Whether the page of this address can be read. A page of a file or of memory is brought in for
/// it.
///
/// `rt_sigprocmask(2)` with an operation that does not exist reads its set, which is `EFAULT` where
/// that fails, and then refuses with `EINVAL`. Unlike `process_vm_readv`, every filter of system
/// calls lets it through: a signal handler cannot do without.
pub(super) fn can_be_read(address: *const u8) -> bool {
    const NO_OPERATION: libc::c_int = -1;
    const SET_SIZE: usize = 8;
    // So the set lies in one page.
    let set = address.map_addr(|address| address - address % SET_SIZE);
    let no_set = ptr::null_mut::<u8>();
    // Null would be no set to read.
    if set.is_null() {
        return false;
    }
    // SAFETY: the system reads the set itself, and changes nothing since there is no such
    // operation.
    let outcome = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, NO_OPERATION, set, no_set, SET_SIZE) };
    outcome == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT)
}

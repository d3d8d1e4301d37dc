//! `process_vm_readv(2)` on this very process. It reads one side with `get_user_pages` and writes the other with
//! `copy_to_user`; what either cannot reach is `EFAULT` or a short count, never a signal.

use std::io;

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

//! Sleeping on a word of shared memory: `_umtx_op(2)`, the operations without `PRIVATE`.

use std::ptr;
use std::time::Duration;

/// Sleeps while the word is `expected`, until `wake_all`, for `timeout` at the most; also wakes for no reason.
pub(super) fn sleep(word: *const u32, expected: u32, timeout: Duration) {
    let mut timeout = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i32::MAX.into()),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let (word, expected) = (word.cast_mut().cast(), libc::c_ulong::from(expected));
    // A null where the time's size may stand means that it is a `timespec`, counted from now.
    // SAFETY: the kernel checks the address itself and only reads there, and reads the timeout, which is ours.
    unsafe {
        libc::_umtx_op(word, libc::UMTX_OP_WAIT_UINT, expected, ptr::null_mut(), (&raw mut timeout).cast());
    }
}

/// Wakes whoever sleeps on the word, in every process.
pub(super) fn wake_all(word: *const u32) {
    const ALL: libc::c_ulong = i32::MAX as libc::c_ulong;
    // SAFETY: the kernel checks the address itself and changes nothing there.
    unsafe { libc::_umtx_op(word.cast_mut().cast(), libc::UMTX_OP_WAKE, ALL, ptr::null_mut(), ptr::null_mut()) };
}

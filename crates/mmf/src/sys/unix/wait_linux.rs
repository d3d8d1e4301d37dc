//! Sleeping on a word of shared memory: `futex(2)`, without `FUTEX_PRIVATE_FLAG`.

use std::time::Duration;

/// Sleeps while the word is `expected`, until `wake_all`, for `timeout` at the most; also wakes for no reason.
/// A word that is gone wakes at once: its next load tells.
pub(super) fn sleep(word: *const u32, expected: u32, timeout: Duration) {
    let timeout = libc::timespec {
        // No sleep is as long as an hour, which fits whatever the field is.
        tv_sec: timeout.as_secs().min(3600).try_into().unwrap_or_default(),
        // Less than a billion, which fits 32 bits with a sign.
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the kernel checks the address itself, and reads the timeout, which is ours.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, expected, &raw const timeout) };
}

/// Wakes whoever sleeps on the word, in every process.
pub(super) fn wake_all(word: *const u32) {
    // SAFETY: the kernel checks the address itself and changes nothing.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX) };
}

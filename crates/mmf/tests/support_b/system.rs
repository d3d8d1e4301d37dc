//! What only tests ask of a Unix system.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io;

/// A user who owns nothing.
pub(crate) const NOBODY: u32 = 65534;

/// Makes this process another user's, for good.
pub(crate) fn become_user(uid: u32) {
    // SAFETY: an empty list, of which nothing is read.
    checked(unsafe { libc::setgroups(0, std::ptr::null()) });
    // SAFETY: takes numbers only.
    checked(unsafe { libc::setresgid(uid, uid, uid) });
    // SAFETY: takes numbers only.
    checked(unsafe { libc::setresuid(uid, uid, uid) });
}

/// The outcome of a call that gives -1 where it fails.
#[track_caller]
pub(crate) fn checked(outcome: libc::c_int) -> libc::c_int {
    assert_ne!(outcome, -1, "{}", io::Error::last_os_error());
    outcome
}

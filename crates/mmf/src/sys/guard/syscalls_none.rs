//! Refuses copies by system calls: no call of this system copies within a process and reports
//! unreachable pages.

use std::io;

pub(super) const NEEDS: &str = "this system has no call that copies and reports faults";

/// Returns the error `Unsupported`.
///
/// # Safety
///
/// None. The declaration is unsafe because the implementations for other systems are.
pub(super) unsafe fn copy(_: *mut u8, _: *const u8, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns `true`: the system has no call that checks it. Code is readable on the processors that
/// these systems run on.
#[allow(dead_code, reason = "where faults are not caught nothing asks")]
pub(super) fn can_be_read(_: *const u8) -> bool {
    true
}

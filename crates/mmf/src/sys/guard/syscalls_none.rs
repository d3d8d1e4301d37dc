//! No call of this system copies within a process and reports what it cannot reach.

use std::io;

pub(super) const NEEDS: &str = "this system has no call that copies and reports faults";

/// Refuses.
///
/// # Safety
///
/// None needed; the other systems' have as [`copy`](super::copy).
pub(super) unsafe fn copy(_: *mut u8, _: *const u8, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There is no way to ask. Code is readable on the processors that these systems run on.
#[allow(dead_code, reason = "where faults are not caught nothing asks")]
pub(super) fn can_be_read(_: *const u8) -> bool {
    true
}

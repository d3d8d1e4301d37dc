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

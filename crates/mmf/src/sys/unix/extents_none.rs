//! Where a file system that takes a file's data for written shows that it has them, or does not
//! tell.

use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

pub(super) fn unwritten(_fd: BorrowedFd<'_>, _len: u64) -> Result<Vec<Range<u64>>, Errno> {
    Ok(Vec::new())
}

pub(super) fn allocated(_fd: BorrowedFd<'_>, len: u64) -> Result<Vec<Range<u64>>, Errno> {
    // One range, and not as many numbers as it has.
    #[allow(clippy::single_range_in_vec_init, reason = "as said")]
    Ok(vec![0..len])
}

/// # Safety
///
/// None: it looks at nothing.
pub(super) unsafe fn in_memory(_start: *mut u8, _len: usize, _page: usize) -> Option<Vec<u8>> {
    None
}

pub(super) fn around(_fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    Err(Errno::OPNOTSUPP)
}

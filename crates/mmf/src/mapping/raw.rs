//! Pointers and slices, for those who own both ends.

use super::Mapping;
use crate::error::Result;

impl Mapping {
    /// The address of the first byte. It is good, until the mapping is dropped, for as many bytes as [`len`](Mapping::len)
    /// gave *before* it was asked for; where there are none, it is dangling. After a [`grow`](Mapping::grow), by any
    /// thread, the mapping may begin elsewhere, while this address stays good for the bytes it had.
    ///
    /// What is reached through it is not guarded, and any process may change it at any moment.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.base.load(std::sync::atomic::Ordering::Acquire)
    }

    /// As [`as_ptr`](Mapping::as_ptr), for writing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly).
    pub fn as_mut_ptr(&self) -> Result<*mut u8> {
        self.locate_writable(0, 0, "write")
    }

    /// The bytes in place, without a copy.
    ///
    /// # Safety
    ///
    /// While the slice lives:
    /// - no process, this one included, writes to these bytes;
    /// - no process makes the object shorter, and its memory or disk does not fail: a page that is gone kills the process.
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        let len = self.len();
        // SAFETY: the view is mapped for `len` bytes and lives as long as `self`; that nobody writes to it or takes
        // its pages away is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), len) }
    }

    /// The bytes in place, for writing without a copy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly).
    ///
    /// # Safety
    ///
    /// While the slice lives:
    /// - no other process reads or writes these bytes, and neither does this one by another mapping or pointer;
    /// - no process makes the object shorter, and its memory or disk does not fail: a page that is gone kills the process.
    pub unsafe fn as_mut_slice(&mut self) -> Result<&mut [u8]> {
        let len = self.len();
        let base = self.as_mut_ptr()?;
        // SAFETY: the view is mapped for `len` writable bytes and lives as long as `self`, which is borrowed mutably; that
        // nobody else touches the bytes or takes their pages away is the caller's promise.
        Ok(unsafe { std::slice::from_raw_parts_mut(base, len) })
    }
}

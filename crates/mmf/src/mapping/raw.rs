//! Methods of [`Mapping`] that give pointers and slices, for a program that controls every process
//! with access to the object.

use super::Mapping;
use crate::error::Result;

impl Mapping {
    /// Returns the address of the first byte. Until the mapping is dropped, it is valid for the
    /// number of bytes that [`len`](Mapping::len) returned *before* this call. If that is 0, it is
    /// dangling. After a [`grow`](Mapping::grow) by any thread the mapping may begin at another
    /// address; this one stays valid for the bytes that it had.
    ///
    /// Accesses through it are not guarded, and any process may change the bytes at any moment.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.base.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Returns the address of the first byte for writing, as [`as_ptr`](Mapping::as_ptr) does for
    /// reading.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly).
    pub fn as_mut_ptr(&self) -> Result<*mut u8> {
        self.locate_writable(0, 0, "write")
    }

    /// Returns the bytes in place, without a copy.
    ///
    /// # Safety
    ///
    /// While the slice lives:
    /// - no process, this one included, writes to these bytes;
    /// - no process makes the object shorter, and its memory or disk does not fail: an access to a
    ///   page that is gone kills the process.
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        let len = self.len();
        // SAFETY: `len` was loaded before the base (`Acquire`), so the view at the base is mapped
        // for `len` bytes; it stays mapped as long as `self`. The caller promises that no process
        // writes to it or takes its pages away.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), len) }
    }

    /// Returns the bytes in place, for writing without a copy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly).
    ///
    /// # Safety
    ///
    /// While the slice lives:
    /// - no other process reads or writes these bytes, and neither does this process through
    ///   another mapping or pointer;
    /// - no process makes the object shorter, and its memory or disk does not fail: an access to a
    ///   page that is gone kills the process.
    pub unsafe fn as_mut_slice(&mut self) -> Result<&mut [u8]> {
        let len = self.len();
        let base = self.as_mut_ptr()?;
        // SAFETY: the view is mapped for `len` writable bytes and lives as long as `self`, which is
        // borrowed mutably. The caller promises that nothing else accesses the bytes, and that no
        // process takes their pages away.
        Ok(unsafe { std::slice::from_raw_parts_mut(base, len) })
    }
}

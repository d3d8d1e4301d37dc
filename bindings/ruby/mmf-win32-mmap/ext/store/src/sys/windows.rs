//! Windows, where the old gem ran.

use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{io, ptr};

use mmf::{Name, Permissions};
use windows_sys::Win32::Foundation::{ERROR_TOO_MANY_POSTS, WAIT_OBJECT_0, WAIT_TIMEOUT};
use windows_sys::Win32::System::Threading::{CreateSemaphoreW, ReleaseSemaphore, WaitForSingleObject};

use crate::error::{Error, Result};

/// The old gem's lock: a semaphore of one, which the system does not take back from the dead.
pub(crate) struct Semaphore(OwnedHandle);

impl Semaphore {
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn open(name: &str) -> Result<Option<Semaphore>> {
        let wide: Vec<u16> = format!("{name}.ruby_lock").encode_utf16().chain([0]).collect();
        // SAFETY: no attributes, and a name that ends with a zero.
        // https://learn.microsoft.com/windows/win32/api/winbase/nf-winbase-createsemaphorew
        let handle = unsafe { CreateSemaphoreW(ptr::null(), 1, 1, wide.as_ptr()) };
        if handle.is_null() {
            return Err(last_error());
        }
        // SAFETY: the handle is new, and nobody else's.
        Ok(Some(Semaphore(unsafe { OwnedHandle::from_raw_handle(handle.cast()) })))
    }

    pub(crate) fn take(&self, time: Duration) -> Result<bool> {
        // Rounded up, so that who waits again does not do so without end. The longest number means for ever.
        let time = u32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u32::MAX).min(u32::MAX - 1);
        // SAFETY: the handle is a semaphore's, and open.
        match unsafe { WaitForSingleObject(self.0.as_raw_handle().cast(), time) } {
            WAIT_OBJECT_0 => Ok(true),
            WAIT_TIMEOUT => Ok(false),
            _ => Err(last_error()),
        }
    }

    pub(crate) fn give(&self) -> Result<bool> {
        // SAFETY: the handle is a semaphore's, and open; the count before is not asked for.
        if unsafe { ReleaseSemaphore(self.0.as_raw_handle().cast(), 1, ptr::null_mut()) } != 0 {
            return Ok(true);
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(code) if i64::from(code) == i64::from(ERROR_TOO_MANY_POSTS) => Ok(false),
            _ => Err(last_error()),
        }
    }
}

fn last_error() -> Error {
    Error::System(io::Error::last_os_error())
}

pub(crate) fn named(name: &str) -> Result<Name> {
    Ok(Name::exact(name)?)
}

/// A file gets those of its directory.
pub(crate) fn rights_like(_path: &Path) -> Option<Permissions> {
    None
}

pub(crate) fn path(bytes: Vec<u8>) -> Option<PathBuf> {
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

/// Codes of Windows are others than those of C.
pub(crate) fn errno(_code: i32) -> Option<i32> {
    None
}

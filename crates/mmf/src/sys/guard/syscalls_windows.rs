//! Copies within this process by `ReadProcessMemory`. `WriteProcessMemory` is unsuitable, because
//! it makes read-only pages writable.

use std::io;

use windows_sys::Win32::Foundation::ERROR_PARTIAL_COPY;
use windows_sys::Win32::System::Diagnostics::Debug::ReadProcessMemory;
use windows_sys::Win32::System::Threading::GetCurrentProcess;

pub(super) const NEEDS: &str = "ReadProcessMemory fails here";

/// Copies bytes and returns how many bytes are certainly copied.
///
/// # Safety
///
/// The conditions of [`copy`](super::copy) hold.
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> io::Result<usize> {
    let mut copied = 0;
    // SAFETY: takes no arguments and returns a constant.
    let process = unsafe { GetCurrentProcess() };
    // SAFETY: the system reads and writes only the two ranges, which the caller allows.
    if unsafe { ReadProcessMemory(process, src.cast(), dst.cast(), len, &raw mut copied) } != 0 {
        return Ok(len);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(ERROR_PARTIAL_COPY as i32) { Ok(copied) } else { Err(error) }
}

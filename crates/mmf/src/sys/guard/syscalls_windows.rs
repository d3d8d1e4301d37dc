//! `ReadProcessMemory` on this very process. `WriteProcessMemory` is not used: it makes read-only pages writable.

use std::io;

use windows_sys::Win32::Foundation::ERROR_PARTIAL_COPY;
use windows_sys::Win32::System::Diagnostics::Debug::ReadProcessMemory;
use windows_sys::Win32::System::Threading::GetCurrentProcess;

pub(super) const NEEDS: &str = "ReadProcessMemory fails here";

/// Copies, and returns how many bytes it surely did.
///
/// # Safety
///
/// As [`copy`](super::copy).
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> io::Result<usize> {
    let mut copied = 0;
    // SAFETY: takes nothing and gives a constant.
    let process = unsafe { GetCurrentProcess() };
    // SAFETY: the system reads and writes only the two runs, which the caller allows.
    if unsafe { ReadProcessMemory(process, src.cast(), dst.cast(), len, &raw mut copied) } != 0 {
        return Ok(len);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(ERROR_PARTIAL_COPY as i32) { Ok(copied) } else { Err(error) }
}

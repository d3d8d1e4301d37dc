//! `mach_vm_read_overwrite` on this very task.

use std::io;

pub(super) const NEEDS: &str = "mach_vm_read_overwrite fails here";

// Of the system's library that every program is linked with; libc does not declare the first.
unsafe extern "C" {
    fn mach_vm_read_overwrite(task: u32, address: u64, size: u64, data: u64, copied: *mut u64) -> i32;
    static mach_task_self_: u32;
}

/// Copies all and returns the length, or fails after any part of it.
///
/// # Safety
///
/// As [`copy`](super::copy).
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> io::Result<usize> {
    let mut copied = 0;
    // SAFETY: set once, before the program's first instruction.
    let task = unsafe { mach_task_self_ };
    // SAFETY: the system reads and writes only the two runs, which the caller allows.
    let code =
        unsafe { mach_vm_read_overwrite(task, src.addr() as u64, len as u64, dst.addr() as u64, &raw mut copied) };
    match code {
        0 => Ok(len),
        code => Err(io::Error::other(format!("kern_return_t {code}"))),
    }
}

/// Whether the page of this address can be read.
pub(super) fn can_be_read(address: *const u8) -> bool {
    let mut byte = 0;
    // SAFETY: there is room for one byte. What cannot be read is an error.
    unsafe { copy(&raw mut byte, address, 1) }.is_ok()
}

//! Copies within this task by `mach_vm_read_overwrite`.

use std::io;

pub(super) const NEEDS: &str = "mach_vm_read_overwrite fails here";

// Part of the system library that every program links. The `libc` crate does not declare the first
// item.
unsafe extern "C" {
    fn mach_vm_read_overwrite(task: u32, address: u64, size: u64, data: u64, copied: *mut u64) -> i32;
    static mach_task_self_: u32;
}

/// Copies all bytes and returns the length, or fails after any part of the copy.
///
/// # Safety
///
/// The conditions of [`copy`](super::copy) hold.
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> io::Result<usize> {
    let mut copied = 0;
    // SAFETY: the system sets this variable once, before the program's first instruction.
    let task = unsafe { mach_task_self_ };
    // SAFETY: the system reads and writes only the two ranges, which the caller allows.
    let code =
        unsafe { mach_vm_read_overwrite(task, src.addr() as u64, len as u64, dst.addr() as u64, &raw mut copied) };
    match code {
        0 => Ok(len),
        code => Err(io::Error::other(format!("kern_return_t {code}"))),
    }
}

/// Returns whether the page of this address is readable.
pub(super) fn can_be_read(address: *const u8) -> bool {
    let mut byte = 0;
    // SAFETY: `byte` has room for one byte. The system reports an unreadable address as an error.
    unsafe { copy(&raw mut byte, address, 1) }.is_ok()
}

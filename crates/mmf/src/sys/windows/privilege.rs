//! Privileges that a user may hold but a process has to switch on.

use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr;

use windows_sys::Win32::Foundation::{ERROR_NO_TOKEN, ERROR_NOT_ALL_ASSIGNED, HANDLE, LUID};
use windows_sys::Win32::Security::{
    AdjustTokenPrivileges, LUID_AND_ATTRIBUTES, LookupPrivilegeValueW, SE_LOCK_MEMORY_NAME, SE_PRIVILEGE_ENABLED,
    TOKEN_ACCESS_MASK, TOKEN_ADJUST_PRIVILEGES, TOKEN_PRIVILEGES, TOKEN_QUERY,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetCurrentThread, OpenProcessToken, OpenThreadToken};

use super::error;
use crate::error::{Error, ErrorKind, Result};

/// Switches on the privilege that
/// [large pages](https://learn.microsoft.com/windows/win32/memory/large-page-support) need. It stays on.
pub(super) fn enable_lock_memory() -> Result<()> {
    let doing = "get large pages for";
    let token = token(TOKEN_QUERY | TOKEN_ADJUST_PRIVILEGES)?;
    let mut luid = LUID::default();
    // SAFETY: the name is a constant that ends in a zero; `luid` is writable.
    if unsafe { LookupPrivilegeValueW(ptr::null(), SE_LOCK_MEMORY_NAME, &raw mut luid) } == 0 {
        return Err(error::last(doing));
    }
    let wanted = TOKEN_PRIVILEGES {
        PrivilegeCount: 1,
        Privileges: [LUID_AND_ATTRIBUTES { Luid: luid, Attributes: SE_PRIVILEGE_ENABLED }],
    };
    // SAFETY: the token is open for adjusting, `wanted` holds the one privilege it counts, and the former state is
    // not asked for.
    let done = unsafe {
        AdjustTokenPrivileges(token.as_raw_handle(), 0, &raw const wanted, 0, ptr::null_mut(), ptr::null_mut())
    };
    // It "succeeds" also when the user lacks the privilege, and tells so in the last error.
    let failure = error::last(doing);
    if done == 0 {
        return Err(failure);
    }
    if error::code_of(&failure) == ERROR_NOT_ALL_ASSIGNED {
        return Err(failure.with_kind(ErrorKind::PermissionDenied).with_help(NEEDS_LOCK_MEMORY));
    }
    Ok(())
}

/// The token whose rights this thread has: the one it impersonates, or else the process's.
fn token(rights: TOKEN_ACCESS_MASK) -> Result<OwnedHandle> {
    let mut token: HANDLE = ptr::null_mut();
    // SAFETY: gives a constant that stands for this thread and needs no closing.
    let thread = unsafe { GetCurrentThread() };
    // SAFETY: `token` is writable.
    let mut done = unsafe { OpenThreadToken(thread, rights, 1, &raw mut token) };
    if done == 0 {
        let failure = error::last("get large pages for");
        if error::code_of(&failure) != ERROR_NO_TOKEN {
            return Err(failure);
        }
        // SAFETY: as above, for this process.
        let process = unsafe { GetCurrentProcess() };
        // SAFETY: `token` is writable.
        done = unsafe { OpenProcessToken(process, rights, &raw mut token) };
    }
    if done == 0 {
        return Err(error::last("get large pages for"));
    }
    // SAFETY: just opened, and owned by nobody else.
    Ok(unsafe { OwnedHandle::from_raw_handle(token) })
}

const NEEDS_LOCK_MEMORY: &str = "the user needs the privilege \"Lock pages in memory\" (SeLockMemoryPrivilege), and to log on anew after getting it";

/// Names the privilege where the system refuses large pages for lack of it.
pub(super) fn explain(error: Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied => error.with_help(NEEDS_LOCK_MEMORY),
        ErrorKind::NoSpace => {
            error.with_help("memory holds too few unbroken large pages; try soon after the system starts")
        }
        _ => error,
    }
}

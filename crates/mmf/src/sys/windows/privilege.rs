//! Privileges that a user may hold but a process has to switch on.

use std::os::windows::io::AsRawHandle;
use std::ptr;

use windows_sys::Win32::Foundation::{ERROR_NOT_ALL_ASSIGNED, LUID};
use windows_sys::Win32::Security::{
    AdjustTokenPrivileges, LUID_AND_ATTRIBUTES, LookupPrivilegeValueW, SE_LOCK_MEMORY_NAME, SE_PRIVILEGE_ENABLED,
    TOKEN_ADJUST_PRIVILEGES, TOKEN_PRIVILEGES, TOKEN_QUERY,
};

use super::error;
use super::security::token;
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

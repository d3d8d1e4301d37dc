//! The system's codes as errors.

use std::io;

use windows_sys::Win32::Foundation::{
    ERROR_COMMITMENT_LIMIT, ERROR_NO_SYSTEM_RESOURCES, ERROR_NOT_ENOUGH_QUOTA, ERROR_PAGEFILE_QUOTA,
    ERROR_PRIVILEGE_NOT_HELD, ERROR_SHARING_VIOLATION, ERROR_WORKING_SET_QUOTA, NTSTATUS, RtlNtStatusToDosError,
};

use crate::error::{Error, ErrorKind};

/// The error of this thread's last call. To be asked before any other call.
pub(super) fn last(doing: &'static str) -> Error {
    classify(doing, io::Error::last_os_error())
}

pub(super) fn of_code(doing: &'static str, code: u32) -> Error {
    classify(doing, io::Error::from_raw_os_error(i32::from_ne_bytes(code.to_ne_bytes())))
}

pub(super) fn of_status(doing: &'static str, status: NTSTATUS) -> Error {
    // SAFETY: takes and gives a number.
    of_code(doing, unsafe { RtlNtStatusToDosError(status) })
}

pub(super) fn code_of(error: &Error) -> u32 {
    error.raw_os_error().and_then(|code| u32::try_from(code).ok()).unwrap_or(0)
}

/// As the standard library sorts it, and what that leaves unsorted.
pub(super) fn classify(doing: &'static str, source: io::Error) -> Error {
    let error = Error::system(doing, source);
    match code_of(&error) {
        ERROR_COMMITMENT_LIMIT
        | ERROR_NOT_ENOUGH_QUOTA
        | ERROR_PAGEFILE_QUOTA
        | ERROR_WORKING_SET_QUOTA
        | ERROR_NO_SYSTEM_RESOURCES => error
            .with_kind(ErrorKind::NoSpace)
            .with_help("memory and the pagefile are used up; close programs or enlarge the pagefile"),
        ERROR_PRIVILEGE_NOT_HELD => error.with_kind(ErrorKind::PermissionDenied),
        ERROR_SHARING_VIOLATION => error.with_help("another program has it open and does not share it"),
        _ => error,
    }
}

//! Catches faults on 32-bit Windows by a [vectored
//! handler](https://learn.microsoft.com/windows/win32/debug/vectored-exception-handling).
//!
//! On this system, handlers are registered by frames on the stack, and the routines have none. The
//! system calls vectored handlers before those.

use std::io;
use std::sync::{Mutex, PoisonError};

use windows_sys::Win32::Foundation::{EXCEPTION_ACCESS_VIOLATION, EXCEPTION_IN_PAGE_ERROR, HMODULE};
use windows_sys::Win32::System::Diagnostics::Debug::{AddVectoredExceptionHandler, EXCEPTION_POINTERS};
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_PIN, GetModuleHandleExW,
};

use super::{Caught, landing};
use crate::error::{Error, Result};

/// The return values of a handler (`excpt.h`).
const CONTINUE_EXECUTION: i32 = -1;
const CONTINUE_SEARCH: i32 = 0;

/// Whether the handler is installed. Other code cannot remove it, because that needs the handle
/// that the installation returned.
static ARMED: Mutex<bool> = Mutex::new(false);

pub(super) fn arm() -> Result<()> {
    let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    if *armed {
        return Ok(());
    }
    // The process never removes the handler, so the library that contains it must stay loaded.
    let flags = GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS;
    let mut module: HMODULE = std::ptr::null_mut();
    // SAFETY: with this flag the name is any address in the module. There is room for the handle.
    if unsafe { GetModuleHandleExW(flags, (&raw const ARMED).cast(), &raw mut module) } == 0 {
        return Err(Error::system("keep the exception handler loaded", io::Error::last_os_error()));
    }
    // SAFETY: the handler is safe to run at any moment: it accesses only its argument and
    // constants.
    if unsafe { AddVectoredExceptionHandler(1, Some(handle)) }.is_null() {
        return Err(Error::system("install the exception handler", io::Error::last_os_error()));
    }
    *armed = true;
    Ok(())
}

/// Handles exceptions, as a `PVECTORED_EXCEPTION_HANDLER`.
///
/// # Safety
///
/// Only the system calls it.
unsafe extern "system" fn handle(exception: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system passes valid pointers that only this handler accesses until it returns.
    let exception = unsafe { &*exception };
    // SAFETY: the record is valid until the handler returns.
    let record = unsafe { &*exception.ExceptionRecord };
    // SAFETY: the context is valid, and only this handler accesses it until it returns.
    let context = unsafe { &mut *exception.ContextRecord };
    let of_memory = matches!(record.ExceptionCode, EXCEPTION_ACCESS_VIOLATION | EXCEPTION_IN_PAGE_ERROR);
    if !of_memory || record.NumberParameters < 2 {
        return CONTINUE_SEARCH;
    }
    let (pc, lo, hi) = (context.Eip as usize, context.Ebx as usize, context.Ebp as usize);
    match landing(&Caught { pc, address: record.ExceptionInformation[1], blur: 1, lo, hi }) {
        Some(fixup) => {
            #[allow(clippy::cast_possible_truncation, reason = "this module is for processors with 32 bits")]
            let fixup = fixup as u32;
            context.Eip = fixup;
            CONTINUE_EXECUTION
        }
        None => CONTINUE_SEARCH,
    }
}

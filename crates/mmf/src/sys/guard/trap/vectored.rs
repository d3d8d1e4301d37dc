//! The way of 32-bit Windows, whose handlers are found by frames on the stack, which the routines do not make: a
//! [vectored handler](https://learn.microsoft.com/windows/win32/debug/vectored-exception-handling), which the system
//! asks before them.

use std::io;
use std::sync::{Mutex, PoisonError};

use windows_sys::Win32::Foundation::{EXCEPTION_ACCESS_VIOLATION, EXCEPTION_IN_PAGE_ERROR, HMODULE};
use windows_sys::Win32::System::Diagnostics::Debug::{AddVectoredExceptionHandler, EXCEPTION_POINTERS};
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_PIN, GetModuleHandleExW,
};

use super::{Caught, landing};
use crate::error::{Error, Result};

/// What a handler answers (`excpt.h`).
const CONTINUE_EXECUTION: i32 = -1;
const CONTINUE_SEARCH: i32 = 0;

/// Whether the handler is installed. Nobody else can take it away: that needs what the installation gave.
static ARMED: Mutex<bool> = Mutex::new(false);

pub(super) fn arm() -> Result<()> {
    let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    if *armed {
        return Ok(());
    }
    // The handler is never removed, so the library that holds it must not be unloaded.
    let flags = GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS;
    let mut module: HMODULE = std::ptr::null_mut();
    // SAFETY: with this flag the name is any address in the module; there is room for the handle.
    if unsafe { GetModuleHandleExW(flags, (&raw const ARMED).cast(), &raw mut module) } == 0 {
        return Err(Error::system("keep the exception handler loaded", io::Error::last_os_error()));
    }
    // SAFETY: the handler is safe to run at any moment: it looks at what it is given and at constants.
    if unsafe { AddVectoredExceptionHandler(1, Some(handle)) }.is_null() {
        return Err(Error::system("install the exception handler", io::Error::last_os_error()));
    }
    *armed = true;
    Ok(())
}

/// A `PVECTORED_EXCEPTION_HANDLER`.
///
/// # Safety
///
/// To be called by the system.
unsafe extern "system" fn handle(exception: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system gives both, and they are this handler's until it returns.
    let exception = unsafe { &*exception };
    // SAFETY: as above.
    let record = unsafe { &*exception.ExceptionRecord };
    // SAFETY: as above.
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

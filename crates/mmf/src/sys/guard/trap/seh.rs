//! Catches faults on 64-bit Windows by unwind data that name a handler for the block of routines
//! only.
//!
//! On a fault, the system looks up the unwind data of the faulting instruction and calls the
//! handler that they name
//! ([`.pdata`](https://learn.microsoft.com/cpp/build/exception-handling-x64)). The handler changes
//! the program counter in the context and continues execution. Nothing is installed at run time, so
//! no other code can replace it.

use windows_sys::Win32::Foundation::{EXCEPTION_ACCESS_VIOLATION, EXCEPTION_IN_PAGE_ERROR};
use windows_sys::Win32::System::Diagnostics::Debug::{CONTEXT, EXCEPTION_RECORD};

use super::{Caught, landing};
use crate::error::Result;

/// `EXCEPTION_DISPOSITION`, for which windows-sys uses a type that differs from the handler's
/// return type.
const CONTINUE_EXECUTION: i32 = 0;
const CONTINUE_SEARCH: i32 = 1;

/// `EXCEPTION_UNWINDING` and `EXCEPTION_EXIT_UNWIND`: the system is unwinding to a handler that it
/// found before.
const UNWINDING: u32 = 0x2 | 0x4;

pub(super) fn arm() -> Result<()> {
    Ok(())
}

/// Handles exceptions of all the routines, as an `EXCEPTION_ROUTINE`.
///
/// # Safety
///
/// Only the system calls it.
pub(super) unsafe extern "C" fn handle(
    record: *const EXCEPTION_RECORD,
    _frame: usize,
    context: *mut CONTEXT,
    _dispatcher: usize,
) -> i32 {
    // SAFETY: the system passes a valid record that no other code writes to during the call.
    let record = unsafe { &*record };
    // SAFETY: the system passes a valid context that only this handler accesses until it returns.
    let context = unsafe { &mut *context };
    let of_memory = matches!(record.ExceptionCode, EXCEPTION_ACCESS_VIOLATION | EXCEPTION_IN_PAGE_ERROR);
    if !of_memory || record.ExceptionFlags & UNWINDING != 0 || record.NumberParameters < 2 {
        return CONTINUE_SEARCH;
    }
    #[cfg(target_arch = "x86_64")]
    let (pc, lo, hi) = (&mut context.Rip, context.R8, context.R9);
    #[cfg(target_arch = "aarch64")]
    let (pc, lo, hi) = {
        // SAFETY: the union's two members are views of one set of registers, as an array and by
        // name.
        let x = unsafe { context.Anonymous.X };
        (&mut context.Pc, x[4], x[5])
    };
    #[allow(clippy::cast_possible_truncation, reason = "this module is for processors with 64 bits")]
    let caught =
        Caught { pc: *pc as usize, address: record.ExceptionInformation[1], blur: 1, lo: lo as usize, hi: hi as usize };
    match landing(&caught) {
        Some(fixup) => {
            *pc = fixup as u64;
            CONTINUE_EXECUTION
        }
        None => CONTINUE_SEARCH,
    }
}

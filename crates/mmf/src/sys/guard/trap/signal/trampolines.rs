//! Where the system enters our handlers, and how copies of this library know each other's.
//!
//! A process can hold several copies of this library, of whatever releases: two extensions of a language, say. Each
//! installs a handler that passes on what is not its own, so that one below another still gets all that is its own.
//! A copy that finds another's handler in place of its own therefore asks it what was there before, and so on down:
//! where the chain reaches a handler of its own, nothing is to be done.
//!
//! The entry of a handler is a *trampoline*, the same in all releases:
//!
//! ```text
//!  0  the mark, at a multiple of 64
//! 32  the handler, which the system or another handler calls
//! 48  extern "C" fn(handler: usize, signal: c_int) -> usize: what was there before that handler (0: the system's)
//! ```

use std::arch::global_asm;
use std::ffi::c_int;
use std::ptr;

use super::{GENERATIONS, before, handler};
use crate::sys::guard::syscalls;

const MARK: &[u8; HANDLER] = b"mmf fault handler, chain form 1!";
const HANDLER: usize = 32;
const QUESTION: usize = 48;
const SIZE: usize = 64;

/// More handlers than any chain of copies has.
const LONGEST: usize = 1024;

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
macro_rules! jump {
    () => {
        "    jmp "
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    () => {
        "    b "
    };
}

// One symbol for all trampolines, so that no linker moves one of them alone.
#[cfg(apple)]
macro_rules! hide_trampolines {
    () => {
        concat!(".private_extern ", label!("doors"))
    };
}
#[cfg(not(apple))]
macro_rules! hide_trampolines {
    () => {
        concat!(".hidden ", label!("doors"))
    };
}

macro_rules! trampolines {
    ($($generation:literal)*) => {
        const _: () = assert!([$($generation),*].len() == GENERATIONS);
        global_asm!(
            ".text",
            ".p2align 6",
            concat!(".globl ", label!("doors")),
            hide_trampolines!(),
            concat!(label!("doors"), ":"),
            $(concat!(
                "    .p2align 6 /* ", $generation, " */\n",
                "    .ascii \"mmf fault handler, chain form 1!\"\n",
                jump!(), "{}\n",
                "    .p2align 4\n",
                jump!(), "{before}",
            ),)*
            "    .p2align 6",
            $(sym handler::<$generation>,)*
            before = sym before,
        );
    };
}
trampolines!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);

// Data to the compiler, so that no linker puts a thunk in place of the address.
unsafe extern "C" {
    static mmf_0_1_guard_doors: u8;
}

/// The address at which the system calls the handler of a generation.
pub(super) fn address(generation: usize) -> usize {
    (&raw const mmf_0_1_guard_doors).addr() + generation * SIZE + HANDLER
}

/// Of which generation a handler is, if it is this copy's.
pub(super) fn generation(handler: usize) -> Option<usize> {
    (0..GENERATIONS).find(|&generation| address(generation) == handler)
}

/// Whether a signal that this handler gets comes to one of this copy's, if it is nobody's before: through
/// handlers of other copies alone, since what others do is not known.
pub(super) fn lead_here(mut handler: usize, signal: c_int) -> bool {
    for _ in 0..LONGEST {
        if generation(handler).is_some() {
            return true;
        }
        if !is_marked(handler) {
            return false;
        }
        let question = ptr::with_exposed_provenance::<()>(handler + (QUESTION - HANDLER));
        // SAFETY: the mark promises a function of this type there.
        let before: unsafe extern "C" fn(usize, c_int) -> usize = unsafe { std::mem::transmute(question) };
        // SAFETY: it takes any numbers.
        handler = unsafe { before(handler, signal) };
    }
    false
}

/// Whether this is the trampoline of a copy of this library.
fn is_marked(handler: usize) -> bool {
    // So mark and handler lie in one page, and what is read is code of whoever installed the handler.
    if handler % SIZE != HANDLER {
        return false;
    }
    let mark = ptr::with_exposed_provenance::<[u8; HANDLER]>(handler - HANDLER);
    // The handler's library may have been unloaded since, and code need not be readable, so the
    // system is asked. Not by `process_vm_readv`: the default policy must work where a filter of
    // system calls kills at that.
    if !syscalls::can_be_read(mark.cast()) {
        return false;
    }
    // The page stays until it is read: the handler is installed, or another copy passes faults on
    // to it. Such a copy stays loaded. Any other owner that unmaps its handler's code between these
    // two calls would have the next signal end the process anyway. SAFETY: the page can be read, as
    // the system has just said, and stays, as told above.
    let found = unsafe { mark.read() };
    found == *MARK
}

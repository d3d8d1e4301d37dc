//! Assembly routines whose faults a handler catches.
//!
//! # Problem
//!
//! A load or a store of shared memory faults if its page is gone. Rust code cannot continue after a
//! fault, because the compiler may place the access and its neighbours anywhere.
//!
//! # Algorithm
//!
//! 1. All routines form one contiguous block of assembly.
//! 2. On a fault, the system calls the handler with the program counter and the address of the
//!    fault.
//! 3. [`landing`] looks for the program counter in the block, and for the address in `lo..hi`.
//! 4. If both match, the handler moves the program counter to the fix-up of that part of the block.
//!    Otherwise it passes the fault on.
//! 5. The fix-up restarts a fast copy byte by byte, or returns what is left.
//!
//! # Layout of the block
//!
//! ```text
//! copy        fast path           on a fault in lo..hi, restarts at copy_slow
//! copy_slow   byte by byte        on a fault in lo..hi, continues at copy_left
//! copy_left                       returns the number of bytes left
//! fill, fill_slow, fill_left      the same parts for a fill
//! atomic      one word            on a fault, continues at atomic_fault
//! atomic_fault                    returns the fault
//! ```
//!
//! # Correctness
//!
//! The routines have no stack frames, except for the registers that 32-bit x86 must save. A fix-up
//! therefore finds the stack as its routine needs it, and the handler changes only the program
//! counter. Each fast part keeps its arguments in their registers, so that the slow part can
//! restart from the first byte.
//!
//! # Cost
//!
//! An access without a fault costs a function call and no check.

/// Builds a symbol name that contains the release, so that one program can link two incompatible
/// releases.
#[cfg(not(any(apple, all(windows, target_arch = "x86"))))]
macro_rules! label {
    ($name:expr) => {
        concat!("mmf_0_1_guard_", $name)
    };
}
#[cfg(any(apple, all(windows, target_arch = "x86")))]
macro_rules! label {
    ($name:expr) => {
        concat!("_mmf_0_1_guard_", $name)
    };
}

/// Defines a label that is visible to this crate's other objects and hidden from other libraries.
macro_rules! entry {
    ($name:expr) => {
        concat!(".globl ", label!($name), "\n", hide!($name), label!($name), ":\n")
    };
}
// A symbol of its own would let the linker move or remove the code after it. The block must stay in
// one piece.
#[cfg(apple)]
macro_rules! hide {
    ($name:expr) => {
        concat!(".private_extern ", label!($name), "\n.alt_entry ", label!($name), "\n")
    };
}
#[cfg(all(unix, not(apple)))]
macro_rules! hide {
    ($name:expr) => {
        concat!(".hidden ", label!($name), "\n.type ", label!($name), ", %function\n")
    };
}
#[cfg(windows)]
macro_rules! hide {
    ($name:expr) => {
        ""
    };
}

/// Emits unwind data for the whole block: only the return address is on the stack, unless the
/// assembly text says otherwise. On 64-bit Windows the data name the handler.
#[cfg(all(windows, target_pointer_width = "64"))]
macro_rules! begin {
    () => {
        concat!(entry!("begin"), ".seh_proc ", label!("begin"), "\n.seh_endprologue\n")
    };
}
#[cfg(all(windows, target_pointer_width = "64"))]
macro_rules! end {
    () => {
        ".seh_handler {handler}, @except\n.seh_endproc"
    };
}
// 32-bit Windows has no unwind data with MSVC. With GNU it has the unwind data of Unix.
#[cfg(all(windows, target_arch = "x86", target_env = "msvc"))]
macro_rules! begin {
    () => {
        entry!("begin")
    };
}
#[cfg(all(windows, target_arch = "x86", target_env = "msvc"))]
macro_rules! end {
    () => {
        ""
    };
}
#[cfg(apple)]
macro_rules! begin {
    () => {
        concat!(
            ".globl ",
            label!("begin"),
            "\n.private_extern ",
            label!("begin"),
            "\n",
            label!("begin"),
            ":\n.cfi_startproc"
        )
    };
}
#[cfg(any(all(unix, not(apple)), all(windows, target_arch = "x86", not(target_env = "msvc"))))]
macro_rules! begin {
    () => {
        concat!(entry!("begin"), ".cfi_startproc")
    };
}
#[cfg(any(unix, all(windows, target_arch = "x86", not(target_env = "msvc"))))]
macro_rules! end {
    () => {
        ".cfi_endproc"
    };
}
#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(all(windows, target_pointer_width = "64"))]
mod seh;
#[cfg(unix)]
mod signal;
#[cfg(all(windows, target_arch = "x86"))]
mod vectored;
#[cfg(target_arch = "x86")]
mod x86;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(all(windows, target_pointer_width = "64"))]
use seh as catcher;
#[cfg(unix)]
use signal as catcher;
#[cfg(all(windows, target_arch = "x86"))]
use vectored as catcher;
#[cfg(target_arch = "x86")]
use x86 as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

#[cfg(test)]
pub(super) use arch::every_way;
pub(super) use arch::{copy, fill, store_pairs, store_words};
#[cfg(target_arch = "x86_64")]
pub(super) use arch::{copy_validated, load_four, match_eight, prefetch};

#[cfg(not(target_arch = "x86_64"))]
pub(super) use super::validated_read::{copy_validated, load_four, match_eight, prefetch};

use super::{Fault, Word};
use crate::error::Result;

// Declared as data, so that no linker replaces an address with that of a thunk.
unsafe extern "C" {
    static mmf_0_1_guard_begin: u8;
    static mmf_0_1_guard_copy_slow: u8;
    static mmf_0_1_guard_copy_left: u8;
    static mmf_0_1_guard_fill_slow: u8;
    static mmf_0_1_guard_fill_left: u8;
    static mmf_0_1_guard_atomic: u8;
    static mmf_0_1_guard_atomic_fault: u8;
}

/// A fault, as a handler sees it.
struct Caught {
    /// The address of the faulting instruction.
    pc: usize,
    /// The address that the instruction could not access.
    address: usize,
    /// A power of two. The system may have rounded the address down to a multiple of it.
    blur: usize,
    /// The arguments `lo` and `hi` of the routine, if it is a copy or a fill.
    lo: usize,
    hi: usize,
}

/// Returns the address at which the routine continues, or `None` if the fault is not in a routine
/// or not in its range. Safe to call in a signal handler.
fn landing(caught: &Caught) -> Option<usize> {
    let atomic = (&raw const mmf_0_1_guard_atomic).addr();
    let atomic_fault = (&raw const mmf_0_1_guard_atomic_fault).addr();
    if caught.pc < (&raw const mmf_0_1_guard_begin).addr() || caught.pc >= atomic_fault {
        return None;
    }
    if caught.pc >= atomic {
        return Some(atomic_fault);
    }
    if caught.address | (caught.blur - 1) < caught.lo || caught.address >= caught.hi {
        return None;
    }
    // Each part ends where its fix-up begins.
    let fixups = [
        (&raw const mmf_0_1_guard_copy_slow).addr(),
        (&raw const mmf_0_1_guard_copy_left).addr(),
        (&raw const mmf_0_1_guard_fill_slow).addr(),
        (&raw const mmf_0_1_guard_fill_left).addr(),
    ];
    fixups.into_iter().find(|&fixup| caught.pc < fixup)
}

/// Installs the handler that catches faults in this process.
pub(super) fn arm() -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    arch::tune();
    catcher::arm()
}

/// The result of an atomic routine, in two registers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Fetched {
    value: u64,
    /// Not 0 if the routine faulted.
    fault: u64,
}

impl Fetched {
    #[inline]
    fn result(self) -> Result<u64, Fault> {
        if self.fault == 0 { Ok(self.value) } else { Err(Fault) }
    }
}

macro_rules! word {
    ($word:ty, $load:ident, $release:ident, $swap:ident, $add:ident, $exchange:ident) => {
        const _: () = {
            unsafe extern "C" {
                fn $load(word: *mut u8, a: u64, b: u64) -> Fetched;
                fn $release(word: *mut u8, a: u64, b: u64) -> Fetched;
                fn $swap(word: *mut u8, a: u64, b: u64) -> Fetched;
                fn $add(word: *mut u8, a: u64, b: u64) -> Fetched;
                fn $exchange(word: *mut u8, a: u64, b: u64) -> Fetched;
            }

            #[allow(clippy::cast_possible_truncation, reason = "a routine's value has the width of its word")]
            impl Word for $word {
                #[inline]
                unsafe fn load(src: *const Self) -> Result<Self, Fault> {
                    arch::call!($load, src.cast_mut().cast(), 0, 0).result().map(|value| value as Self)
                }
                #[inline]
                unsafe fn store(dst: *mut Self, value: Self) -> Result<(), Fault> {
                    arch::call!($swap, dst.cast(), value.into(), 0).result().map(drop)
                }
                #[inline]
                unsafe fn store_release(dst: *mut Self, value: Self) -> Result<(), Fault> {
                    arch::call!($release, dst.cast(), value.into(), 0).result().map(drop)
                }
                #[inline]
                unsafe fn swap(dst: *mut Self, value: Self) -> Result<Self, Fault> {
                    arch::call!($swap, dst.cast(), value.into(), 0).result().map(|value| value as Self)
                }
                #[inline]
                unsafe fn add(dst: *mut Self, value: Self) -> Result<Self, Fault> {
                    arch::call!($add, dst.cast(), value.into(), 0).result().map(|value| value as Self)
                }
                #[inline]
                unsafe fn compare_exchange(dst: *mut Self, current: Self, new: Self) -> Result<Self, Fault> {
                    arch::call!($exchange, dst.cast(), current.into(), new.into()).result().map(|value| value as Self)
                }
            }
        };
    };
}
word!(
    u8,
    mmf_0_1_guard_load8,
    mmf_0_1_guard_release8,
    mmf_0_1_guard_swap8,
    mmf_0_1_guard_add8,
    mmf_0_1_guard_exchange8
);
word!(
    u16,
    mmf_0_1_guard_load16,
    mmf_0_1_guard_release16,
    mmf_0_1_guard_swap16,
    mmf_0_1_guard_add16,
    mmf_0_1_guard_exchange16
);
word!(
    u32,
    mmf_0_1_guard_load32,
    mmf_0_1_guard_release32,
    mmf_0_1_guard_swap32,
    mmf_0_1_guard_add32,
    mmf_0_1_guard_exchange32
);
word!(
    u64,
    mmf_0_1_guard_load64,
    mmf_0_1_guard_release64,
    mmf_0_1_guard_swap64,
    mmf_0_1_guard_add64,
    mmf_0_1_guard_exchange64
);

#[cfg(test)]
mod tests {
    /// Checks that two releases in one program share no symbol.
    #[test]
    fn the_symbols_bear_the_release() {
        let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
        assert_eq!(label!("").trim_start_matches('_'), format!("mmf_{major}_{minor}_guard_"));
    }
}

//! The routines for 32-bit x86 with SSE2.
//!
//! Copies and fills follow the system's calling convention, with all arguments on the stack. They save the four
//! registers that are their caller's. From the first instruction that may fault on, `ebx` and `ebp` hold the
//! addresses whose faults are ours, for the handler to read. The fast part keeps `edi`, `esi` and `edx`, so that the
//! fix-up can begin again from the start with `rep movsb`, whose registers tell after a fault exactly what is left.
//!
//! Atomic operations are leaves without a stack frame, called through an `asm!` that names the few registers they change.
//! Those on 64 bits: what is loaded moves through a vector register, for `cmpxchg8b` writes even what it does not change, which
//! pages that are read-only refuse; such a move of 8 aligned bytes is atomic (Intel's manual, volume 3, section 10.1.1).

mod asm;

// Each of these words is two of this processor, and a routine would win little.
pub(in crate::sys::guard) use crate::sys::guard::multi_word::{store_pairs, store_words};

unsafe extern "C" {
    fn mmf_0_1_guard_copy(dst: *mut u8, src: *const u8, len: usize, lo: usize, hi: usize) -> usize;
    fn mmf_0_1_guard_fill(dst: *mut u8, byte: u32, len: usize, lo: usize, hi: usize) -> usize;
}

/// See [`copy`](crate::sys::guard::copy).
///
/// # Safety
///
/// As there.
#[inline]
pub(in crate::sys::guard) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize, lo: usize, hi: usize) -> usize {
    // SAFETY: the routine reads `len` bytes at `src` and writes as many at `dst`, which the caller allows.
    unsafe { mmf_0_1_guard_copy(dst, src, len, lo, hi) }
}

/// See [`fill`](crate::sys::guard::fill).
///
/// # Safety
///
/// As there.
#[inline]
pub(in crate::sys::guard) unsafe fn fill(dst: *mut u8, byte: u8, len: usize, lo: usize, hi: usize) -> usize {
    // SAFETY: the routine writes `len` bytes at `dst`, which the caller allows.
    unsafe { mmf_0_1_guard_fill(dst, byte.into(), len, lo, hi) }
}

/// Calls an atomic routine: a word's address and two operands in, a `Fetched` out.
macro_rules! call {
    ($routine:path, $word:expr, $a:expr, $b:expr) => {{
        let (word, a, b): (*mut u8, u64, u64) = ($word, $a, $b);
        let (low, high, fault): (u32, u32, u32);
        // SAFETY: the routine accesses the one word, which the caller allows, changes the registers named here
        // and leaves the stack alone.
        unsafe {
            std::arch::asm!(
                "call {routine}",
                routine = sym $routine,
                in("edi") word,
                inout("eax") a as u32 => low,
                inout("edx") (a >> 32) as u32 => high,
                inout("ebx") b as u32 => _,
                inout("ecx") (b >> 32) as u32 => fault,
                out("xmm0") _,
                out("xmm1") _,
                out("xmm2") _,
            );
        }
        $crate::sys::guard::trap::Fetched { value: u64::from(high) << 32 | u64::from(low), fault: fault.into() }
    }};
}
pub(super) use call;

/// Runs `check` in every way that the routines can go: one.
#[cfg(test)]
pub(in crate::sys::guard) fn every_way(check: &mut dyn FnMut()) {
    check();
}

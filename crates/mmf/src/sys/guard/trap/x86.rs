//! Routines for 32-bit x86 with SSE2.
//!
//! Copies and fills follow the system's calling convention, with all arguments on the stack. They
//! save the four registers that belong to the caller. From the first instruction that may fault,
//! `ebx` and `ebp` hold `lo` and `hi`, which the handler reads. The fast part keeps `edi`, `esi`
//! and `edx`, so that the fix-up can restart from the first byte with `rep movsb`. After a fault,
//! the registers of `rep movsb` give exactly the bytes left.
//!
//! Atomic operations are leaf functions without a stack frame. An `asm!` block that names the few
//! registers they change calls them. A 64-bit load moves through a vector register, because
//! `cmpxchg8b` always writes and would fault on read-only pages. Such a move of 8 aligned bytes is
//! atomic (Intel's manual, volume 3, section 10.1.1).

mod asm;

// Each 64-bit word takes two words of this processor, so a routine would save little.
pub(in crate::sys::guard) use crate::sys::guard::multi_word::{store_pairs, store_words};

unsafe extern "C" {
    fn mmf_0_1_guard_copy(dst: *mut u8, src: *const u8, len: usize, lo: usize, hi: usize) -> usize;
    fn mmf_0_1_guard_fill(dst: *mut u8, byte: u32, len: usize, lo: usize, hi: usize) -> usize;
}

/// See [`copy`](crate::sys::guard::copy).
///
/// # Safety
///
/// The conditions of that function hold.
#[inline]
pub(in crate::sys::guard) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize, lo: usize, hi: usize) -> usize {
    // SAFETY: the routine reads `len` bytes at `src` and writes as many at `dst`, which the caller allows.
    unsafe { mmf_0_1_guard_copy(dst, src, len, lo, hi) }
}

/// See [`fill`](crate::sys::guard::fill).
///
/// # Safety
///
/// The conditions of that function hold.
#[inline]
pub(in crate::sys::guard) unsafe fn fill(dst: *mut u8, byte: u8, len: usize, lo: usize, hi: usize) -> usize {
    // SAFETY: the routine writes `len` bytes at `dst`, which the caller allows.
    unsafe { mmf_0_1_guard_fill(dst, byte.into(), len, lo, hi) }
}

/// Calls an atomic routine with a word's address and two operands. Returns a `Fetched`.
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

/// Runs `check` once: the routines have one code path on this processor.
#[cfg(test)]
pub(in crate::sys::guard) fn every_way(check: &mut dyn FnMut()) {
    check();
}

//! Routines for `aarch64`, with one text for every system.
//!
//! All routines are leaf functions without a stack frame, and follow the system's calling
//! convention. The fast part of a copy keeps `x0`, `x1` and `x2`, so that the fix-up can restart
//! from the first byte, byte by byte. `x6` then holds the number of bytes left. `x4` and `x5` hold
//! `lo` and `hi`, which the handler reads. Atomic operations use exclusive loads and stores, which
//! every such processor has.

use std::arch::global_asm;

use super::Fetched;
use crate::sys::guard::Fault;

macro_rules! atomics {
    ($bits:literal, $suffix:literal, $r:literal) => {
        concat!(
            entry!(concat!("load", $bits)),
            "    ldar",
            $suffix,
            " ",
            $r,
            "0, [x0]\n",
            "    mov x1, #0\n",
            "    ret\n",
            entry!(concat!("release", $bits)),
            "    stlr",
            $suffix,
            " ",
            $r,
            "1, [x0]\n",
            "    mov x1, #0\n",
            "    ret\n",
            entry!(concat!("swap", $bits)),
            "3:  ldaxr",
            $suffix,
            " ",
            $r,
            "8, [x0]\n",
            "    stlxr",
            $suffix,
            " w9, ",
            $r,
            "1, [x0]\n",
            "    cbnz w9, 3b\n",
            "    mov x0, x8\n",
            "    mov x1, #0\n",
            "    ret\n",
            entry!(concat!("add", $bits)),
            "3:  ldaxr",
            $suffix,
            " ",
            $r,
            "8, [x0]\n",
            "    add x10, x8, x1\n",
            "    stlxr",
            $suffix,
            " w9, ",
            $r,
            "10, [x0]\n",
            "    cbnz w9, 3b\n",
            "    mov x0, x8\n",
            "    mov x1, #0\n",
            "    ret\n",
            entry!(concat!("exchange", $bits)),
            "3:  ldaxr",
            $suffix,
            " ",
            $r,
            "8, [x0]\n",
            "    cmp x8, x1\n",
            "    b.ne 4f\n",
            "    stlxr",
            $suffix,
            " w9, ",
            $r,
            "2, [x0]\n",
            "    cbnz w9, 3b\n",
            "4:  clrex\n",
            "    mov x0, x8\n",
            "    mov x1, #0\n",
            "    ret\n",
        )
    };
}

macro_rules! routines {
    ($($handler:tt)*) => {
        global_asm!(
            ".text",
            // No alignment within the block: the assembler must know the block's length for the
            // Windows unwind data.
            ".p2align 6",
            begin!(),
            entry!("copy"),
            "    add x6, x1, x2",
            "    add x7, x0, x2",
            "    cmp x2, #16",
            "    b.lo 2f",
            "    cmp x2, #64",
            "    b.hi 6f",
            "    cmp x2, #32",
            "    b.hi 5f",
            "    ldr q0, [x1]",
            "    ldur q1, [x6, #-16]",
            "    str q0, [x0]",
            "    stur q1, [x7, #-16]",
            "    mov x0, #0",
            "    ret",
            "2:  cmp x2, #8",
            "    b.lo 3f",
            "    ldr x8, [x1]",
            "    ldur x9, [x6, #-8]",
            "    str x8, [x0]",
            "    stur x9, [x7, #-8]",
            "    mov x0, #0",
            "    ret",
            "3:  cmp x2, #4",
            "    b.lo 4f",
            "    ldr w8, [x1]",
            "    ldur w9, [x6, #-4]",
            "    str w8, [x0]",
            "    stur w9, [x7, #-4]",
            "    mov x0, #0",
            "    ret",
            // One to three bytes: copies the first, the middle and the last byte, which may
            // coincide.
            "4:  cbz x2, 9f",
            "    lsr x10, x2, #1",
            "    ldrb w8, [x1]",
            "    ldrb w9, [x1, x10]",
            "    ldurb w11, [x6, #-1]",
            "    strb w8, [x0]",
            "    strb w9, [x0, x10]",
            "    sturb w11, [x7, #-1]",
            "9:  mov x0, #0",
            "    ret",
            "5:  ldp q0, q1, [x1]",
            "    ldp q2, q3, [x6, #-32]",
            "    stp q0, q1, [x0]",
            "    stp q2, q3, [x7, #-32]",
            "    mov x0, #0",
            "    ret",
            "6:  cmp x2, #128",
            "    b.hi 7f",
            "    ldp q0, q1, [x1]",
            "    ldp q2, q3, [x1, #32]",
            "    ldp q4, q5, [x6, #-64]",
            "    ldp q6, q7, [x6, #-32]",
            "    stp q0, q1, [x0]",
            "    stp q2, q3, [x0, #32]",
            "    stp q4, q5, [x7, #-64]",
            "    stp q6, q7, [x7, #-32]",
            "    mov x0, #0",
            "    ret",
            // Copies the first vector unaligned. Stores are aligned from the next 16-byte boundary
            // of the destination on.
            "7:  ldr q0, [x1]",
            "    str q0, [x0]",
            "    and x8, x0, #-16",
            "    add x8, x8, #16",
            "    sub x9, x8, x0",
            "    add x9, x9, x1",
            "    sub x6, x6, #64",
            "    sub x7, x7, #64",
            "8:  ldp q0, q1, [x9]",
            "    ldp q2, q3, [x9, #32]",
            "    add x9, x9, #64",
            "    stp q0, q1, [x8]",
            "    stp q2, q3, [x8, #32]",
            "    add x8, x8, #64",
            "    cmp x8, x7",
            "    b.lo 8b",
            "    ldp q0, q1, [x6]",
            "    ldp q2, q3, [x6, #32]",
            "    stp q0, q1, [x7]",
            "    stp q2, q3, [x7, #32]",
            "    mov x0, #0",
            "    ret",
            entry!("copy_slow"),
            "    mov x6, x2",
            "    mov x7, x0",
            "    mov x8, x1",
            "2:  cbz x6, 3f",
            "    ldrb w9, [x8], #1",
            "    strb w9, [x7], #1",
            "    sub x6, x6, #1",
            "    b 2b",
            "3:  mov x0, #0",
            "    ret",
            entry!("copy_left"),
            "    mov x0, x6",
            "    ret",
            entry!("fill"),
            "    dup v0.16b, w1",
            "    add x7, x0, x2",
            "    cmp x2, #16",
            "    b.lo 2f",
            "    cmp x2, #64",
            "    b.hi 5f",
            "    str q0, [x0]",
            "    stur q0, [x7, #-16]",
            "    cmp x2, #32",
            "    b.ls 4f",
            "    str q0, [x0, #16]",
            "    stur q0, [x7, #-32]",
            "    mov x0, #0",
            "    ret",
            "2:  cbz x2, 4f",
            "    mov x8, x0",
            "3:  strb w1, [x8], #1",
            "    cmp x8, x7",
            "    b.lo 3b",
            "4:  mov x0, #0",
            "    ret",
            "5:  stp q0, q0, [x0]",
            "    stp q0, q0, [x0, #32]",
            "    sub x7, x7, #64",
            "    and x8, x0, #-64",
            "    add x8, x8, #64",
            "6:  cmp x8, x7",
            "    b.hs 7f",
            "    stp q0, q0, [x8]",
            "    stp q0, q0, [x8, #32]",
            "    add x8, x8, #64",
            "    b 6b",
            "7:  stp q0, q0, [x7]",
            "    stp q0, q0, [x7, #32]",
            "    mov x0, #0",
            "    ret",
            entry!("fill_slow"),
            "    mov x6, x2",
            "    mov x7, x0",
            "2:  cbz x6, 3f",
            "    strb w1, [x7], #1",
            "    sub x6, x6, #1",
            "    b 2b",
            "3:  mov x0, #0",
            "    ret",
            entry!("fill_left"),
            "    mov x0, x6",
            "    ret",
            // Atomic operations: take a word's address in `x0` and operands in `x1` and `x2`. They
            // return the value in `x0` and the fault flag in `x1`.
            entry!("atomic"),
            atomics!("8", "b", "w"),
            atomics!("16", "h", "w"),
            atomics!("32", "", "w"),
            atomics!("64", "", "x"),
            // Stores the words from `x1` up to `x2` one by one to `x0`.
            entry!("words"),
            "2:  cmp x1, x2",
            "    b.hs 3f",
            "    ldr x8, [x1]",
            "    stlr x8, [x0]",
            "    add x1, x1, #8",
            "    add x0, x0, #8",
            "    b 2b",
            "3:  mov x1, #0",
            "    ret",
            // Reads pairs of an offset and a word from `x1` up to `x2`, and stores each word at its
            // offset from `x0`. Stops at the first pair whose offset is larger than `x3` or not a
            // multiple of 8, and returns its address.
            entry!("pairs"),
            "2:  cmp x1, x2",
            "    b.hs 3f",
            "    ldp x8, x9, [x1]",
            "    cmp x8, x3",
            "    b.hi 3f",
            "    tst x8, #7",
            "    b.ne 3f",
            "    add x10, x0, x8",
            "    stlr x9, [x10]",
            "    add x1, x1, #16",
            "    b 2b",
            "3:  mov x0, x1",
            "    mov x1, #0",
            "    ret",
            entry!("atomic_fault"),
            "    mov x0, #0",
            "    mov x1, #1",
            "    ret",
            end!(),
            $($handler)*
        );
    };
}

#[cfg(windows)]
routines!(handler = sym super::seh::handle);
#[cfg(not(windows))]
routines!();

unsafe extern "C" {
    fn mmf_0_1_guard_copy(dst: *mut u8, src: *const u8, len: usize, unused: usize, lo: usize, hi: usize) -> usize;
    fn mmf_0_1_guard_fill(dst: *mut u8, byte: u64, len: usize, unused: usize, lo: usize, hi: usize) -> usize;
    fn mmf_0_1_guard_words(dst: *mut u8, from: *const u64, end: *const u64) -> Fetched;
    fn mmf_0_1_guard_pairs(base: *mut u8, from: *const [u64; 2], end: *const [u64; 2], last: u64) -> Fetched;
}

/// See [`copy`](crate::sys::guard::copy).
///
/// # Safety
///
/// The conditions of that function hold.
#[inline]
pub(in crate::sys::guard) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize, lo: usize, hi: usize) -> usize {
    // SAFETY: the routine reads `len` bytes at `src` and writes as many at `dst`, which the caller allows.
    unsafe { mmf_0_1_guard_copy(dst, src, len, 0, lo, hi) }
}

/// See [`fill`](crate::sys::guard::fill).
///
/// # Safety
///
/// The conditions of that function hold.
#[inline]
pub(in crate::sys::guard) unsafe fn fill(dst: *mut u8, byte: u8, len: usize, lo: usize, hi: usize) -> usize {
    // SAFETY: the routine writes `len` bytes at `dst`, which the caller allows.
    unsafe { mmf_0_1_guard_fill(dst, byte.into(), len, 0, lo, hi) }
}

/// See [`store_words`](crate::sys::guard::store_words).
///
/// # Safety
///
/// The conditions of that function hold.
#[inline]
pub(in crate::sys::guard) unsafe fn store_words(dst: *mut u8, words: &[u64]) -> Result<(), Fault> {
    let words = words.as_ptr_range();
    // SAFETY: the routine reads the words and writes as many at `dst`, which the caller allows.
    unsafe { mmf_0_1_guard_words(dst, words.start, words.end) }.result().map(drop)
}

/// See [`store_pairs`](crate::sys::guard::store_pairs).
///
/// # Safety
///
/// The conditions of that function hold.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "an address of this processor has 64 bits")]
pub(in crate::sys::guard) unsafe fn store_pairs(base: *mut u8, last: u64, pairs: &[[u64; 2]]) -> Result<usize, Fault> {
    let all = pairs.as_ptr_range();
    // SAFETY: the routine reads the pairs and writes a word each at offsets up to `last`, which the caller allows.
    let reached = unsafe { mmf_0_1_guard_pairs(base, all.start, all.end, last) }.result()?;
    Ok((reached as usize - all.start.addr()) / size_of::<[u64; 2]>())
}

/// Calls an atomic routine: a word's address and two operands in, a `Fetched` out.
macro_rules! call {
    ($routine:path, $word:expr, $a:expr, $b:expr) => {{
        let (word, a, b): (*mut u8, u64, u64) = ($word, $a, $b);
        // SAFETY: the routine accesses the one word, which the caller allows.
        unsafe { $routine(word, a, b) }
    }};
}
pub(super) use call;

/// Runs `check` once: the routines have one code path on this processor.
#[cfg(test)]
pub(in crate::sys::guard) fn every_way(check: &mut dyn FnMut()) {
    check();
}

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

use std::arch::global_asm;

/// Where the frame is, for who unwinds through it from a fault that is not ours. In whole offsets: LLVM counts on from the
/// last `.cfi_adjust_cfa_offset` also after a `.cfi_restore_state`.
#[cfg(not(target_env = "msvc"))]
macro_rules! frame {
    ($directive:literal) => {
        concat!(".cfi_", $directive, "\n")
    };
}
// There the system's data for 32 bits know no such thing.
#[cfg(target_env = "msvc")]
macro_rules! frame {
    ($directive:literal) => {
        ""
    };
}

/// Saves the caller's registers and takes the arguments. The two for the handler come first, so that a stack which
/// cannot be pushed to is not taken for a page that is ours.
macro_rules! enter {
    () => {
        concat!(
            "    mov eax, ebx\n",
            "    mov ecx, ebp\n",
            "    mov ebx, [esp + 16]\n",
            "    mov ebp, [esp + 20]\n",
            "    push ecx\n",
            frame!("def_cfa_offset 8"),
            frame!("rel_offset ebp, 0"),
            "    push eax\n",
            frame!("def_cfa_offset 12"),
            frame!("rel_offset ebx, 0"),
            "    push edi\n",
            frame!("def_cfa_offset 16"),
            frame!("rel_offset edi, 0"),
            "    push esi\n",
            frame!("def_cfa_offset 20"),
            frame!("rel_offset esi, 0"),
            "    mov edi, [esp + 20]\n",
            "    mov esi, [esp + 24]\n",
            "    mov edx, [esp + 28]\n",
        )
    };
}

/// Gives the caller's registers back. What follows is still within the frame.
macro_rules! leave {
    () => {
        concat!(
            frame!("remember_state"),
            "    pop esi\n",
            frame!("def_cfa_offset 16"),
            frame!("restore esi"),
            "    pop edi\n",
            frame!("def_cfa_offset 12"),
            frame!("restore edi"),
            "    pop ebx\n",
            frame!("def_cfa_offset 8"),
            frame!("restore ebx"),
            "    pop ebp\n",
            frame!("def_cfa_offset 4"),
            frame!("restore ebp"),
            "    ret\n",
            frame!("restore_state"),
        )
    };
}

/// The frame ends where the last jump to [`leave`] stands.
macro_rules! left {
    () => {
        concat!(
            frame!("def_cfa_offset 4"),
            frame!("restore esi"),
            frame!("restore edi"),
            frame!("restore ebx"),
            frame!("restore ebp"),
        )
    };
}

macro_rules! atomics {
    ($bits:literal, $a:literal, $b:literal, $load:literal) => {
        concat!(
            entry!(concat!("load", $bits)),
            "    ",
            $load,
            "\n    xor ecx, ecx\n    ret\n",
            entry!(concat!("release", $bits)),
            "    mov [edi], ",
            $a,
            "\n    xor ecx, ecx\n    ret\n",
            entry!(concat!("swap", $bits)),
            "    xchg [edi], ",
            $a,
            "\n    xor ecx, ecx\n    ret\n",
            entry!(concat!("add", $bits)),
            "    lock xadd [edi], ",
            $a,
            "\n    xor ecx, ecx\n    ret\n",
            entry!(concat!("exchange", $bits)),
            "    lock cmpxchg [edi], ",
            $b,
            "\n    mov ecx, 0\n    ret\n",
        )
    };
}

global_asm!(
    ".text",
    ".p2align 6",
    begin!(),
    entry!("copy"),
    enter!(),
    "    cmp edx, 64",
    "    ja 24f",
    "    cmp edx, 16",
    "    jb 21f",
    "    movups xmm0, [esi]",
    "    movups xmm1, [esi + edx - 16]",
    "    cmp edx, 32",
    "    jbe 20f",
    "    movups xmm2, [esi + 16]",
    "    movups xmm3, [esi + edx - 32]",
    "    movups [edi + 16], xmm2",
    "    movups [edi + edx - 32], xmm3",
    "20:",
    "    movups [edi], xmm0",
    "    movups [edi + edx - 16], xmm1",
    "    jmp 28f",
    "21:",
    "    cmp edx, 8",
    "    jb 22f",
    "    movq xmm0, qword ptr [esi]",
    "    movq xmm1, qword ptr [esi + edx - 8]",
    "    movq qword ptr [edi], xmm0",
    "    movq qword ptr [edi + edx - 8], xmm1",
    "    jmp 28f",
    "22:",
    "    cmp edx, 4",
    "    jb 23f",
    "    mov eax, [esi]",
    "    mov ecx, [esi + edx - 4]",
    "    mov [edi], eax",
    "    mov [edi + edx - 4], ecx",
    "    jmp 28f",
    "23:",
    "    cmp edx, 1",
    "    jb 28f",
    "    movzx eax, byte ptr [esi]",
    "    je 26f",
    "    movzx ecx, word ptr [esi + edx - 2]",
    "    mov [edi + edx - 2], cx",
    "26:",
    "    mov [edi], al",
    "    jmp 28f",
    // The first vector goes unaligned; from the next boundary of the destination on, stores are aligned.
    "24:",
    "    movups xmm0, [esi]",
    "    movups [edi], xmm0",
    "    mov eax, edi",
    "    neg eax",
    "    and eax, 15",
    "    lea ecx, [edx - 64]",
    "    cmp eax, ecx",
    "    jae 27f",
    "    .p2align 4",
    "25:",
    "    movups xmm0, [esi + eax]",
    "    movups xmm1, [esi + eax + 16]",
    "    movups xmm2, [esi + eax + 32]",
    "    movups xmm3, [esi + eax + 48]",
    "    movups [edi + eax], xmm0",
    "    movups [edi + eax + 16], xmm1",
    "    movups [edi + eax + 32], xmm2",
    "    movups [edi + eax + 48], xmm3",
    "    add eax, 64",
    "    cmp eax, ecx",
    "    jb 25b",
    "27:",
    "    movups xmm0, [esi + ecx]",
    "    movups xmm1, [esi + ecx + 16]",
    "    movups xmm2, [esi + ecx + 32]",
    "    movups xmm3, [esi + ecx + 48]",
    "    movups [edi + ecx], xmm0",
    "    movups [edi + ecx + 16], xmm1",
    "    movups [edi + ecx + 32], xmm2",
    "    movups [edi + ecx + 48], xmm3",
    "    jmp 28f",
    entry!("copy_slow"),
    "    mov ecx, edx",
    "    rep movsb",
    "28:",
    "    xor eax, eax",
    "29:",
    leave!(),
    entry!("copy_left"),
    "    mov eax, ecx",
    "    jmp 29b",
    left!(),
    ".p2align 6",
    entry!("fill"),
    enter!(),
    // `esi` is kept for the fix-up.
    "    imul eax, esi, 0x01010101",
    "    cmp edx, 16",
    "    jb 31f",
    "    movd xmm0, eax",
    "    pshufd xmm0, xmm0, 0",
    "    movups [edi], xmm0",
    "    lea ecx, [edx - 16]",
    "    mov eax, edi",
    "    neg eax",
    "    and eax, 15",
    "    cmp eax, ecx",
    "    jae 33f",
    "    .p2align 4",
    "30:",
    "    movups [edi + eax], xmm0",
    "    add eax, 16",
    "    cmp eax, ecx",
    "    jb 30b",
    "33:",
    "    movups [edi + ecx], xmm0",
    "    jmp 38f",
    "31:",
    "    cmp edx, 4",
    "    jb 32f",
    "    mov [edi], eax",
    "    mov [edi + edx - 4], eax",
    "    cmp edx, 8",
    "    jbe 38f",
    "    mov [edi + 4], eax",
    "    mov [edi + edx - 8], eax",
    "    jmp 38f",
    "32:",
    "    cmp edx, 1",
    "    jb 38f",
    "    mov [edi], al",
    "    je 38f",
    "    mov [edi + edx - 2], ax",
    "    jmp 38f",
    entry!("fill_slow"),
    "    mov eax, esi",
    "    mov ecx, edx",
    "    rep stosb",
    "38:",
    "    xor eax, eax",
    "39:",
    leave!(),
    entry!("fill_left"),
    "    mov eax, ecx",
    "    jmp 39b",
    left!(),
    // Atomic operations: a word at `edi`, operands in `edx:eax` and `ecx:ebx`; its value in `edx:eax`, whether it faulted
    // in `ecx`.
    entry!("atomic"),
    atomics!("8", "al", "bl", "movzx eax, byte ptr [edi]"),
    atomics!("16", "ax", "bx", "movzx eax, word ptr [edi]"),
    atomics!("32", "eax", "ebx", "mov eax, [edi]"),
    entry!("load64"),
    "    movq xmm0, qword ptr [edi]",
    "    movd eax, xmm0",
    "    psrlq xmm0, 32",
    "    movd edx, xmm0",
    "    xor ecx, ecx",
    "    ret",
    entry!("release64"),
    "    movd xmm0, eax",
    "    movd xmm1, edx",
    "    punpckldq xmm0, xmm1",
    "    movq qword ptr [edi], xmm0",
    "    xor ecx, ecx",
    "    ret",
    // A first guess may be torn: the exchange then gives the word as it is.
    entry!("swap64"),
    "    mov ebx, eax",
    "    mov ecx, edx",
    "    mov eax, [edi]",
    "    mov edx, [edi + 4]",
    "40:",
    "    lock cmpxchg8b qword ptr [edi]",
    "    jne 40b",
    "    xor ecx, ecx",
    "    ret",
    entry!("add64"),
    "    movd xmm0, eax",
    "    movd xmm1, edx",
    "    punpckldq xmm0, xmm1",
    "    mov eax, [edi]",
    "    mov edx, [edi + 4]",
    "41:",
    "    movd xmm1, eax",
    "    movd xmm2, edx",
    "    punpckldq xmm1, xmm2",
    "    paddq xmm1, xmm0",
    "    movd ebx, xmm1",
    "    psrlq xmm1, 32",
    "    movd ecx, xmm1",
    "    lock cmpxchg8b qword ptr [edi]",
    "    jne 41b",
    "    xor ecx, ecx",
    "    ret",
    entry!("exchange64"),
    "    lock cmpxchg8b qword ptr [edi]",
    "    mov ecx, 0",
    "    ret",
    entry!("atomic_fault"),
    "    xor eax, eax",
    "    xor edx, edx",
    "    mov ecx, 1",
    "    ret",
    end!(),
);

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

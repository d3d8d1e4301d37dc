//! Where each system keeps the registers of the interrupted program: the program counter, and the two in which
//! the routines hold the addresses whose faults are ours.

use libc::ucontext_t;

#[cfg(all(linux_like, target_arch = "x86_64"))]
macro_rules! register {
    ($context:expr, pc) => {
        (*$context).uc_mcontext.gregs[libc::REG_RIP as usize]
    };
    ($context:expr, lo) => {
        (*$context).uc_mcontext.gregs[libc::REG_R8 as usize]
    };
    ($context:expr, hi) => {
        (*$context).uc_mcontext.gregs[libc::REG_R9 as usize]
    };
}
#[cfg(all(linux_like, target_arch = "aarch64"))]
macro_rules! register {
    ($context:expr, pc) => {
        (*$context).uc_mcontext.pc
    };
    ($context:expr, lo) => {
        (*$context).uc_mcontext.regs[4]
    };
    ($context:expr, hi) => {
        (*$context).uc_mcontext.regs[5]
    };
}
#[cfg(all(linux_like, target_arch = "x86"))]
macro_rules! register {
    ($context:expr, pc) => {
        (*$context.cast::<Front>()).gregs[14]
    };
    ($context:expr, lo) => {
        (*$context.cast::<Front>()).gregs[8]
    };
    ($context:expr, hi) => {
        (*$context.cast::<Front>()).gregs[6]
    };
}
/// The front of the kernel's `struct ucontext` for this processor (`asm/ucontext.h`, `asm/sigcontext.h`); for musl, libc
/// names no registers.
#[cfg(all(linux_like, target_arch = "x86"))]
#[repr(C)]
struct Front {
    flags: u32,
    link: u32,
    stack: [u32; 3],
    gregs: [usize; 19],
}
#[cfg(all(target_os = "macos", target_arch = "x86_64"))]
macro_rules! register {
    ($context:expr, pc) => {
        (*(*$context).uc_mcontext).__ss.__rip
    };
    ($context:expr, lo) => {
        (*(*$context).uc_mcontext).__ss.__r8
    };
    ($context:expr, hi) => {
        (*(*$context).uc_mcontext).__ss.__r9
    };
}
#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
macro_rules! register {
    ($context:expr, pc) => {
        (*(*$context).uc_mcontext).__ss.__pc
    };
    ($context:expr, lo) => {
        (*(*$context).uc_mcontext).__ss.__x[4]
    };
    ($context:expr, hi) => {
        (*(*$context).uc_mcontext).__ss.__x[5]
    };
}
#[cfg(all(bsd, target_arch = "x86_64"))]
macro_rules! register {
    ($context:expr, pc) => {
        (*$context).uc_mcontext.mc_rip
    };
    ($context:expr, lo) => {
        (*$context).uc_mcontext.mc_r8
    };
    ($context:expr, hi) => {
        (*$context).uc_mcontext.mc_r9
    };
}
#[cfg(all(bsd, target_arch = "aarch64"))]
macro_rules! register {
    ($context:expr, pc) => {
        (*$context).uc_mcontext.mc_gpregs.gp_elr
    };
    ($context:expr, lo) => {
        (*$context).uc_mcontext.mc_gpregs.gp_x[4]
    };
    ($context:expr, hi) => {
        (*$context).uc_mcontext.mc_gpregs.gp_x[5]
    };
}

/// Gives the program counter, `lo` and `hi`.
///
/// # Safety
///
/// The context is one that the system gave to a signal handler which has not returned.
#[allow(clippy::cast_possible_truncation, reason = "registers are as wide as addresses, of whatever type they are")]
#[allow(clippy::unnecessary_cast, reason = "that type differs between systems")]
pub(super) unsafe fn read(context: *const ucontext_t) -> (usize, usize, usize) {
    // SAFETY: the caller's promise.
    let pc = unsafe { register!(context, pc) };
    // SAFETY: the caller's promise.
    let lo = unsafe { register!(context, lo) };
    // SAFETY: the caller's promise.
    let hi = unsafe { register!(context, hi) };
    (pc as usize, lo as usize, hi as usize)
}

/// Has the program go on at `pc` when the handler returns.
///
/// # Safety
///
/// As for [`read`]; and it is right for the program to go on there with its registers as they are.
pub(super) unsafe fn resume_at(context: *mut ucontext_t, pc: usize) {
    // SAFETY: the caller's promise.
    unsafe { register!(context, pc) = pc as _ };
}

//! Catches faults on Unix by a signal handler that moves the program counter.
//!
//! # Problem
//!
//! The kernel reports a page that is gone by `SIGBUS` (mmap(2) on Linux and macOS). FreeBSD also
//! reports a failed pager by `SIGSEGV` (`vm_fault_trap`). Other code in the process may install
//! handlers for these signals too. A handler installed after this one may call it for signals that
//! it does not handle. If this library then installed its own handler function again on top, the
//! two handlers would call each other without end.
//!
//! # Algorithm
//!
//! 1. [`arm`] queries the installed handler. If a fault reaches this library through it, nothing is
//!    to be done.
//! 2. Otherwise `install` claims the next *generation*: a handler function of its own, with its own
//!    record of the handler that it replaces. A process has up to 16 generations for each signal.
//! 3. The new handler stores its predecessor first, and is installed second.
//! 4. On a signal, the handler resumes at a fix-up if the fault is in a routine. Otherwise it calls
//!    its predecessor.
//!
//! Other copies of this library are recognised and need no new generation: see `trampolines`.
//!
//! # Correctness
//!
//! Generation *n* calls only the handler that it replaced, and each generation is installed once.
//! So no chain of calls returns to a generation that it has passed.
//!
//! # Cost
//!
//! An armed process pays one `sigaction` call for each [`arm`].

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::{Caught, landing};
use crate::error::{Error, Result};
use crate::sys::imp::{ForkLock, keep_loaded};

mod chain;
mod context;
mod trampolines;

#[cfg(not(bsd))]
const SIGNALS: [c_int; 1] = [libc::SIGBUS];
#[cfg(bsd)]
const SIGNALS: [c_int; 2] = [libc::SIGBUS, libc::SIGSEGV];

/// The number of times that a handler can be installed for a signal before [`arm`] gives up.
const GENERATIONS: usize = 16;

/// The action that each generation replaced, for each signal. Null means the system's default.
/// Never freed, since a handler may be reading it.
static PREVIOUS: [[AtomicPtr<libc::sigaction>; GENERATIONS]; SIGNALS.len()] =
    [const { [const { AtomicPtr::new(ptr::null_mut()) }; GENERATIONS] }; SIGNALS.len()];

/// The number of generations used, for each signal.
static USED: [AtomicUsize; SIGNALS.len()] = [const { AtomicUsize::new(0) }; SIGNALS.len()];

/// Held while a handler is installed, so that threads that arm at one time use one generation. A
/// forked child that takes the lock over finds each step done or not done. The child checks the
/// installed handler, and claims a generation of its own if that handler is not this copy's.
static INSTALLING: ForkLock = ForkLock::new();

pub(super) fn arm() -> Result<()> {
    for (index, &signal) in SIGNALS.iter().enumerate() {
        if !trampolines::lead_here(query(signal)?.sa_sigaction, signal) {
            install(index, signal)?;
        }
    }
    Ok(())
}

fn query(signal: c_int) -> Result<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: no new action is passed, and there is room for the old one.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(Error::system("ask for the signal handler", io::Error::last_os_error()));
    }
    // SAFETY: sigaction succeeded, so it has written the action.
    Ok(unsafe { action.assume_init() })
}

#[cold]
fn install(index: usize, signal: c_int) -> Result<()> {
    keep_loaded();
    let _installing = INSTALLING.lock();
    let before = query(signal)?;
    if trampolines::lead_here(before.sa_sigaction, signal) {
        return Ok(());
    }
    let generation = USED[index].load(Ordering::Relaxed);
    if generation == GENERATIONS {
        return Err(Error::unsupported(
            "catch faults",
            format!("the handler of signal {signal} was replaced by other code {GENERATIONS} times"),
        )
        .with_help("find the code that installs a handler again and again, or use FaultPolicy::SystemCalls"));
    }
    USED[index].store(generation + 1, Ordering::Relaxed);

    // The handler may run as soon as it is installed, so its predecessor is stored before.
    let previous = &PREVIOUS[index][generation];
    previous.store(Box::into_raw(Box::new(before)), Ordering::Release);

    let mut mask = MaybeUninit::uninit();
    // SAFETY: there is room for the set.
    unsafe { libc::sigemptyset(mask.as_mut_ptr()) };
    // SAFETY: all-zero bytes are a valid sigaction: no handler, no flags, no restorer.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = trampolines::address(generation);
    // A fault inside another handler must reach this one too, so the handler does not block its own
    // signal. It restarts system calls if its predecessor does.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | (before.sa_flags & libc::SA_RESTART);
    // SAFETY: sigemptyset has written the set.
    action.sa_mask = unsafe { mask.assume_init() };
    let mut replaced = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the handler is safe to run at any moment (see `handler`), and there is room for the
    // action that it replaces.
    if unsafe { libc::sigaction(signal, &raw const action, replaced.as_mut_ptr()) } != 0 {
        return Err(Error::system("install the signal handler", io::Error::last_os_error()));
    }
    // SAFETY: sigaction succeeded, so it has written the action.
    let replaced = unsafe { replaced.assume_init() };
    if replaced.sa_sigaction != before.sa_sigaction {
        // Other code installed a handler between the query and this call.
        previous.store(Box::into_raw(Box::new(replaced)), Ordering::Release);
    }
    Ok(())
}

/// Returns the handler that one of this library's handlers replaced. Returns 0 if that was the
/// system's default, or if `handler` is not this library's.
extern "C" fn before(handler: usize, signal: c_int) -> usize {
    let slots = SIGNALS.iter().zip(&PREVIOUS).find(|&(&ours, _)| ours == signal);
    let slot = slots.zip(trampolines::generation(handler)).and_then(|((_, slots), generation)| slots.get(generation));
    let Some(slot) = slot else { return libc::SIG_DFL };
    // SAFETY: the pointer is null, or points to an action that is never freed.
    unsafe { slot.load(Ordering::Acquire).as_ref() }.map_or(libc::SIG_DFL, |action| action.sa_sigaction)
}

/// Handles the signal. Uses only what POSIX allows in a handler (signal-safety(7)): atomics,
/// `sigaction`, `pthread_sigmask`, `raise`.
///
/// # Safety
///
/// Only the system calls it, or another handler with the arguments that the system passed.
unsafe extern "C" fn handler<const GENERATION: usize>(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes both pointers, and only this handler accesses them until it
    // returns.
    if unsafe { resume(info, context.cast()) } {
        return;
    }
    if let Some(index) = SIGNALS.iter().position(|&ours| ours == signal) {
        // SAFETY: the system passes both pointers, and only this handler accesses them until it
        // returns.
        unsafe { chain::pass_on(&PREVIOUS[index][GENERATION], signal, info, context) };
    }
}

/// Returns whether a fault raised the signal. A signal that a process sent has other codes in
/// POSIX, `SI_USER` and similar ones, which are not positive on Linux and above 0x10000 on the BSDs
/// and macOS.
fn is_fault(info: &libc::siginfo_t) -> bool {
    // The kernel reports a poisoned page that is not yet accessed to the process that asked for
    // such reports, at any instruction.
    #[cfg(linux_like)]
    if info.si_signo == libc::SIGBUS && info.si_code == libc::BUS_MCEERR_AO {
        return false;
    }
    (1..0x1_0000).contains(&info.si_code)
}

/// Moves the program counter to the fix-up if the fault is in a routine and its range. Returns
/// whether it did.
///
/// # Safety
///
/// The conditions of [`handler`] hold.
unsafe fn resume(info: *const libc::siginfo_t, context: *mut libc::ucontext_t) -> bool {
    // SAFETY: the caller's promise; no other code writes to it during the call.
    let info = unsafe { &*info };
    if !is_fault(info) {
        return false;
    }
    // SAFETY: a fault raised the signal, so the system has set the address.
    let address = unsafe { fault_address(info) };
    // SAFETY: the caller's promise.
    let (pc, lo, hi) = unsafe { context::read(context) };
    let Some(fixup) = landing(&Caught { pc, address, blur: blur(info), lo, hi }) else {
        return false;
    };
    // SAFETY: the caller's promise. The fix-up belongs to the routine at the program counter.
    unsafe { context::resume_at(context, fixup) };
    true
}

/// # Safety
///
/// A fault raised the signal.
unsafe fn fault_address(info: &libc::siginfo_t) -> usize {
    // SAFETY: the caller's promise.
    unsafe { info.si_addr() }.addr()
}

/// Returns the granularity of the address. The system rounds the address of poisoned memory down to
/// a page of some size, and reports that size.
#[cfg(linux_like)]
fn blur(info: &libc::siginfo_t) -> usize {
    // The field follows the address, which is the union's first field. libc does not name it. The
    // union follows three integers and is aligned for a pointer.
    const SI_ADDR_LSB: usize = (3 * size_of::<c_int>()).next_multiple_of(align_of::<usize>()) + size_of::<usize>();
    if info.si_signo != libc::SIGBUS || info.si_code != libc::BUS_MCEERR_AR {
        return 1;
    }
    let shift = ptr::from_ref(info).cast::<u8>().wrapping_add(SI_ADDR_LSB);
    // SAFETY: a siginfo_t has 128 bytes, and for this code the system sets this field
    // (sigaction(2)).
    let shift = unsafe { shift.read() };
    1 << shift.min(40)
}
#[cfg(not(linux_like))]
fn blur(_: &libc::siginfo_t) -> usize {
    1
}

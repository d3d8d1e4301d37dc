//! The Unix way: a signal handler that moves the program counter.
//!
//! Which signal tells of a page that is gone: `SIGBUS` (mmap(2) on Linux and macOS); FreeBSD also says
//! `SIGSEGV` where the pager failed (`vm_fault_trap`).
//!
//! Whoever installs a handler after us may call ours in turn when it is not theirs. If we then installed the
//! same one again on top, theirs and ours would call each other for ever. So each installation has a handler
//! function of its own, with its own memory of what was there before: a *generation*. Other copies of this library
//! can be told apart from strangers, and need no new generation: see `trampolines`.

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

/// How often a handler can be installed for a signal before [`arm`] gives up.
const GENERATIONS: usize = 16;

/// What was there before each generation, per signal. Null: the system's default. Never freed, since a handler may
/// be reading it.
static PREVIOUS: [[AtomicPtr<libc::sigaction>; GENERATIONS]; SIGNALS.len()] =
    [const { [const { AtomicPtr::new(ptr::null_mut()) }; GENERATIONS] }; SIGNALS.len()];

/// How many generations are used up, per signal.
static USED: [AtomicUsize; SIGNALS.len()] = [const { AtomicUsize::new(0) }; SIGNALS.len()];

/// Held while a handler is installed, so that threads that arm at the same time use up one
/// generation. A forked child that takes the lock over finds each step done or not done: it looks
/// at the handler that is installed, and claims a generation of its own if that is not this copy's.
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
    // SAFETY: no action is given, and there is room for the one that is asked for.
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
            format!("the handler of signal {signal} was replaced by somebody else {GENERATIONS} times"),
        )
        .with_help("find out who installs a handler again and again, or use FaultPolicy::SystemCalls"));
    }
    USED[index].store(generation + 1, Ordering::Relaxed);

    // The handler may run as soon as it is installed, so it must find its predecessor before.
    let previous = &PREVIOUS[index][generation];
    previous.store(Box::into_raw(Box::new(before)), Ordering::Release);

    let mut mask = MaybeUninit::uninit();
    // SAFETY: there is room for the set.
    unsafe { libc::sigemptyset(mask.as_mut_ptr()) };
    // SAFETY: all-zero bytes are a valid sigaction: no handler, no flags, no restorer.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = trampolines::address(generation);
    // A fault inside a handler of somebody else's must reach ours too, so it does not block itself. Where the
    // predecessor lets system calls go on after its signal, so do we.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | (before.sa_flags & libc::SA_RESTART);
    // SAFETY: sigemptyset has written the set.
    action.sa_mask = unsafe { mask.assume_init() };
    let mut replaced = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the handler is safe to run at any moment (see there), and there is room for the action it replaces.
    if unsafe { libc::sigaction(signal, &raw const action, replaced.as_mut_ptr()) } != 0 {
        return Err(Error::system("install the signal handler", io::Error::last_os_error()));
    }
    // SAFETY: sigaction succeeded, so it has written the action.
    let replaced = unsafe { replaced.assume_init() };
    if replaced.sa_sigaction != before.sa_sigaction {
        // Somebody else installed one in between.
        previous.store(Box::into_raw(Box::new(replaced)), Ordering::Release);
    }
    Ok(())
}

/// What was there before a handler of ours; 0 if it was the system's, or the handler is none of ours.
extern "C" fn before(handler: usize, signal: c_int) -> usize {
    let slots = SIGNALS.iter().zip(&PREVIOUS).find(|&(&ours, _)| ours == signal);
    let slot = slots.zip(trampolines::generation(handler)).and_then(|((_, slots), generation)| slots.get(generation));
    let Some(slot) = slot else { return libc::SIG_DFL };
    // SAFETY: null, or an action that is never freed.
    unsafe { slot.load(Ordering::Acquire).as_ref() }.map_or(libc::SIG_DFL, |action| action.sa_sigaction)
}

/// Does only what POSIX allows in a handler (signal-safety(7)): atomics, `sigaction`, `pthread_sigmask`, `raise`.
///
/// # Safety
///
/// To be called by the system, or by another handler with what the system gave it.
unsafe extern "C" fn handler<const GENERATION: usize>(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes both, and they are this handler's until it returns.
    if unsafe { resume(info, context.cast()) } {
        return;
    }
    if let Some(index) = SIGNALS.iter().position(|&ours| ours == signal) {
        // SAFETY: as above.
        unsafe { chain::pass_on(&PREVIOUS[index][GENERATION], signal, info, context) };
    }
}

/// Whether the signal tells of a fault, and was not sent by a process: POSIX gives those codes of their own,
/// `SI_USER` and the like, which are not positive on Linux and above 0x10000 on the BSDs and macOS.
fn is_fault(info: &libc::siginfo_t) -> bool {
    // A poisoned page that nobody has touched yet is told to whoever asked for it, at any instruction.
    #[cfg(linux_like)]
    if info.si_signo == libc::SIGBUS && info.si_code == libc::BUS_MCEERR_AO {
        return false;
    }
    (1..0x1_0000).contains(&info.si_code)
}

/// Moves the program counter to the fix-up if the fault is ours.
///
/// # Safety
///
/// As for [`handler`].
unsafe fn resume(info: *const libc::siginfo_t, context: *mut libc::ucontext_t) -> bool {
    // SAFETY: the caller's promise; nobody writes to it meanwhile.
    let info = unsafe { &*info };
    if !is_fault(info) {
        return false;
    }
    // SAFETY: the signal tells of a fault, so the system has filled in the address.
    let address = unsafe { fault_address(info) };
    // SAFETY: the caller's promise.
    let (pc, lo, hi) = unsafe { context::read(context) };
    let Some(fixup) = landing(&Caught { pc, address, blur: blur(info), lo, hi }) else {
        return false;
    };
    // SAFETY: the caller's promise. The fix-up belongs to the routine that stands at the program counter.
    unsafe { context::resume_at(context, fixup) };
    true
}

/// # Safety
///
/// The signal tells of a fault.
unsafe fn fault_address(info: &libc::siginfo_t) -> usize {
    // SAFETY: the caller's promise.
    unsafe { info.si_addr() }.addr()
}

/// The system rounds the address of poisoned memory down to a page of whatever size, and says which.
#[cfg(linux_like)]
fn blur(info: &libc::siginfo_t) -> usize {
    // Behind the address, which is the first of the union's fields; libc does not name it. The union follows three
    // integers, where a pointer may stand.
    const SI_ADDR_LSB: usize = (3 * size_of::<c_int>()).next_multiple_of(align_of::<usize>()) + size_of::<usize>();
    if info.si_signo != libc::SIGBUS || info.si_code != libc::BUS_MCEERR_AR {
        return 1;
    }
    let shift = ptr::from_ref(info).cast::<u8>().wrapping_add(SI_ADDR_LSB);
    // SAFETY: a siginfo_t has 128 bytes, and for this code the system fills in this one (sigaction(2)).
    let shift = unsafe { shift.read() };
    1 << shift.min(40)
}
#[cfg(not(linux_like))]
fn blur(_: &libc::siginfo_t) -> usize {
    1
}

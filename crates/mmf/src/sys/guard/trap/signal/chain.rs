//! Handing a signal that is not ours to whoever had it before, as the system would have.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// # Safety
///
/// - To be called in a signal handler that was installed with `SA_NODEFER` and an empty mask, as the last thing
///   it does, with what the system gave it.
/// - `previous` is null or points to an action that sigaction(2) gave and that is never freed.
pub(super) unsafe fn pass_on(
    previous: &AtomicPtr<libc::sigaction>,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let found = previous.load(Ordering::Acquire);
    // SAFETY: the caller's promise.
    let Some(action) = (unsafe { found.as_ref() }) else {
        // SAFETY: the system's siginfo.
        return die(signal, unsafe { &*info });
    };
    match action.sa_sigaction {
        // SAFETY: the system's siginfo.
        libc::SIG_DFL => return die(signal, unsafe { &*info }),
        libc::SIG_IGN => {
            // The system ignores what a process sent, but never a fault, since the instruction would fault for ever.
            // SAFETY: the system's siginfo.
            let info = unsafe { &*info };
            if super::is_fault(info) {
                die(signal, info);
            }
            return;
        }
        _ => {}
    }
    if action.sa_flags & libc::SA_RESETHAND != 0
        && previous.compare_exchange(found, ptr::null_mut(), Ordering::AcqRel, Ordering::Acquire).is_err()
    {
        // Another thread has used up the one call.
        // SAFETY: the system's siginfo.
        return die(signal, unsafe { &*info });
    }

    // What it wants blocked while it runs. The system restores the program's own mask when we return.
    let mut mask = action.sa_mask;
    if action.sa_flags & libc::SA_NODEFER == 0 {
        // SAFETY: the mask is a valid set, being the system's.
        unsafe { libc::sigaddset(&raw mut mask, signal) };
    }
    // SAFETY: a valid set; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, ptr::null_mut()) };

    if action.sa_flags & libc::SA_SIGINFO == 0 {
        // SAFETY: without SA_SIGINFO the address is that of a function with one argument, and SIG_DFL and SIG_IGN are
        // dealt with.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(action.sa_sigaction) };
        handler(signal);
    } else {
        // SAFETY: with SA_SIGINFO the address is that of a function with three.
        let handler: unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
            unsafe { std::mem::transmute(action.sa_sigaction) };
        // SAFETY: it gets what the system gave.
        unsafe { handler(signal, info, context) };
    }
}

/// The system's own action: for these signals, death. A fault comes again as soon as the handler returns; what was
/// sent has to be sent again.
fn die(signal: c_int, info: &libc::siginfo_t) {
    // SAFETY: all-zero bytes are a valid sigaction: SIG_DFL, no flags, an empty mask.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a valid action; the old one is not asked for.
    unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    if !super::is_fault(info) {
        // SAFETY: raises a signal.
        unsafe { libc::raise(signal) };
    }
}

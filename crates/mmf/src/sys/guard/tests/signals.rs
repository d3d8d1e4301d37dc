//! Other handlers of the same signal. Each test runs in a process of its own, since handlers are the process's.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::region::{Region, STEP};
use crate::sys::guard;
use crate::types::FaultPolicy;

/// Where a handler of these tests ends the process.
const CHAINED: c_int = 77;

/// Runs `test` in a child for each case, and tells how it ended.
fn ends(test: &str, cases: &[(&str, End)]) -> bool {
    if std::env::var(super::CASE).is_ok() {
        return false;
    }
    for (case, end) in cases {
        let status = super::child(&format!("sys::guard::tests::signals::{test}"), case);
        let found = match (status.code(), status.signal()) {
            (Some(code), _) => End::Exit(code),
            (_, Some(signal)) => End::Killed(signal),
            _ => End::Exit(-1),
        };
        assert_eq!(found, *end, "{case}");
    }
    true
}

#[derive(Debug, PartialEq)]
enum End {
    Exit(c_int),
    Killed(c_int),
}

fn install(handler: usize, flags: c_int, blocked: &[c_int]) -> libc::sigaction {
    // SAFETY: all-zero bytes are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    for &signal in blocked {
        // SAFETY: a valid set.
        unsafe { libc::sigaddset(&raw mut action.sa_mask, signal) };
    }
    let mut old = MaybeUninit::uninit();
    // SAFETY: a valid action, and room for the old one.
    assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, old.as_mut_ptr()) }, 0);
    // SAFETY: sigaction has written it.
    unsafe { old.assume_init() }
}

fn current() -> usize {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: there is room for the action.
    assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), now.as_mut_ptr()) }, 0);
    // SAFETY: sigaction has written it.
    unsafe { now.assume_init() }.sa_sigaction
}

/// A copy that faults in `region`, and is caught there alone.
fn faulting_copy(region: &Region) -> usize {
    let (lo, hi) = region.range();
    let mut copy = [0; 100];
    let from = region.border().wrapping_sub(40);
    // SAFETY: as many bytes in the array; those that are not there are in the range.
    unsafe { guard::copy(FaultPolicy::Trap, copy.as_mut_ptr(), from, 100, lo, hi) }
}

/// A fault that is nobody's.
fn foreign_fault(region: &Region) {
    // SAFETY: the process shall meet the fault.
    unsafe { region.border().read_volatile() };
}

fn quit() {
    // SAFETY: ends the process.
    unsafe { libc::_exit(CHAINED) }
}

extern "C" fn quits(_: c_int) {
    quit();
}

extern "C" fn quits_with_info(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system's siginfo.
    let info = unsafe { &*info };
    // SAFETY: the signal tells of a fault.
    let address = unsafe { info.si_addr() }.addr();
    if signal == libc::SIGBUS && address == BORDER.load(Ordering::Relaxed) && !context.is_null() {
        quit();
    }
}
static BORDER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn quits_if_mask_is_right(_: c_int) {
    let mut mask = MaybeUninit::uninit();
    // SAFETY: room for the mask.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr()) };
    // SAFETY: pthread_sigmask has written it.
    let mask = unsafe { mask.assume_init() };
    // SAFETY: a valid set.
    let has = |signal| unsafe { libc::sigismember(&raw const mask, signal) } == 1;
    if has(libc::SIGUSR1) && !has(libc::SIGUSR2) && has(libc::SIGBUS) == (WITH_ITSELF.load(Ordering::Relaxed) == 1) {
        quit();
    }
}
static WITH_ITSELF: AtomicI32 = AtomicI32::new(0);

extern "C" fn counts(_: c_int) {
    CALLS.fetch_add(1, Ordering::Relaxed);
}
static CALLS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn what_is_not_ours_goes_to_who_was_there() {
    let cases = [
        ("handler", End::Exit(CHAINED)),
        ("handler with info", End::Exit(CHAINED)),
        ("mask", End::Exit(CHAINED)),
        ("mask without itself", End::Exit(CHAINED)),
        ("default", End::Killed(libc::SIGBUS)),
        ("default, sent", End::Killed(libc::SIGBUS)),
        ("ignored", End::Killed(libc::SIGBUS)),
        ("ignored, sent", End::Exit(0)),
        ("counted, sent", End::Exit(0)),
        ("once, sent", End::Killed(libc::SIGBUS)),
    ];
    if ends("what_is_not_ours_goes_to_who_was_there", &cases) {
        return;
    }
    let case = super::case().unwrap();
    let region = Region::new(STEP, STEP);
    BORDER.store(region.border().addr(), Ordering::Relaxed);
    WITH_ITSELF.store(i32::from(case == "mask"), Ordering::Relaxed);
    match case.as_str() {
        "handler" => install(quits as *const () as usize, 0, &[]),
        "handler with info" => install(quits_with_info as *const () as usize, libc::SA_SIGINFO, &[]),
        "mask" => install(quits_if_mask_is_right as *const () as usize, 0, &[libc::SIGUSR1]),
        "mask without itself" => {
            install(quits_if_mask_is_right as *const () as usize, libc::SA_NODEFER, &[libc::SIGUSR1])
        }
        "ignored" | "ignored, sent" => install(libc::SIG_IGN, 0, &[]),
        "counted, sent" => install(counts as *const () as usize, 0, &[]),
        "once, sent" => install(counts as *const () as usize, libc::SA_RESETHAND, &[]),
        _ => install(libc::SIG_DFL, 0, &[]),
    };
    guard::arm().unwrap();
    assert_eq!(faulting_copy(&region), 60);
    if case.ends_with("sent") {
        // SAFETY: sends this thread a signal.
        unsafe { libc::raise(libc::SIGBUS) };
        assert_eq!(CALLS.load(Ordering::Relaxed), usize::from(case != "ignored, sent"));
        // SAFETY: sends this thread a signal.
        unsafe { libc::raise(libc::SIGBUS) };
        assert_eq!(faulting_copy(&region), 60);
        std::process::exit(0);
    }
    foreign_fault(&region);
    std::process::exit(1);
}

/// What was there before `chains`, for it to call.
static BEFORE_IT: AtomicUsize = AtomicUsize::new(0);

/// A handler of somebody else's that hands on what it does not know, as crash reporters do.
extern "C" fn chains(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if CALLS.fetch_add(1, Ordering::Relaxed) > 50 {
        // SAFETY: ends the process.
        unsafe { libc::_exit(3) };
    }
    let before = BEFORE_IT.load(Ordering::Relaxed);
    // SAFETY: the address is that of a handler with three arguments, which was there before.
    let before: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = unsafe { std::mem::transmute(before) };
    before(signal, info, context);
}

#[test]
fn a_replaced_handler_is_installed_again_and_never_called_in_a_circle() {
    let cases = [("ours", End::Exit(0)), ("not ours", End::Killed(libc::SIGBUS)), ("too often", End::Exit(0))];
    if ends("a_replaced_handler_is_installed_again_and_never_called_in_a_circle", &cases) {
        return;
    }
    let case = super::case().unwrap();
    let region = Region::new(STEP, STEP);
    install(libc::SIG_DFL, 0, &[]);
    guard::arm().unwrap();
    let first = current();
    guard::arm().unwrap();
    assert_eq!(current(), first, "nothing to do");

    let theirs = chains as *const () as usize;
    BEFORE_IT.store(install(theirs, libc::SA_SIGINFO | libc::SA_NODEFER, &[]).sa_sigaction, Ordering::Relaxed);
    assert_eq!(faulting_copy(&region), 60, "theirs calls ours");
    assert_eq!(CALLS.swap(0, Ordering::Relaxed), 2, "once for the fast part, once for the slow one");
    guard::arm().unwrap();
    assert!(current() != first && current() != theirs);
    assert_eq!(faulting_copy(&region), 60);
    assert_eq!(CALLS.load(Ordering::Relaxed), 0, "ours comes first again");

    match case.as_str() {
        "not ours" => foreign_fault(&region),
        "too often" => {
            let refused = (0..100).find_map(|_| {
                BEFORE_IT
                    .store(install(theirs, libc::SA_SIGINFO | libc::SA_NODEFER, &[]).sa_sigaction, Ordering::Relaxed);
                guard::arm().err()
            });
            let text = refused.unwrap().to_string();
            assert!(text.contains("replaced"), "{text}");
            std::process::exit(0);
        }
        _ => std::process::exit(0),
    }
    std::process::exit(1);
}

/// The thread that opens a mapping need not be the only one that does so.
#[test]
fn many_threads_arm_at_once() {
    if ends("many_threads_arm_at_once", &[("", End::Exit(0))]) {
        return;
    }
    super::case().unwrap();
    install(libc::SIG_DFL, 0, &[]);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                guard::arm().unwrap();
                let region = Region::new(STEP, STEP);
                assert_eq!(faulting_copy(&region), 60);
            });
        }
    });
    std::process::exit(0);
}

//! A program's own handler of `SIGBUS`, and faults outside mappings.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::system::checked;

/// How many times the program's handler ran, and how many of them for a page of the program's own.
static CALLS: AtomicUsize = AtomicUsize::new(0);
static MENDED: AtomicUsize = AtomicUsize::new(0);
/// The program's page that is missing.
static HOSTS: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// The handler before the program's, for programs that pass foreign faults on.
struct Before(UnsafeCell<MaybeUninit<libc::sigaction>>);
// SAFETY: written before the handler is installed that alone reads it, or by a single thread.
unsafe impl Sync for Before {}
static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::zeroed()));

pub(crate) fn calls() -> usize {
    CALLS.load(Ordering::SeqCst)
}

pub(crate) fn mended() -> usize {
    MENDED.load(Ordering::SeqCst)
}

/// Maps the program's page anew, and returns whether the fault was there.
fn mend(address: *const c_void) -> bool {
    CALLS.fetch_add(1, Ordering::SeqCst);
    let page = HOSTS.load(Ordering::SeqCst);
    if address.addr() != page.addr() {
        return false;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: replaces a page that the program mapped for this, and that no reference points to.
    unsafe { libc::mmap(page.cast(), mmf::page_size(), libc::PROT_READ, flags, -1, 0) };
    MENDED.fetch_add(1, Ordering::SeqCst);
    true
}

extern "C" fn with_details(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the system's, for a fault.
    let info = unsafe { &*info };
    // SAFETY: a fault has an address.
    if !mend(unsafe { info.si_addr() }) {
        end_of_host();
    }
}

/// A handler that gets the number of the signal alone, and takes every fault for its own.
extern "C" fn number_only(_: c_int) {
    mend(HOSTS.load(Ordering::SeqCst).cast());
}

extern "C" fn passes_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system's, for a fault.
    let details = unsafe { &*info };
    // SAFETY: a fault has an address.
    if mend(unsafe { details.si_addr() }) {
        return;
    }
    if calls() > 1000 {
        // Two handlers call each other without end.
        end_of_host();
    }
    // SAFETY: written before this handler was installed, and not since.
    let before = unsafe { BEFORE.0.get().read() };
    // SAFETY: likewise.
    let before = unsafe { before.assume_init() };
    assert_ne!(before.sa_flags & libc::SA_SIGINFO, 0, "mmf's, which has it");
    // SAFETY: with SA_SIGINFO the address is that of a function with three arguments.
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
        unsafe { std::mem::transmute(before.sa_sigaction) };
    handler(signal, info, context);
}

fn end_of_host() -> ! {
    // SAFETY: ends the process at once, with a code that tells of this place.
    unsafe { libc::_exit(86) }
}

#[derive(Clone, Copy)]
pub(crate) enum Host {
    WithDetails,
    NumberOnly,
    PassesOn,
}

/// Installs the program's handler in place of the present one.
pub(crate) fn install(host: Host) {
    // SAFETY: plain integers, for which zeros are valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    (action.sa_sigaction, action.sa_flags) = match host {
        Host::WithDetails => (with_details as *const () as usize, libc::SA_SIGINFO),
        Host::NumberOnly => (number_only as *const () as usize, 0),
        Host::PassesOn => (passes_on as *const () as usize, libc::SA_SIGINFO),
    };
    let mut before = MaybeUninit::uninit();
    // SAFETY: there is room for the action that is asked for.
    checked(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr()) });
    // SAFETY: the tests install from one thread, and no fault happens meanwhile.
    unsafe { *BEFORE.0.get() = before };
    // SAFETY: the handlers do only atomics, mmap and _exit.
    checked(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) });
}

/// Reads a missing page of the program's own mapping: unless its handler maps the page anew, this
/// does not return.
pub(crate) fn hosts_own_fault(dir: &Path) {
    let path = dir.join("host");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).expect("a file");
    file.set_len(mmf::page_size() as u64).expect("a page");
    let (size, sharing) = (mmf::page_size(), libc::MAP_SHARED);
    // SAFETY: a new mapping of the system's choosing.
    let page = unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_READ, sharing, file.as_raw_fd(), 0) };
    assert_ne!(page, libc::MAP_FAILED);
    file.set_len(0).expect("nothing");
    HOSTS.store(page.cast(), Ordering::SeqCst);
    // SAFETY: mapped, and the handler puts a page there if it is gone.
    let byte = unsafe { page.cast::<u8>().read_volatile() };
    assert_eq!(byte, 0);
    HOSTS.store(ptr::null_mut(), Ordering::SeqCst);
    // SAFETY: mapped above, and no code uses it any more.
    checked(unsafe { libc::munmap(page, size) });
}

/// Blocks `SIGBUS` for this thread.
pub(crate) fn block() {
    let mut mask = MaybeUninit::uninit();
    // SAFETY: there is room for the set.
    checked(unsafe { libc::sigemptyset(mask.as_mut_ptr()) });
    // SAFETY: sigemptyset has written it.
    checked(unsafe { libc::sigaddset(mask.as_mut_ptr(), libc::SIGBUS) });
    // SAFETY: a valid set; the old one is not asked for.
    assert_eq!(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, mask.as_ptr(), ptr::null_mut()) }, 0);
}

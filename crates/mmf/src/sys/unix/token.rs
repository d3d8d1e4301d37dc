//! Liveness tokens of participants: an exclusive open-file-description lock on a byte per slot.
//!
//! It is immune to reused process ids and to pid namespaces, and the system gives it up when the process is gone. A
//! forked child shares the description and would keep its parent's token, so a fork handler closes it there.

use std::cell::UnsafeCell;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rustix::io::Errno;

use super::object::Object;
use super::ofd;
use super::system;
use crate::error::Result;

/// One handle's tokens: its own, and those of the dead that it takes over for a moment.
pub(crate) struct Tokens {
    own: Description,
    /// A description apart, so that taking over one's own slot by mistake fails; one thread of the process at a time.
    reaper: Mutex<Description>,
}

impl Tokens {
    pub(crate) fn new(object: &Object, _id: &[u8; 16]) -> Result<Tokens> {
        let own = Description::new(object)?;
        let reaper = Mutex::new(Description::new(object)?);
        Ok(Tokens { own, reaper })
    }

    /// Takes the token of a slot for this handle's life; `false` where somebody has it.
    pub(crate) fn take(&self, slot: usize) -> Result<bool> {
        granted(ofd::lock_slot(self.own.as_fd(), slot))
    }

    /// Gives the token back.
    pub(crate) fn give(&self, slot: usize) {
        let _ = ofd::unlock_slot(self.own.as_fd(), slot);
    }

    /// Takes the second token of a slot until it is given back or this value is dropped; `false`
    /// where another has it.
    pub(crate) fn take_checked(&self, _object: &Object, slot: usize) -> Result<bool> {
        granted(ofd::lock_checked(self.own.as_fd(), slot))
    }

    /// Gives the second token back.
    pub(crate) fn give_checked(&self, slot: usize) {
        let _ = ofd::unlock_checked(self.own.as_fd(), slot);
    }

    /// Whether somebody else has the token of this slot.
    pub(crate) fn is_alive(&self, slot: usize) -> Result<bool> {
        let reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
        ofd::slot_is_locked(reaper.as_fd(), slot).map_err(system("probe"))
    }

    /// Takes over the token of a dead participant until the result is dropped; `None` where it is not dead, or another does
    /// so.
    pub(crate) fn seize(&self, slot: usize) -> Result<Option<Seized<'_>>> {
        let reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever may read the object can hold the byte shared for as long as it likes, and then nobody gets it
        // exclusively. To share it keeps everybody out of the slot as well, but for others who clear it.
        let fd = reaper.as_fd();
        let seized = granted(ofd::lock_slot(fd, slot))? || granted(ofd::share_slot(fd, slot))?;
        Ok(seized.then_some(Seized { reaper, slot }))
    }
}

/// Whether somebody has the token of a slot. Asked through the object's own description, which holds none: that takes no right
/// to write, and works in a forked child.
pub(crate) fn token_is_held(object: &Object, _id: &[u8; 16], slot: usize) -> Result<bool> {
    ofd::slot_is_locked(object.handle(), slot).map_err(system("probe"))
}

/// Whether somebody has the second token of any slot. Asked as [`token_is_held`].
pub(crate) fn a_checked_token_is_held(object: &Object, _id: &[u8; 16]) -> Result<bool> {
    ofd::any_checked_is_locked(object.handle()).map_err(system("probe"))
}

/// A dead participant's token, held while its slot is cleared.
pub(crate) struct Seized<'a> {
    reaper: MutexGuard<'a, Description>,
    slot: usize,
}

impl Drop for Seized<'_> {
    fn drop(&mut self) {
        let _ = ofd::unlock_slot(self.reaper.as_fd(), self.slot);
    }
}

fn granted(result: Result<(), Errno>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(system("hold")(errno)),
    }
}

/// A file description of one's own that no forked child keeps: the number, closed on drop unless a fork handler did.
struct Description(RawFd);

impl Description {
    fn new(object: &Object) -> Result<Description> {
        arm_fork_handlers();
        // Opened and listed under one lock, so that no fork comes in between.
        let mut open = open_descriptions();
        let fd = object.second_description()?.into_raw_fd();
        open.push(fd);
        Ok(Description(fd))
    }
}

impl AsFd for Description {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it was opened in `new` and is closed in `drop` or in a forked child, where every use fails before it
        // comes here, since the child's fork count differs from that of the handle.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        let mut open = open_descriptions();
        // Not there: the fork handler closed it in this process, and the number may be somebody else's by now.
        if let Some(at) = open.iter().position(|fd| *fd == self.0) {
            open.swap_remove(at);
            // SAFETY: it is open, and only this value would have closed it.
            drop(unsafe { OwnedFd::from_raw_fd(self.0) });
        }
    }
}

static OPEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
static FORKS: AtomicU32 = AtomicU32::new(0);

fn open_descriptions() -> MutexGuard<'static, Vec<RawFd>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many forks this process descends from, as far as its handlers were told. A handle made before the last one
/// belongs to another process.
#[inline]
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// As [`forks`], and counts from now on if nobody did.
pub(crate) fn watch_forks() -> u32 {
    arm_fork_handlers();
    forks()
}

/// The list's guard while a fork is under way.
struct Forking(UnsafeCell<Option<MutexGuard<'static, Vec<RawFd>>>>);

// SAFETY: touched by the fork handlers alone, and by those of one thread at a time: who has put a guard in holds the lock
// that the next one needs first.
unsafe impl Sync for Forking {}

static FORKING: Forking = Forking(UnsafeCell::new(None));

fn arm_fork_handlers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are functions that live as long as the program. In the child they call only what may be
        // called between `fork` and `exec`: atomics, `close`, and the release of a lock that the same thread took.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_child)) };
    });
}

extern "C" fn before() {
    let guard = open_descriptions();
    // SAFETY: this thread holds the lock, see `Forking`.
    unsafe { *FORKING.0.get() = Some(guard) };
}

extern "C" fn after() {
    // SAFETY: this thread holds the lock, see `Forking`.
    drop(unsafe { (*FORKING.0.get()).take() });
}

/// Closes this process's copies of its parent's tokens.
extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: this thread is the copy of the one that took the lock, see `Forking`.
    if let Some(mut open) = unsafe { (*FORKING.0.get()).take() } {
        for fd in open.drain(..) {
            // SAFETY: listed as open, and its owner's drop will not find it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

//! Liveness tokens of participants: an exclusive open-file-description lock on one byte for each
//! slot.
//!
//! # Problem
//!
//! A participant must detect that a peer process is dead, also across pid namespaces and users. A
//! process id does not suffice, since the system uses it again.
//!
//! # Algorithm
//!
//! 1. A handle opens a separate file description of the segment's file.
//! 2. To take a slot, it locks the byte of that slot exclusively, without waiting.
//! 3. To check whether a slot's owner lives, a peer queries whether another description has the
//!    byte locked exclusively (`F_OFD_GETLK`).
//! 4. To clear the slot of a dead owner, a peer locks the byte for that time (`seize`).
//!
//! Byte positions are defined in `ofd`.
//!
//! # Correctness
//!
//! The kernel releases the lock when the last copy of the description is closed, at the latest at
//! the end of the process. A forked child would keep a copy of its parent's description, and with
//! it the token. So a fork handler closes these descriptions in the child.
//!
//! # Cost
//!
//! One system call for each taking, giving, query and seizure. A seizure needs a second one if
//! another process shares the byte.

use std::cell::UnsafeCell;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::forks::{ForkGuard, ForkLock, Handlers};
use super::object::Object;
use super::ofd;
use super::system;
use crate::error::Result;

/// The tokens of one handle: its own, and those of dead participants that it seizes for a short
/// time. All are locks of one file description, so none conflicts with another.
pub(crate) struct LivenessTokens {
    own: Description,
    /// The slot that this handle has, or `NO_SLOT`. The kernel would grant a second lock on this
    /// slot, and releasing that lock would give the token up.
    taken: AtomicUsize,
    /// Held by the thread that checks the slots of other participants, or has one seized.
    reaping: Mutex<()>,
}

const NO_SLOT: usize = usize::MAX;

impl LivenessTokens {
    pub(crate) fn new(object: &Object, _id: &[u8; 16]) -> Result<LivenessTokens> {
        Ok(LivenessTokens { own: Description::new(object)?, taken: AtomicUsize::new(NO_SLOT), reaping: Mutex::new(()) })
    }

    /// Takes the token of a slot for this handle's life. Returns `false` if another handle has it.
    pub(crate) fn take(&self, slot: usize) -> Result<bool> {
        let taken = granted(ofd::lock_slot(self.own.as_fd(), slot))?;
        if taken {
            self.taken.store(slot, Ordering::Relaxed);
        }
        Ok(taken)
    }

    /// Gives the token back.
    pub(crate) fn give(&self, slot: usize) {
        self.taken.store(NO_SLOT, Ordering::Relaxed);
        let _ = ofd::unlock_slot(self.own.as_fd(), slot);
    }

    /// Takes the second token of a slot, until it is given back or this value is dropped. Returns
    /// `false` if another handle has it.
    pub(crate) fn take_checked(&self, _object: &Object, slot: usize) -> Result<bool> {
        granted(ofd::lock_checked(self.own.as_fd(), slot))
    }

    /// Gives the second token back.
    pub(crate) fn give_checked(&self, slot: usize) {
        let _ = ofd::unlock_checked(self.own.as_fd(), slot);
    }

    /// Returns whether another handle or this one has the token of this slot.
    pub(crate) fn is_alive(&self, slot: usize) -> Result<bool> {
        let _reaping = self.reaping();
        Ok(self.has(slot) || ofd::slot_is_locked(self.own.as_fd(), slot).map_err(system("probe"))?)
    }

    /// Takes over the token of a dead participant until the result is dropped. Returns `None` if
    /// the participant lives, or if another participant seizes its token.
    pub(crate) fn seize(&self, slot: usize) -> Result<Option<SeizedToken<'_>>> {
        let reaping = self.reaping();
        if self.has(slot) {
            return Ok(None);
        }
        // A process that may read the object can hold the byte shared without limit, and then no
        // exclusive lock is granted. A shared lock still keeps new owners out of the slot. It
        // admits only other participants that clear the slot.
        let fd = self.own.as_fd();
        let seized = granted(ofd::lock_slot(fd, slot))? || granted(ofd::share_slot(fd, slot))?;
        Ok(seized.then_some(SeizedToken { tokens: self, slot, _reaping: reaping }))
    }

    fn has(&self, slot: usize) -> bool {
        self.taken.load(Ordering::Relaxed) == slot
    }

    fn reaping(&self) -> MutexGuard<'_, ()> {
        self.reaping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether any handle has the token of a slot. Queries through the object's own
/// description, which holds no token. This needs no right to write, and works in a forked child.
pub(crate) fn is_token_held(object: &Object, _id: &[u8; 16], slot: usize) -> Result<bool> {
    ofd::slot_is_locked(object.handle(), slot).map_err(system("probe"))
}

/// Returns whether a process has the second token of any slot, by a query like that of
/// [`is_token_held`].
pub(crate) fn is_any_checked_token_held(object: &Object, _id: &[u8; 16]) -> Result<bool> {
    ofd::any_checked_is_locked(object.handle()).map_err(system("probe"))
}

/// The token of a dead participant, held while its slot is cleared.
pub(crate) struct SeizedToken<'a> {
    tokens: &'a LivenessTokens,
    slot: usize,
    /// Released last, after the drop has released the token.
    _reaping: MutexGuard<'a, ()>,
}

impl Drop for SeizedToken<'_> {
    fn drop(&mut self) {
        let _ = ofd::unlock_slot(self.tokens.own.as_fd(), self.slot);
    }
}

fn granted(result: Result<(), Errno>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(system("hold")(errno)),
    }
}

/// A separate file description that no forked child keeps. Dropping it closes the descriptor,
/// unless a fork handler already did.
struct Description(RawFd);

impl Description {
    fn new(object: &Object) -> Result<Description> {
        arm_fork_handlers();
        // Opens and lists the descriptor under one lock, so that no fork happens between.
        let mut open = open_descriptions();
        let fd = object.second_description()?.into_raw_fd();
        open.list().push(fd);
        Ok(Description(fd))
    }
}

impl AsFd for Description {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `new` opened it, and `drop` or a forked child closes it. In a forked child, every
        // use fails before it reaches this line, since the child's fork count differs from the
        // handle's.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        let mut open = open_descriptions();
        // If it is not listed, the fork handler closed it in this process, and the number may now
        // belong to another file.
        if let Some(at) = open.list().iter().position(|fd| *fd == self.0) {
            open.list().swap_remove(at);
            // SAFETY: it is open, and only this value would close it.
            drop(unsafe { OwnedFd::from_raw_fd(self.0) });
        }
    }
}

/// The descriptions that a forked child closes.
struct Open {
    lock: ForkLock,
    list: UnsafeCell<Vec<RawFd>>,
}

// SAFETY: only `Locked` and the fork handlers access the list, and each of them holds the lock.
unsafe impl Sync for Open {}

static OPEN: Open = Open { lock: ForkLock::new(), list: UnsafeCell::new(Vec::new()) };

/// The list, locked.
struct Locked {
    _guard: ForkGuard<'static>,
}

impl Locked {
    fn list(&mut self) -> &mut Vec<RawFd> {
        // SAFETY: this value holds the lock, and lends the list only while it is borrowed itself.
        unsafe { &mut *OPEN.list.get() }
    }
}

fn open_descriptions() -> Locked {
    let guard = OPEN.lock.lock();
    if guard.taken_over {
        // A fork began before the handlers were registered: this child has the list as another
        // thread was changing it. The descriptions stay open in this child. Its parent's handles do
        // not work here. SAFETY: this thread has the lock, and the old list is not read.
        unsafe { ptr::write(OPEN.list.get(), Vec::new()) };
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    Locked { _guard: guard }
}

static FORKS: AtomicU32 = AtomicU32::new(0);

/// Returns how many forks this process descends from, as counted by its fork handlers. A handle
/// made before the last fork belongs to another process.
#[inline]
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Returns the count of [`forks`], and counts all forks from this call on.
pub(crate) fn watch_forks() -> u32 {
    arm_fork_handlers();
    forks()
}

fn arm_fork_handlers() {
    static HANDLERS: Handlers = Handlers::new();
    // In the child, the handlers do only what is permitted between `fork` and `exec`: atomics and
    // `close`.
    HANDLERS.register(Some(before), Some(after), Some(in_child));
}

/// The thread that forks and so has the list locked, or 0. Each handler may be registered several
/// times: its first call does the work, and further calls find it done.
static FORKING: AtomicUsize = AtomicUsize::new(0);

/// Returns a number that identifies this thread within the process. A forked child of the thread
/// has the same number.
fn this_thread() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    // Without a destructor, so that it works until the thread ends.
    HERE.with(|here| ptr::from_ref(here).addr())
}

extern "C" fn before() {
    if FORKING.load(Ordering::Relaxed) != this_thread() {
        // `end` releases the lock.
        std::mem::forget(open_descriptions());
        FORKING.store(this_thread(), Ordering::Relaxed);
    }
}

extern "C" fn after() {
    if FORKING.load(Ordering::Relaxed) == this_thread() {
        end();
    }
}

/// Closes this process's copies of its parent's tokens.
extern "C" fn in_child() {
    if FORKING.load(Ordering::Relaxed) != this_thread() {
        return;
    }
    FORKS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: this thread is the copy of the thread that took the lock in `before`, and no other
    // thread runs.
    let list = unsafe { &mut *OPEN.list.get() };
    for fd in list.drain(..) {
        // SAFETY: it is listed as open, and its owner's drop will not find it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    end();
}

/// Releases the lock that `before` took.
fn end() {
    FORKING.store(0, Ordering::Relaxed);
    OPEN.lock.unlock();
}

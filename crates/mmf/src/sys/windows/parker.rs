//! Waking across processes: `WaitOnAddress` stops at a process's border, so each participant has an event that others set.
//!
//! An event that resets itself lets one through and remembers one wake-up, so that a dead or late
//! sleeper leaves no surplus. Where several threads of one participant sleep, one of them waits for
//! the event, and wakes the others.
//!
//! An event's name stays as long as any handle to it is open. So a process that has opened an event
//! keeps it for the slot's later owners, which find the same event under that name.

use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use windows_sys::Win32::Storage::FileSystem::SYNCHRONIZE;
use windows_sys::Win32::System::Threading::{EVENT_MODIFY_STATE, SetEvent, WaitForSingleObject};

use super::event::{self, EventUse, Existing};
use super::object::Object;

pub(crate) struct Parker {
    id: [u8; 16],
    own: OnceLock<(usize, OwnedHandle)>,
    /// Those of other slots, opened when they were first unparked.
    others: Vec<OnceLock<OwnedHandle>>,
    waits: Mutex<ThreadWaits>,
    told: Condvar,
}

/// What the threads of this participant tell each other.
#[derive(Default)]
struct ThreadWaits {
    /// Moved when all who sleep shall look again.
    generation: u64,
    /// Whether a thread waits for the event.
    listening: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ParkToken(u64);

/// Slots that a word of `unpark` has a bit for.
const SLOTS_PER_WORD: usize = 64;

impl Parker {
    pub(crate) fn new(id: &[u8; 16]) -> Parker {
        let others = (0..4 * SLOTS_PER_WORD).map(|_| OnceLock::new()).collect();
        Parker { id: *id, own: OnceLock::new(), others, waits: Mutex::default(), told: Condvar::new() }
    }

    /// Every process that may write the object may unpark.
    pub(crate) fn register(&self, object: &Object, slot: usize) {
        let path = event::path(&self.id, EventUse::Parker, slot);
        let made = object
            .unpark_rights()
            .map(|unpark_rights| event::make(&path, SYNCHRONIZE | EVENT_MODIFY_STATE, &unpark_rights, Existing::Open));
        if let Ok(Ok(event)) = made {
            let _ = self.own.set((slot, event));
        }
    }

    pub(crate) fn prepare(&self) -> ParkToken {
        ParkToken(self.waits().generation)
    }

    pub(crate) fn park(&self, _word: *const u32, _expected: u32, token: ParkToken, timeout: Duration) {
        let Some((_, event)) = self.own.get() else { return thread::sleep(timeout) };
        let mut waits = self.waits();
        if waits.generation != token.0 {
            return;
        }
        if waits.listening {
            let asleep = |waits: &mut ThreadWaits| waits.generation == token.0;
            drop(self.told.wait_timeout_while(waits, timeout, asleep));
            return;
        }
        waits.listening = true;
        drop(waits);
        // Rounded up, since a wait of nothing would be a poll.
        let milliseconds = u32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX - 1);
        // SAFETY: an open event, which stays so while `self` lives.
        unsafe { WaitForSingleObject(event.as_raw_handle(), milliseconds) };
        // Unparked or at its own end, it listens no longer: another has to.
        self.wake_threads(|waits| waits.listening = false);
    }

    pub(crate) fn unpark(&self, _word: *const u32, slots: [u64; 4]) {
        for (n, mut bits) in slots.into_iter().enumerate() {
            while bits != 0 {
                self.unpark_one(n * SLOTS_PER_WORD + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    fn unpark_one(&self, slot: usize) {
        match self.own.get() {
            // Of this process's own threads it is known whether they sleep.
            Some((own, event)) if *own == slot => {
                if self.wake_threads(|_| ()) {
                    set(event);
                }
            }
            _ => {
                let Some(other) = self.others.get(slot) else { return };
                if let Some(event) = other.get() {
                    return set(event);
                }
                // Where there is none its owner is dead, or could not make one.
                if let Ok(event) = event::open(&event::path(&self.id, EventUse::Parker, slot), EVENT_MODIFY_STATE) {
                    set(other.get_or_init(|| event));
                }
            }
        }
    }

    /// Lets the threads of this participant look again; whether one of them waits for the event.
    fn wake_threads(&self, change: impl FnOnce(&mut ThreadWaits)) -> bool {
        let mut waits = self.waits();
        change(&mut waits);
        waits.generation += 1;
        self.told.notify_all();
        waits.listening
    }

    fn waits(&self) -> MutexGuard<'_, ThreadWaits> {
        // No panic leaves it half changed.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set(event: &OwnedHandle) {
    // SAFETY: an open event. It can fail for one of another kind only, as an impostor makes it.
    unsafe { SetEvent(event.as_raw_handle()) };
}

//! Waking across processes: `WaitOnAddress` stops at a process's border, so each participant has an event that others set.
//!
//! An event that resets itself lets one through and remembers one ring, so that a dead or late sleeper leaves no
//! surplus. Where several threads of one participant sleep, one of them listens, and tells the others.
//!
//! A bell's name stays as long as any handle to it is open. So who has opened one keeps it for the slot's later owners too,
//! who find the same event under that name.

use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use windows_sys::Win32::Storage::FileSystem::SYNCHRONIZE;
use windows_sys::Win32::System::Threading::{EVENT_MODIFY_STATE, SetEvent, WaitForSingleObject};

use super::event::{self, Existing, Use};
use super::object::Object;

pub(crate) struct Bells {
    id: [u8; 16],
    own: OnceLock<(usize, OwnedHandle)>,
    /// Those of other slots, opened when they were first rung.
    others: Vec<OnceLock<OwnedHandle>>,
    inside: Mutex<Inside>,
    told: Condvar,
}

/// What the threads of this participant tell each other.
#[derive(Default)]
struct Inside {
    /// Moved when all who sleep shall look again.
    rings: u64,
    /// Whether a thread waits for the event.
    listening: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rings(u64);

/// Bells that a word of `ring` has a bit for.
const WORD: usize = 64;

impl Bells {
    pub(crate) fn new(id: &[u8; 16]) -> Bells {
        let others = (0..4 * WORD).map(|_| OnceLock::new()).collect();
        Bells { id: *id, own: OnceLock::new(), others, inside: Mutex::default(), told: Condvar::new() }
    }

    /// Whoever may write the object may ring.
    pub(crate) fn hang(&self, object: &Object, slot: usize) {
        let path = event::path(&self.id, Use::Bell, slot);
        let made = object
            .ringers()
            .map(|ringers| event::make(&path, SYNCHRONIZE | EVENT_MODIFY_STATE, &ringers, Existing::Open));
        if let Ok(Ok(event)) = made {
            let _ = self.own.set((slot, event));
        }
    }

    pub(crate) fn listen(&self) -> Rings {
        Rings(self.inside().rings)
    }

    pub(crate) fn sleep(&self, _word: *const u32, _expected: u32, rings: Rings, timeout: Duration) {
        let Some((_, event)) = self.own.get() else { return thread::sleep(timeout) };
        let mut inside = self.inside();
        if inside.rings != rings.0 {
            return;
        }
        if inside.listening {
            let asleep = |inside: &mut Inside| inside.rings == rings.0;
            drop(self.told.wait_timeout_while(inside, timeout, asleep));
            return;
        }
        inside.listening = true;
        drop(inside);
        // Rounded up, since a wait of nothing would be a poll.
        let milliseconds = u32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX - 1);
        // SAFETY: an open event, which stays so while `self` lives.
        unsafe { WaitForSingleObject(event.as_raw_handle(), milliseconds) };
        // Rung for or at its own end, it listens no longer: another has to.
        self.tell(|inside| inside.listening = false);
    }

    pub(crate) fn ring(&self, _word: *const u32, slots: [u64; 4]) {
        for (n, mut bits) in slots.into_iter().enumerate() {
            while bits != 0 {
                self.ring_one(n * WORD + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    fn ring_one(&self, slot: usize) {
        match self.own.get() {
            // Of this process's own threads it is known whether they sleep.
            Some((own, event)) if *own == slot => {
                if self.tell(|_| ()) {
                    set(event);
                }
            }
            _ => {
                let Some(bell) = self.others.get(slot) else { return };
                if let Some(event) = bell.get() {
                    return set(event);
                }
                // Where there is none its owner is dead, or could not make one.
                if let Ok(event) = event::open(&event::path(&self.id, Use::Bell, slot), EVENT_MODIFY_STATE) {
                    set(bell.get_or_init(|| event));
                }
            }
        }
    }

    /// Lets the threads of this participant look again; whether one of them waits for the event.
    fn tell(&self, change: impl FnOnce(&mut Inside)) -> bool {
        let mut inside = self.inside();
        change(&mut inside);
        inside.rings += 1;
        self.told.notify_all();
        inside.listening
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // No panic leaves it half changed.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set(event: &OwnedHandle) {
    // SAFETY: an open event. It can fail for one of another kind only, as an impostor makes it.
    unsafe { SetEvent(event.as_raw_handle()) };
}

//! Waking across processes: these systems let a process sleep on a word of shared memory, wherever
//! each has it mapped.

use std::time::Duration;

use super::object::Object;
use super::wait;

/// Has no data: the kernel finds sleepers by the address of the word.
pub(crate) struct Parker;

/// Nothing to remember: the word tells of wake-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParkToken;

impl Parker {
    pub(crate) fn new(_id: &[u8; 16]) -> Parker {
        Parker
    }

    pub(crate) fn register(&self, _object: &Object, _slot: usize) {}

    pub(crate) fn prepare(&self) -> ParkToken {
        ParkToken
    }

    /// A word that is gone wakes at once: its next load tells.
    pub(crate) fn park(&self, word: *const u32, expected: u32, _token: ParkToken, timeout: Duration) {
        wait::sleep(word, expected, timeout);
    }

    pub(crate) fn unpark(&self, word: *const u32, _slots: [u64; 4]) {
        wait::wake_all(word);
    }
}

//! Waking across processes: these systems let a process sleep on a word of shared memory, wherever each has it mapped.

use std::time::Duration;

use super::object::Object;
use super::wait;

/// Nothing to keep: the word itself is where the system finds those who sleep.
pub(crate) struct Bells;

/// Nothing to remember: the word tells of rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rings;

impl Bells {
    pub(crate) fn new(_id: &[u8; 16]) -> Bells {
        Bells
    }

    pub(crate) fn hang(&self, _object: &Object, _slot: usize) {}

    pub(crate) fn listen(&self) -> Rings {
        Rings
    }

    /// A word that is gone wakes at once: its next load tells.
    pub(crate) fn sleep(&self, word: *const u32, expected: u32, _rings: Rings, timeout: Duration) {
        wait::sleep(word, expected, timeout);
    }

    pub(crate) fn ring(&self, word: *const u32, _slots: [u64; 4]) {
        wait::wake_all(word);
    }
}

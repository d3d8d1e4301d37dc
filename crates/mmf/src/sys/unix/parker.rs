//! Wakes threads across processes. On these systems, a process can sleep on a word of shared memory
//! (a futex), wherever each process has it mapped.

use std::time::Duration;

use super::object::Object;
use super::wait;

/// Has no data: the kernel finds sleepers by the address of the word.
pub(crate) struct Parker;

/// Has no data: the word itself shows that a wake-up happened.
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

    /// Sleeps until the word is not `expected`, a peer wakes it, or the timeout ends. Returns at
    /// once if the word's page is gone, which the caller's next load reports.
    pub(crate) fn park(&self, word: *const u32, expected: u32, _token: ParkToken, timeout: Duration) {
        wait::sleep(word, expected, timeout);
    }

    pub(crate) fn unpark(&self, word: *const u32, _slots: [u64; 4]) {
        wait::wake_all(word);
    }
}

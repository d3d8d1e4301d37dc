//! Systems without a known way to sleep on a word of shared memory: it is looked at every millisecond by its owner.

use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(1);

pub(super) fn sleep(_word: *const u32, _expected: u32, timeout: Duration) {
    std::thread::sleep(timeout.min(PERIOD));
}

pub(super) fn wake_all(_word: *const u32) {}

//! Pauses between the attempts of an optimistic read.
//!
//! A reader without a lock copies, and then checks whether a writer changed the data meanwhile. If
//! so, it tries again:
//!
//! 1. The first [`SPINS`] pauses spin: most changes take less than a microsecond.
//! 2. The next [`YIELDS`] pauses let another thread run, since the writer may wait for a processor.
//! 3. Each later pause sleeps, at first for [`MIN_SLEEP`]. The sleep doubles up to
//!    [`MAX_SLEEP`] while the data stays the same, which means that one change takes long.
//!
//! The lock's waiters have another mechanism, `lock/backoff.rs`, since they sleep in the lock's
//! queue until a release wakes them, while no process wakes an optimistic reader, which may have no
//! write access and so no place in a queue.

use std::time::{Duration, Instant};

use super::Deadline;

const SPINS: u32 = 100;
const YIELDS: u32 = 100;
const MIN_SLEEP: Duration = Duration::from_micros(50);
const MAX_SLEEP: Duration = Duration::from_millis(5);

/// The attempts of one optimistic read.
pub(crate) struct Attempts {
    deadline: Option<Instant>,
    failed: u32,
    sleep: Duration,
}

impl Attempts {
    /// Allows attempts until then. A duration starts now.
    pub(crate) fn new(until: Deadline) -> Attempts {
        Attempts { deadline: until.instant(), failed: 0, sleep: MIN_SLEEP }
    }

    /// Pauses after a failed attempt. Returns false, without a pause, once the deadline has passed.
    /// `changed`: whether the data has changed since the last attempt.
    pub(crate) fn pause(&mut self, changed: bool) -> bool {
        let left = self.left();
        if left.is_zero() {
            return false;
        }
        self.failed = self.failed.saturating_add(1);
        if self.failed <= SPINS {
            std::hint::spin_loop();
        } else if self.failed <= SPINS + YIELDS {
            std::thread::yield_now();
        } else {
            self.sleep = if changed { MIN_SLEEP } else { (self.sleep * 2).min(MAX_SLEEP) };
            std::thread::sleep(self.sleep.min(left));
        }
        true
    }

    /// Whether the next pause sleeps, or the deadline has passed: the writer may be dead.
    pub(crate) fn are_many(&self) -> bool {
        self.failed >= SPINS + YIELDS || self.left().is_zero()
    }

    fn left(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Attempts that failed so far.
    #[cfg(test)]
    pub(crate) fn failed(&self) -> u32 {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_get_longer_while_nothing_changes_and_end_with_the_deadline() {
        let mut attempts = Attempts::new(Deadline::After(Duration::from_millis(60)));
        let mut pauses = 0;
        while attempts.pause(false) {
            pauses += 1;
        }
        assert!(attempts.are_many() && attempts.failed() == pauses);
        // Sleeps of 0.1, 0.2, ... 3.2 ms, and of 5 ms from then on.
        assert!(pauses <= SPINS + YIELDS + 6 + 11, "{pauses} pauses");
    }

    #[test]
    fn an_attempt_without_time_has_no_pause() {
        let mut attempts = Attempts::new(Deadline::Now);
        assert!(attempts.are_many() && !attempts.pause(true));
    }
}

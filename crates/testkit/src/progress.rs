//! Tells a process that works, however slowly, from one that hangs.

use std::time::Duration;

use crate::sys;

/// What a process had done when it was looked at last.
#[derive(Debug)]
pub(crate) struct Progress {
    process: u32,
    written: usize,
    /// The processor time of the process and its descendants: now, and when it wrote last.
    used: Duration,
    used_at_write: Duration,
}

impl Progress {
    /// Begins to watch a process that has written so many bytes.
    pub(crate) fn of(process: u32, written: usize) -> Progress {
        let used = sys::processor_time(process);
        Progress { process, written, used, used_at_write: used }
    }

    /// Whether the process made progress since the last look, about half of `limit` ago: it wrote,
    /// or it used 0.2 % of `limit` in processor time, and less than five times `limit` since it
    /// wrote last. On a machine with a load of 100, a process still gets 1 % of a processor.
    pub(crate) fn goes_on(&mut self, written: usize, limit: Duration) -> bool {
        let now = sys::processor_time(self.process);
        // A child that ends takes its time along, so the sum can become smaller.
        let worked = now.abs_diff(self.used) >= limit / 500 && now.abs_diff(self.used_at_write) < limit * 5;
        let wrote = written != self.written;
        if wrote {
            (self.written, self.used_at_write) = (written, now);
        }
        self.used = now;
        wrote || worked
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::Progress;

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn a_process_that_computes_or_writes_makes_progress_and_one_that_sleeps_does_not() {
        // A child of this process that sleeps, and a descendant that computes.
        let start = |script: &str| {
            Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a shell")
        };
        let mut asleep = start("read line");
        let mut busy = start("sh -c 'while :; do :; done' & read line; kill $!");
        std::thread::sleep(Duration::from_millis(50));
        let (mut rests, mut works) = (Progress::of(asleep.id(), 0), Progress::of(busy.id(), 0));
        // However little of a busy machine the loop gets.
        let began = Instant::now();
        while !works.goes_on(0, LIMIT) {
            assert!(began.elapsed() < Duration::from_secs(60), "a loop uses no processor");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!rests.goes_on(0, LIMIT));
        assert!(rests.goes_on(1, LIMIT));
        assert!(!rests.goes_on(1, LIMIT));
        // Its processor time ends at some point.
        let mut spent = Progress { used_at_write: Duration::ZERO, ..Progress::of(busy.id(), 0) };
        assert!(!spent.goes_on(0, Duration::from_millis(1)));
        for child in [&mut asleep, &mut busy] {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

//! Nobody is inside with a writer, and nobody sleeps for ever though each sleep has no bound: whoever leaves wakes whoever
//! waits.

use super::*;

const BOTH: [Bell; 2] = [Bell::Futex, Bell::Event];

fn endless(bell: Bell, preemptions: usize) -> Bounds {
    Bounds { bell, timeouts: 0, preemptions }
}

/// Each thread takes the lock in this way, as a participant of its own, that often.
pub(super) fn all(bounds: Bounds, kinds: &'static [fn(&Segment, usize, &Data)], times: usize) {
    check(bounds, move |segment| {
        let data = Data::new();
        occupy(&segment, 0..kinds.len());
        let threads: Vec<_> = (kinds.iter().enumerate())
            .map(|(slot, lock)| {
                let (segment, data) = (Arc::clone(&segment), Arc::clone(&data));
                process(slot, move || (0..times).for_each(|_| lock(&segment, slot, &data)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn two_writers() {
    BOTH.iter().for_each(|bell| all(endless(*bell, 3), &[write, write], 1));
}

#[test]
fn two_writers_twice() {
    BOTH.iter().for_each(|bell| all(endless(*bell, 2), &[write, write], 2));
}

#[test]
fn a_writer_and_a_reader() {
    BOTH.iter().for_each(|bell| all(endless(*bell, 3), &[write, read], 1));
}

#[test]
fn three_writers() {
    BOTH.iter().for_each(|bell| all(endless(*bell, 2), &[write, write, write], 1));
}

#[test]
fn a_writer_and_two_readers() {
    BOTH.iter().for_each(|bell| all(endless(*bell, 2), &[write, read, read], 1));
}

#[test]
fn two_writers_and_a_reader() {
    BOTH.iter().for_each(|bell| all(endless(*bell, 2), &[write, write, read], 1));
}

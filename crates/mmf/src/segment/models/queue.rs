//! A writer that makes a change wakes the waiters for a change. The sleeps have no bound.

use super::*;

const BOTH: [ParkerKind; 2] = [ParkerKind::Futex, ParkerKind::Event];

fn endless(parker: ParkerKind, preemptions: usize) -> Bounds {
    Bounds { parker, timeouts: 0, preemptions }
}

/// Waits until the version is `least` or more.
fn wait_for(segment: &Segment, least: u64) {
    let version = || Ok((segment.container.version.load().unwrap() & !1 >= least).then_some(()));
    assert!(segment.wait_for_change(None, "model", version).unwrap().is_some());
}

/// As many sleepers as numbers, each until the version is that; a writer with slot 3 changes it.
fn woken_by(bounds: Bounds, until: &'static [u64], changes: usize) {
    check(bounds, move |handles| {
        attach(handles, MODEL_SLOTS);
        let sleepers: Vec<_> = (until.iter().enumerate())
            .map(|(slot, until)| process(&handles[slot], slot, move |segment| wait_for(segment, *until)))
            .collect();
        model::become_process(3, None);
        (0..changes).for_each(|_| change_something(&handles[3]));
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
    });
}

fn change_something(segment: &Segment) {
    let (_lock, _) = lock_write(segment, Deadline::Never).unwrap();
    segment.begin_change().unwrap();
}

#[test]
fn a_sleeper_and_a_writer() {
    BOTH.iter().for_each(|parker| woken_by(endless(*parker, 4), &[2], 1));
}

#[test]
fn two_sleepers_and_a_writer() {
    BOTH.iter().for_each(|parker| woken_by(endless(*parker, 2), &[2, 2], 1));
}

#[test]
fn sleepers_for_one_change_and_for_two() {
    BOTH.iter().for_each(|parker| woken_by(endless(*parker, 2), &[2, 4], 2));
}

/// Two wake-ups, one after the other: one may have cleared the flag that the other loads.
#[test]
fn two_writers() {
    BOTH.iter().for_each(|parker| {
        check(endless(*parker, 2), |handles| {
            attach(handles, MODEL_SLOTS);
            let sleeper = process(&handles[0], 0, |segment| wait_for(segment, 4));
            let writer = process(&handles[1], 1, change_something);
            model::become_process(3, None);
            change_something(&handles[3]);
            writer.join().unwrap();
            sleeper.join().unwrap();
        });
    });
}

/// A writer died in the middle of a change; the process that clears its slot ends the change, and
/// wakes a waiter for it.
#[test]
fn a_reaper_wakes_who_waits_for_a_change() {
    BOTH.iter().for_each(|parker| {
        check(endless(*parker, 3), |handles| {
            attach(handles, 3);
            model::become_process(0, None);
            std::mem::forget(lock_write(&handles[0], Deadline::Now).unwrap());
            handles[0].begin_change().unwrap();
            model::end_process();
            let sleeper = process(&handles[2], 2, |segment| wait_for(segment, 2));
            model::become_process(1, None);
            assert!(reap(&handles[1], 0));
            sleeper.join().unwrap();
        });
    });
}

/// A reaper wakes a waiter for the dead writer's lock. The waiter's sleeps have no bound, so it does
/// not check by itself whether the holder is alive.
#[test]
fn a_reaper_wakes_who_waits_for_the_lock() {
    BOTH.iter().for_each(|parker| {
        check(endless(*parker, 3), |handles| {
            attach(handles, 3);
            model::become_process(0, None);
            std::mem::forget(lock_write(&handles[0], Deadline::Now).unwrap());
            model::end_process();
            let waiter = process(&handles[2], 2, |segment| drop(lock_write(segment, Deadline::Never).unwrap()));
            model::become_process(1, None);
            assert!(reap(&handles[1], 0));
            waiter.join().unwrap();
        });
    });
}

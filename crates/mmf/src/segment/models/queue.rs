//! Who sleeps until something changes is woken by whoever changes it. The sleeps have no bound.

use super::death::attach;
use super::*;

const BOTH: [Bell; 2] = [Bell::Futex, Bell::Event];

fn endless(bell: Bell, preemptions: usize) -> Bounds {
    Bounds { bell, timeouts: 0, preemptions }
}

/// Sleeps as slot `me` until the version is `least` or more.
fn wait_for(segment: &Segment, me: usize, least: u64) {
    loop {
        let ticket = segment.changes.ticket(me).unwrap();
        if segment.version.load().unwrap() & !1 >= least {
            return;
        }
        segment.changes.sleep(ticket, std::time::Duration::from_millis(50));
    }
}

/// As many sleepers as numbers, each until the version is that; the body changes it as slot 3.
fn woken_by(bounds: Bounds, until: &'static [u64], change: fn(&Segment)) {
    check(bounds, move |segment| {
        occupy(&segment, 0..SLOTS);
        let sleepers: Vec<_> = (until.iter().enumerate())
            .map(|(slot, until)| {
                let segment = Arc::clone(&segment);
                process(slot, move || wait_for(&segment, slot, *until))
            })
            .collect();
        model::become_process(3, None);
        change(&segment);
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
    });
}

fn add_and_wake(segment: &Segment) {
    segment.version.add(2).unwrap();
    segment.changes.wake_all().unwrap();
}

fn write_something(segment: &Segment) {
    segment.lock.write(3, Until::Forever, &nobody).unwrap();
    segment.begin_change(3).unwrap();
    segment.write_unlock(3, Change::Whole).unwrap();
}

#[test]
fn two_sleepers_and_a_waker() {
    BOTH.iter().for_each(|bell| woken_by(endless(*bell, 3), &[2, 2], add_and_wake));
}

#[test]
fn sleepers_for_one_change_and_for_two() {
    BOTH.iter().for_each(|bell| {
        woken_by(endless(*bell, 2), &[2, 4], |segment| {
            add_and_wake(segment);
            add_and_wake(segment);
        });
    });
}

/// Two wake at once: one may have cleared the flag that the other looks at.
#[test]
fn two_wakers() {
    BOTH.iter().for_each(|bell| {
        check(endless(*bell, 2), |segment| {
            occupy(&segment, 0..SLOTS);
            let sleeper = process(0, {
                let segment = Arc::clone(&segment);
                move || wait_for(&segment, 0, 4)
            });
            let waker = process(1, {
                let segment = Arc::clone(&segment);
                move || add_and_wake(&segment)
            });
            model::become_process(3, None);
            add_and_wake(&segment);
            waker.join().unwrap();
            sleeper.join().unwrap();
        });
    });
}

#[test]
fn a_writer_wakes_who_waits_for_a_change() {
    BOTH.iter().for_each(|bell| woken_by(endless(*bell, 3), &[2], write_something));
    woken_by(endless(Bell::Futex, 2), &[2, 2], write_something);
}

/// A writer died in the middle of a change; who clears its slot ends the change, and wakes who waits for that.
#[test]
fn a_reaper_wakes_who_waits_for_a_change() {
    BOTH.iter().for_each(|bell| {
        check(endless(*bell, 3), |segment| {
            let all = attach(&segment, 2);
            model::become_process(0, None);
            segment.lock.write(0, Until::Now, &nobody).unwrap();
            segment.begin_change(0).unwrap();
            model::bury();
            let sleeper = process(2, {
                let segment = Arc::clone(&segment);
                move || wait_for(&segment, 2, 2)
            });
            model::become_process(1, None);
            assert!(participants::reap(&segment, &all[1], 0).unwrap());
            sleeper.join().unwrap();
        });
    });
}

//! HURRY lets who has waited long go first, and wedges nobody: not while its setter lives, nor when its setter has given up.

use std::time::Duration;

use super::exclusion::all;
use super::*;

/// Each thread's first sleep ends at its bound, so that its wait has become long and it sets HURRY; then only a wake-up helps.
fn long(preemptions: usize) -> Bounds {
    Bounds { bell: Bell::Futex, timeouts: 1, preemptions }
}

#[test]
fn writers_that_have_waited_long() {
    all(long(2), &[write, write, write], 1);
}

#[test]
fn a_writer_and_a_reader_that_have_waited_long() {
    all(long(3), &[write, read], 2);
}

#[test]
fn readers_that_have_waited_long() {
    all(long(1), &[write, read, read], 1);
}

/// Who set it gave up. One who waits passes it when its own wait has become long, and one who only tries finds the lock open
/// at the latest when it tries once more than there are sleepers to be woken first.
#[test]
fn the_setter_gives_up() {
    let bounds = Bounds { bell: Bell::Futex, timeouts: 3, preemptions: 2 };
    check(bounds, |segment| {
        let data = Data::new();
        occupy(&segment, 0..4);
        assert!(!segment.lock.write(0, Until::Now, &nobody).unwrap().poisoned);
        let gives_up = process(1, {
            let (segment, data) = (Arc::clone(&segment), Arc::clone(&data));
            move || match segment.lock.write(1, Until::After(Duration::from_millis(2)), &nobody) {
                Ok(_) => {
                    data.change();
                    segment.write_unlock(1, Change::None).unwrap();
                }
                Err(refused) => {
                    assert!(matches!(refused, Refused::Timeout { .. }));
                    model::time_passes();
                }
            }
        });
        let waits = process(2, {
            let (segment, data) = (Arc::clone(&segment), Arc::clone(&data));
            move || read(&segment, 2, &data)
        });
        data.change();
        segment.write_unlock(0, Change::None).unwrap();
        gives_up.join().unwrap();
        waits.join().unwrap();
        model::become_process(3, None);
        let tries = (0..2).position(|_| segment.lock.write(3, Until::Now, &nobody).is_ok());
        assert!(tries.is_some(), "nobody is left, and the lock is closed");
        data.change();
        segment.write_unlock(3, Change::None).unwrap();
    });
}

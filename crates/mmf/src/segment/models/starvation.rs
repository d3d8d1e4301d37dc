//! STARVED lets a waiter of more than 1 ms go first, and blocks no participant for ever: neither
//! while its setter lives, nor after its setter has given up.

use std::time::Duration;

use super::exclusion::all;
use super::*;

/// Each thread's first sleep ends at its bound, so that its wait has become long and it sets
/// STARVED; then only a wake-up helps.
fn long(preemptions: usize) -> Bounds {
    Bounds { parker: ParkerKind::Futex, timeouts: 1, preemptions }
}

#[test]
fn writers_that_have_waited_long() {
    all(long(2), &[(0, write), (1, write), (2, write)], 1);
}

#[test]
fn a_writer_and_a_reader_that_have_waited_long() {
    all(long(2), &[(0, write), (1, read)], 2);
}

#[test]
fn a_writer_and_readers_that_have_waited_long() {
    all(long(2), &[(0, write), (1, read), (2, read)], 1);
}

/// Who set it gave up. One who waits passes it when its own wait has become long, and one who only tries finds the lock open
/// at the latest when it tries once more than there are sleepers to be woken first.
#[test]
fn the_setter_gives_up() {
    let bounds = Bounds { parker: ParkerKind::Futex, timeouts: 3, preemptions: 2 };
    check(bounds, |handles| {
        let data = Data::new();
        attach(handles, 4);
        model::become_process(0, None);
        let (lock, acquired) = lock_write(&handles[0], Deadline::Now).unwrap();
        assert!(!acquired.poisoned);
        let gives_up = process(&handles[1], 1, {
            let data = Arc::clone(&data);
            move |segment| match lock_write(segment, Deadline::After(Duration::from_millis(2))) {
                Ok((_lock, _)) => data.change(),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Timeout { .. }));
                    model::time_passes();
                }
            }
        });
        let waits = process(&handles[2], 2, {
            let data = Arc::clone(&data);
            move |segment| read(segment, &data)
        });
        data.change();
        drop(lock);
        gives_up.join().unwrap();
        waits.join().unwrap();
        model::become_process(3, None);
        let lock = (0..2).find_map(|_| lock_write(&handles[3], Deadline::Now).ok());
        assert!(lock.is_some(), "no participant is left, and the lock is closed");
        data.change();
    });
}

//! Nobody is inside with a writer, and nobody sleeps for ever though each sleep has no bound: whoever leaves wakes whoever
//! waits.

use super::*;

const BOTH: [ParkerKind; 2] = [ParkerKind::Futex, ParkerKind::Event];

fn endless(parker: ParkerKind, preemptions: usize) -> Bounds {
    Bounds { parker, timeouts: 0, preemptions }
}

type Use = fn(&Segment, &Data);

/// Each thread takes the lock in this way that often, as a participant of its own with that slot.
pub(super) fn all(bounds: Bounds, kinds: &'static [(usize, Use)], times: usize) {
    check(bounds, move |handles| {
        let data = Data::new();
        kinds.iter().zip(handles).for_each(|((slot, _), handle)| attach_as(handle, *slot));
        let threads: Vec<_> = (kinds.iter().zip(handles))
            .map(|((slot, lock), handle)| {
                let data = Arc::clone(&data);
                process(handle, *slot, move |segment| (0..times).for_each(|_| lock(segment, &data)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn two_writers() {
    BOTH.iter().for_each(|parker| all(endless(*parker, 4), &[(0, write), (1, write)], 1));
}

#[test]
fn two_writers_twice() {
    BOTH.iter().for_each(|parker| all(endless(*parker, 3), &[(0, write), (1, write)], 2));
}

#[test]
fn a_writer_and_a_reader() {
    BOTH.iter().for_each(|parker| all(endless(*parker, 3), &[(0, write), (1, read)], 1));
}

#[test]
fn a_writer_and_a_reader_twice() {
    all(endless(ParkerKind::Futex, 2), &[(0, write), (1, read)], 2);
}

#[test]
fn three_writers() {
    BOTH.iter().for_each(|parker| all(endless(*parker, 2), &[(0, write), (1, write), (2, write)], 1));
}

#[test]
fn a_writer_and_two_readers() {
    all(endless(ParkerKind::Futex, 2), &[(0, write), (1, read), (2, read)], 1);
}

/// Their bits of READERS differ.
#[test]
fn a_writer_and_readers_far_apart() {
    all(endless(ParkerKind::Futex, 2), &[(0, write), (1, read), (FAR, read)], 1);
}

#[test]
fn two_writers_and_a_reader() {
    all(endless(ParkerKind::Futex, 2), &[(0, write), (1, write), (2, read)], 1);
}

/// Two threads of one process share a count.
#[test]
fn a_writer_and_two_readers_of_one_process() {
    check(endless(ParkerKind::Futex, 2), |handles| {
        let data = Data::new();
        attach(handles, 2);
        let reader = || {
            let data = Arc::clone(&data);
            process(&handles[1], 1, move |segment| read(segment, &data))
        };
        let readers = [reader(), reader()];
        model::become_process(0, None);
        write(&handles[0], &data);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

/// A writer that waits for a reader gives up, and the next one has to wait for the same reader.
#[test]
fn a_writer_gives_up_before_another() {
    let bounds = Bounds { parker: ParkerKind::Futex, timeouts: 2, preemptions: 2 };
    check(bounds, |handles| {
        let data = Data::new();
        attach(handles, 3);
        model::become_process(0, None);
        let (reader, _) = lock_read(&handles[0], Deadline::Now).unwrap();
        let gives_up = process(&handles[1], 1, {
            let data = Arc::clone(&data);
            move |segment| {
                if let Ok((_lock, _)) = lock_write(segment, Deadline::Now) {
                    data.change();
                }
            }
        });
        let waits = process(&handles[2], 2, {
            let data = Arc::clone(&data);
            move |segment| write(segment, &data)
        });
        data.look();
        drop(reader);
        gives_up.join().unwrap();
        waits.join().unwrap();
    });
}

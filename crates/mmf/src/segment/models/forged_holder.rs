//! A handle takes out of shared memory what names it and none of its threads holds, and nothing
//! else: `lock/threads.rs` has the proof. All threads here are one process's, with one handle and
//! one slot.

use super::*;
use crate::lock::LockMode;

fn bounds(timeouts: u32, preemptions: usize) -> Bounds {
    Bounds { parker: ParkerKind::Futex, timeouts, preemptions }
}

fn check_both(bounds: Bounds, model: impl Fn(&[Arc<Segment>; MODEL_SLOTS]) + Copy + Send + Sync + 'static) {
    check_with(Loads::Old, bounds, true, model);
    check_with(Loads::Latest, bounds, true, model);
}

/// Locks and does what that is for.
fn lock(segment: &Segment, mode: LockMode, until: Deadline, data: &Data) {
    let locked = match mode {
        LockMode::Write => lock_write(segment, until).map(|(_lock, acquired)| {
            assert!(!acquired.poisoned);
            data.change();
        }),
        LockMode::Read => lock_read(segment, until).map(|(_lock, acquired)| {
            assert!(!acquired.poisoned);
            data.look();
        }),
    };
    if let Err(error) = locked {
        assert!(matches!((error.kind(), until), (ErrorKind::Timeout { .. }, Deadline::After(_))));
    }
    // What waits for a forged holder is woken by nothing but the bounds of its sleeps.
    model::time_passes();
}

/// Some threads of one handle, each of which locks once; `forge` comes before.
fn threads(bounds: Bounds, until: Deadline, forge: fn(&Segment), kinds: &'static [LockMode]) {
    check_both(bounds, move |handles| {
        let data = Data::new();
        let segment = &handles[0];
        attach(handles, 1);
        forge(segment);
        let (first, others) = kinds.split_first().unwrap();
        let others: Vec<_> = (others.iter())
            .map(|mode| {
                let data = Arc::clone(&data);
                process(segment, 0, move |segment| lock(segment, *mode, until, &data))
            })
            .collect();
        lock(segment, *first, until, &data);
        others.into_iter().for_each(|thread| thread.join().unwrap());
        if matches!(until, Deadline::Never) {
            assert_eq!(segment.lock.writer(), Ok(None));
            assert_eq!(model::peek::<u32>(layout::slot(0, at::SLOT_READERS)), 0);
        }
    });
}

fn nothing(_: &Segment) {}

fn writer(segment: &Segment) {
    segment.lock.record_holder(segment.slot_handle().unwrap(), true).unwrap();
}

/// With the bit of READERS that a reader sets.
fn reader(segment: &Segment) {
    assert!(segment.lock.try_read(segment.slot_handle().unwrap()).unwrap().is_some());
}

/// A wait that ends, since each of its sleeps may be in vain: a check gives up where another thread
/// ends a use, or checks.
const SHORT: Deadline = Deadline::After(std::time::Duration::from_millis(3));

#[test]
fn a_forged_writer_is_taken_out() {
    threads(bounds(4, 1), Deadline::Never, writer, &[LockMode::Write, LockMode::Write]);
    threads(bounds(4, 1), Deadline::Never, writer, &[LockMode::Write, LockMode::Read]);
}

#[test]
fn forged_readers_are_taken_out() {
    threads(bounds(4, 1), Deadline::Never, reader, &[LockMode::Write, LockMode::Read]);
}

#[test]
fn beside_a_forged_writer_what_a_thread_holds_stays() {
    threads(bounds(3, 2), SHORT, writer, &[LockMode::Write, LockMode::Write]);
    threads(bounds(3, 2), SHORT, writer, &[LockMode::Write, LockMode::Read]);
}

#[test]
fn beside_forged_readers_what_a_thread_holds_stays() {
    threads(bounds(3, 2), SHORT, reader, &[LockMode::Write, LockMode::Read]);
}

#[test]
fn what_a_thread_holds_stays() {
    threads(bounds(4, 2), Deadline::Never, nothing, &[LockMode::Write, LockMode::Write]);
    threads(bounds(1, 2), Deadline::Never, nothing, &[LockMode::Write, LockMode::Write, LockMode::Write]);
}

/// A thread gives the lock back and takes it again while another thread checks the handle.
#[test]
fn what_a_thread_takes_again_stays() {
    takes_again(LockMode::Write);
    takes_again(LockMode::Read);
}

fn takes_again(mode: LockMode) {
    check_both(bounds(0, 3), move |handles| {
        let segment = &handles[0];
        attach(handles, 1);
        let take = || match mode {
            LockMode::Write => (Some(lock_write(segment, Deadline::Now).unwrap()), None),
            LockMode::Read => (None, Some(lock_read(segment, Deadline::Now).unwrap())),
        };
        let held = take();
        let checker = process(segment, 0, |segment| {
            assert!(!participants::disown(segment, segment.slot_handle().unwrap()).unwrap());
        });
        drop(held);
        let held = take();
        checker.join().unwrap();
        let holds = match mode {
            LockMode::Write => segment.lock.writer() == Ok(Some(0)),
            LockMode::Read => model::peek::<u32>(layout::slot(0, at::SLOT_READERS)) == 1,
        };
        assert!(holds);
        drop(held);
    });
}

#[test]
fn what_a_reader_holds_stays() {
    threads(bounds(4, 2), Deadline::Never, nothing, &[LockMode::Write, LockMode::Read]);
    threads(bounds(1, 2), Deadline::Never, nothing, &[LockMode::Write, LockMode::Read, LockMode::Read]);
}

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

/// As a guard: the thread uses the lock from before its attempt until after the release.
fn lock(segment: &Segment, me: &SlotHandle, mode: LockMode, until: Deadline, data: &Data) {
    let reap = |_| Ok(participants::disown(segment, me).unwrap());
    segment.lock.resume(mode);
    let locked = match mode {
        LockMode::Write => lock_write(segment, me, until, &reap),
        LockMode::Read => lock_read(segment, me, until, &reap),
    };
    match (locked, mode) {
        (Ok(held), LockMode::Write) => {
            assert!(!held.poisoned);
            data.change();
            unlock_write(segment, me).unwrap();
        }
        (Ok(held), LockMode::Read) => {
            assert!(!held.poisoned);
            data.look();
            segment.lock.unlock_read(me).unwrap();
        }
        (Err(failure), _) => assert!(matches!((failure, until), (LockFailure::Timeout { .. }, Deadline::After(_)))),
    }
    segment.lock.pause();
    // What waits for a forged holder is woken by nothing but the bounds of its sleeps.
    model::time_passes();
}

/// Some threads of one handle, each of which locks once; `forge` comes before.
fn threads(bounds: Bounds, until: Deadline, forge: fn(&Segment, &SlotHandle), kinds: &'static [LockMode]) {
    check_both(bounds, move |handles| {
        let data = Data::new();
        let segment = &handles[0];
        occupy(segment, 0..1);
        let me = segment.lock.readers().slot_handle(0).unwrap();
        model::become_process(0, None);
        forge(segment, &me);
        let (first, others) = kinds.split_first().unwrap();
        let others: Vec<_> = (others.iter())
            .map(|mode| {
                let data = Arc::clone(&data);
                process(segment, 0, move |segment, me| lock(segment, me, *mode, until, &data))
            })
            .collect();
        lock(segment, &me, *first, until, &data);
        others.into_iter().for_each(|thread| thread.join().unwrap());
        if matches!(until, Deadline::Never) {
            assert_eq!(segment.lock.writer(), Ok(None));
            assert_eq!(model::peek::<u32>(layout::slot(0, at::SLOT_READERS)), 0);
        }
    });
}

fn nothing(_: &Segment, _: &SlotHandle) {}

fn writer(segment: &Segment, me: &SlotHandle) {
    segment.lock.record_holder(me, true).unwrap();
}

/// With the bit of READERS that a reader sets.
fn reader(segment: &Segment, me: &SlotHandle) {
    assert!(segment.lock.try_read(me).unwrap().is_some());
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
        occupy(segment, 0..1);
        let me = segment.lock.readers().slot_handle(0).unwrap();
        model::become_process(0, None);
        let take = || {
            segment.lock.resume(mode);
            match mode {
                LockMode::Write => assert!(segment.lock.try_write(&me).unwrap()),
                LockMode::Read => assert!(segment.lock.try_read(&me).unwrap().is_some()),
            }
        };
        let give_back = || {
            match mode {
                LockMode::Write => unlock_write(segment, &me).unwrap(),
                LockMode::Read => segment.lock.unlock_read(&me).unwrap(),
            }
            segment.lock.pause();
        };
        take();
        let checker = process(segment, 0, |segment, me| assert!(!participants::disown(segment, me).unwrap()));
        give_back();
        take();
        checker.join().unwrap();
        let holds = match mode {
            LockMode::Write => segment.lock.writer() == Ok(Some(0)),
            LockMode::Read => model::peek::<u32>(layout::slot(0, at::SLOT_READERS)) == 1,
        };
        assert!(holds);
        give_back();
    });
}

#[test]
fn what_a_reader_holds_stays() {
    threads(bounds(4, 2), Deadline::Never, nothing, &[LockMode::Write, LockMode::Read]);
    threads(bounds(1, 2), Deadline::Never, nothing, &[LockMode::Write, LockMode::Read, LockMode::Read]);
}

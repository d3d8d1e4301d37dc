//! A handle takes out of shared memory what names it and none of its threads holds, and nothing
//! else: `lock/threads.rs` has the proof. All threads here are one process's, with one handle and
//! one slot.

use super::*;
use crate::lock::Mode;

fn bounds(timeouts: u32, preemptions: usize) -> Bounds {
    Bounds { bell: Bell::Futex, timeouts, preemptions }
}

fn check_both(bounds: Bounds, model: impl Fn(&[Arc<Segment>; SLOTS]) + Copy + Send + Sync + 'static) {
    check_with(Loads::Old, bounds, true, model);
    check_with(Loads::Latest, bounds, true, model);
}

/// As a guard: the thread uses the lock from before its attempt until after the release.
fn lock(segment: &Segment, me: &Seat, mode: Mode, until: Until, data: &Data) {
    let reap = |_| Ok(participants::disown(segment, me).unwrap());
    segment.lock.resume(mode);
    let locked = match mode {
        Mode::Write => lock_write(segment, me, until, &reap),
        Mode::Read => lock_read(segment, me, until, &reap),
    };
    match (locked, mode) {
        (Ok(held), Mode::Write) => {
            assert!(!held.poisoned);
            data.change();
            unlock_write(segment, me).unwrap();
        }
        (Ok(held), Mode::Read) => {
            assert!(!held.poisoned);
            data.look();
            segment.lock.unlock_read(me).unwrap();
        }
        (Err(refused), _) => assert!(matches!((refused, until), (Refused::Timeout { .. }, Until::After(_)))),
    }
    segment.lock.pause();
    // What waits for a forged holder is woken by nothing but the bounds of its sleeps.
    model::time_passes();
}

/// Some threads of one handle, each of which locks once; `forge` comes before.
fn threads(bounds: Bounds, until: Until, forge: fn(&Segment, &Seat), kinds: &'static [Mode]) {
    check_both(bounds, move |handles| {
        let data = Data::new();
        let segment = &handles[0];
        occupy(segment, 0..1);
        let me = segment.lock.readers().seat(0).unwrap();
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
        if matches!(until, Until::Forever) {
            assert_eq!(segment.lock.writer(), Ok(None));
            assert_eq!(model::peek::<u32>(layout::slot(0, at::SLOT_READERS)), 0);
        }
    });
}

fn nothing(_: &Segment, _: &Seat) {}

fn writer(segment: &Segment, me: &Seat) {
    segment.lock.tell_inside(me, true).unwrap();
}

/// With the bit of READERS that a reader sets.
fn reader(segment: &Segment, me: &Seat) {
    assert!(segment.lock.try_read(me).unwrap().is_some());
}

/// A wait that ends, since each of its sleeps may be in vain: a check gives up where another thread
/// ends a use, or checks.
const SHORT: Until = Until::After(std::time::Duration::from_millis(3));

#[test]
fn a_forged_writer_is_taken_out() {
    threads(bounds(4, 1), Until::Forever, writer, &[Mode::Write, Mode::Write]);
    threads(bounds(4, 1), Until::Forever, writer, &[Mode::Write, Mode::Read]);
}

#[test]
fn forged_readers_are_taken_out() {
    threads(bounds(4, 1), Until::Forever, reader, &[Mode::Write, Mode::Read]);
}

#[test]
fn beside_a_forged_writer_what_a_thread_holds_stays() {
    threads(bounds(3, 2), SHORT, writer, &[Mode::Write, Mode::Write]);
    threads(bounds(3, 2), SHORT, writer, &[Mode::Write, Mode::Read]);
}

#[test]
fn beside_forged_readers_what_a_thread_holds_stays() {
    threads(bounds(3, 2), SHORT, reader, &[Mode::Write, Mode::Read]);
}

#[test]
fn what_a_thread_holds_stays() {
    threads(bounds(4, 2), Until::Forever, nothing, &[Mode::Write, Mode::Write]);
    threads(bounds(1, 2), Until::Forever, nothing, &[Mode::Write, Mode::Write, Mode::Write]);
}

/// A thread gives the lock back and takes it again while another thread checks the handle.
#[test]
fn what_a_thread_takes_again_stays() {
    takes_again(Mode::Write);
    takes_again(Mode::Read);
}

fn takes_again(mode: Mode) {
    check_both(bounds(0, 3), move |handles| {
        let segment = &handles[0];
        occupy(segment, 0..1);
        let me = segment.lock.readers().seat(0).unwrap();
        model::become_process(0, None);
        let take = || {
            segment.lock.resume(mode);
            match mode {
                Mode::Write => assert!(segment.lock.try_write(&me).unwrap()),
                Mode::Read => assert!(segment.lock.try_read(&me).unwrap().is_some()),
            }
        };
        let give_back = || {
            match mode {
                Mode::Write => unlock_write(segment, &me).unwrap(),
                Mode::Read => segment.lock.unlock_read(&me).unwrap(),
            }
            segment.lock.pause();
        };
        take();
        let checker = process(segment, 0, |segment, me| assert!(!participants::disown(segment, me).unwrap()));
        give_back();
        take();
        checker.join().unwrap();
        let holds = match mode {
            Mode::Write => segment.lock.writer() == Ok(Some(0)),
            Mode::Read => model::peek::<u32>(layout::slot(0, at::SLOT_READERS)) == 1,
        };
        assert!(holds);
        give_back();
    });
}

#[test]
fn what_a_reader_holds_stays() {
    threads(bounds(4, 2), Until::Forever, nothing, &[Mode::Write, Mode::Read]);
    threads(bounds(1, 2), Until::Forever, nothing, &[Mode::Write, Mode::Read, Mode::Read]);
}

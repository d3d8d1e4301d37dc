//! A process dies at each of its steps while another one wants the lock, or has it. The other one
//! gets it, with poison if and only if the dead one had marked a change and not finished it.

use std::sync::atomic::AtomicBool;

use super::*;

const BOUNDED: Bounds = Bounds { parker: ParkerKind::Futex, timeouts: 3, preemptions: 2 };

/// What a process that may die left behind: a change marked and not finished, as far as nobody has been told.
#[derive(Default)]
pub(super) struct PoisonExpected(AtomicBool);

impl PoisonExpected {
    pub(super) fn is_untold(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Does `story` as that handle's process, which dies at its step `dies_at` or at the end of the
/// story, whichever comes first.
pub(super) fn mortal(segment: &Segment, dies_at: u32, legacy: &PoisonExpected, story: impl FnOnce() -> Result<()>) {
    let slot = slot_of(segment);
    model::become_process(slot, Some(dies_at));
    let outcome = story();
    assert!(model::is_dead() || outcome.is_ok(), "{outcome:?}");
    // No process clears what it left before the system has given back its token.
    let is_writer = model::peek::<u64>(at::LOCK) & 0xffff == slot as u64 + 1;
    if is_writer && model::peek::<u64>(at::VERSION) % 2 != 0 {
        legacy.0.store(true, Ordering::Relaxed);
    }
    model::end_process();
}

/// Takes the write lock and makes a change, in full.
pub(super) fn change(segment: &Segment, data: &Data) -> Result<()> {
    let (_lock, acquired) = lock_write(segment, Deadline::Never)?;
    assert!(!acquired.poisoned);
    change_locked(segment, data)
}

fn change_locked(segment: &Segment, data: &Data) -> Result<()> {
    segment.or_fault(segment.begin_change(), "change")?;
    let next = data.read().0 + 1;
    data.set_first(next);
    segment.or_fault(model::step(), "change")?;
    data.set_second(next);
    Ok(())
}

/// Takes a read lock and looks.
pub(super) fn look(segment: &Segment, data: &Data) -> Result<()> {
    let (_lock, acquired) = lock_read(segment, Deadline::Never)?;
    if !acquired.poisoned {
        data.look();
    }
    Ok(())
}

/// Takes the write lock, is told of poison if and only if there is reason, mends what is torn, and
/// makes a change.
pub(super) fn recover(segment: &Segment, data: &Data, legacy: &PoisonExpected) -> Result<()> {
    let (_lock, acquired) = lock_write(segment, Deadline::Never)?;
    assert_eq!(acquired.poisoned, legacy.is_untold());
    let version = segment.or_fault(segment.container.version.load(), "look")?;
    assert_eq!(version % 2, 0, "readers without the lock would wait for ever");
    if acquired.poisoned {
        data.set_first(0);
        data.set_second(0);
        segment.or_fault(segment.lock.clear_poison(), "mend")?;
        // Told in full, unless it died before.
        legacy.0.store(false, Ordering::Relaxed);
    }
    data.look();
    change_locked(segment, data)
}

/// As [`recover`], reading.
fn see(segment: &Segment, data: &Data, legacy: &PoisonExpected) -> Result<()> {
    let (_lock, acquired) = lock_read(segment, Deadline::Never)?;
    assert_eq!(acquired.poisoned, legacy.is_untold());
    if !acquired.poisoned {
        data.look();
    }
    Ok(())
}

/// The last one gets the lock, and leaves nothing of what the dead had.
pub(super) fn last(segment: &Segment, data: &Data, legacy: &PoisonExpected) {
    model::become_process(slot_of(segment), None);
    recover(segment, data, legacy).unwrap();
    assert_eq!(segment.lock.writer(), Ok(None));
    assert!(!legacy.is_untold());
    assert_eq!(segment.lock.is_poisoned(), Ok(false));
    assert_eq!(segment.container.version.load().unwrap() % 2, 0);
}

pub(super) type Scenario = fn(&Segment, &Data) -> Result<()>;

/// One dies at each step of `story`; `other` recovers at the same time; a third one when both are done.
fn one_dies(story: Scenario, other: fn(&Segment, &Data, &PoisonExpected) -> Result<()>) {
    at_each_step(0, |dies_at| {
        check(BOUNDED, move |handles| {
            let (data, legacy) = (Data::new(), Arc::new(PoisonExpected::default()));
            attach(handles, 3);
            let dies = loom::thread::spawn({
                let segment = Arc::clone(&handles[0]);
                let (data, legacy) = (Arc::clone(&data), Arc::clone(&legacy));
                move || mortal(&segment, dies_at, &legacy, || story(&segment, &data))
            });
            model::become_process(1, None);
            other(&handles[1], &data, &legacy).unwrap();
            dies.join().unwrap();
            last(&handles[2], &data, &legacy);
        });
    });
}

#[test]
fn a_writer_dies_while_a_writer_waits() {
    one_dies(change, recover);
}

#[test]
fn a_reader_dies_while_a_writer_waits() {
    one_dies(look, recover);
}

#[test]
fn a_writer_dies_while_a_reader_waits() {
    one_dies(change, see);
}

/// It dies in the word, where it waits for a reader; who comes next has to wait for the same reader.
#[test]
fn a_writer_dies_while_it_waits_for_a_reader() {
    at_each_step(0, |dies_at| {
        check(Bounds { preemptions: 1, ..BOUNDED }, move |handles| {
            let (data, legacy) = (Data::new(), Arc::new(PoisonExpected::default()));
            attach(handles, 3);
            let (reader, _) = lock_read(&handles[2], Deadline::Now).unwrap();
            let dies = loom::thread::spawn({
                let segment = Arc::clone(&handles[0]);
                let (data, legacy) = (Arc::clone(&data), Arc::clone(&legacy));
                move || mortal(&segment, dies_at, &legacy, || change(&segment, &data))
            });
            let waits = loom::thread::spawn({
                let segment = Arc::clone(&handles[1]);
                let (data, legacy) = (Arc::clone(&data), Arc::clone(&legacy));
                move || {
                    model::become_process(1, None);
                    recover(&segment, &data, &legacy).unwrap();
                }
            });
            model::become_process(2, None);
            data.look();
            drop(reader);
            dies.join().unwrap();
            waits.join().unwrap();
            last(&handles[2], &data, &legacy);
        });
    });
}

//! A process dies at each of its steps while another one wants the lock, or has it. That one gets it, with poison if and only if the
//! dead one had marked a change and not finished it.

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

/// Does `story` as that participant, which dies at its step `dies_at` or at the end of the story, whichever comes first.
pub(super) fn mortal(
    me: &AttachedParticipant,
    dies_at: u32,
    legacy: &PoisonExpected,
    story: impl FnOnce() -> Result<(), LockFailure>,
) {
    model::become_process(me.slot(), Some(dies_at));
    let outcome = story();
    assert!(model::is_dead() || outcome.is_ok(), "{outcome:?}");
    // Nobody clears what it left before the system has given back its token.
    let is_writer = model::peek::<u64>(at::LOCK) & 0xffff == me.slot() as u64 + 1;
    if is_writer && model::peek::<u64>(at::VERSION) % 2 != 0 {
        legacy.0.store(true, Ordering::Relaxed);
    }
    model::end_process();
}

/// Takes the write lock and makes a change, in full.
pub(super) fn change(segment: &Segment, me: &AttachedParticipant, data: &Data) -> Result<(), LockFailure> {
    let held = lock_write(segment, me.slot_handle(), Deadline::Never, &|slot| participants::reap(segment, me, slot))?;
    assert!(!held.poisoned);
    change_locked(segment, me, data)
}

fn change_locked(segment: &Segment, me: &AttachedParticipant, data: &Data) -> Result<(), LockFailure> {
    segment.begin_change()?;
    let next = data.read().0 + 1;
    data.set_first(next);
    model::step()?;
    data.set_second(next);
    Ok(unlock_write(segment, me.slot_handle())?)
}

/// Takes a read lock and looks.
pub(super) fn look(segment: &Segment, me: &AttachedParticipant, data: &Data) -> Result<(), LockFailure> {
    let held = lock_read(segment, me.slot_handle(), Deadline::Never, &|slot| participants::reap(segment, me, slot))?;
    if !held.poisoned {
        data.look();
    }
    Ok(segment.lock.unlock_read(me.slot_handle())?)
}

/// Takes the write lock, is told of poison if and only if there is reason, mends what is torn, and makes a change.
pub(super) fn recover(
    segment: &Segment,
    me: &AttachedParticipant,
    data: &Data,
    legacy: &PoisonExpected,
) -> Result<(), LockFailure> {
    let held = lock_write(segment, me.slot_handle(), Deadline::Never, &|slot| participants::reap(segment, me, slot))?;
    assert_eq!(held.poisoned, legacy.is_untold());
    assert_eq!(segment.version.load()? % 2, 0, "readers without the lock would wait for ever");
    if held.poisoned {
        data.set_first(0);
        data.set_second(0);
        segment.lock.clear_poison()?;
        // Told in full, unless it died before.
        legacy.0.store(false, Ordering::Relaxed);
    }
    data.look();
    change_locked(segment, me, data)
}

/// As [`recover`], reading.
fn see(segment: &Segment, me: &AttachedParticipant, data: &Data, legacy: &PoisonExpected) -> Result<(), LockFailure> {
    let held = lock_read(segment, me.slot_handle(), Deadline::Never, &|slot| participants::reap(segment, me, slot))?;
    assert_eq!(held.poisoned, legacy.is_untold());
    if !held.poisoned {
        data.look();
    }
    Ok(segment.lock.unlock_read(me.slot_handle())?)
}

/// The last one gets the lock, and leaves nothing of what the dead had.
pub(super) fn last(segment: &Segment, me: &AttachedParticipant, data: &Data, legacy: &PoisonExpected) {
    model::become_process(me.slot(), None);
    recover(segment, me, data, legacy).unwrap();
    assert_eq!(segment.lock.writer(), Ok(None));
    assert!(!legacy.is_untold());
    assert_eq!(segment.lock.is_poisoned(), Ok(false));
    assert_eq!(segment.version.load().unwrap() % 2, 0);
}

/// Participants with the slots from 0 on, in this order.
pub(super) fn attach(handles: &[Arc<Segment>], count: usize) -> Vec<Arc<AttachedParticipant>> {
    let one = |slot: usize| {
        model::become_process(slot, None);
        let participant = AttachedParticipant::attach(&handles[slot], &mut None).unwrap();
        assert_eq!(participant.slot(), slot);
        Arc::new(participant)
    };
    (0..count).map(one).collect()
}

pub(super) type Scenario = fn(&Segment, &AttachedParticipant, &Data) -> Result<(), LockFailure>;

/// One dies at each step of `story`; `other` recovers at the same time; a third one when both are done.
fn one_dies(
    story: Scenario,
    other: fn(&Segment, &AttachedParticipant, &Data, &PoisonExpected) -> Result<(), LockFailure>,
) {
    at_each_step(0, |dies_at| {
        check(BOUNDED, move |handles| {
            let (data, legacy) = (Data::new(), Arc::new(PoisonExpected::default()));
            let all = attach(handles, 3);
            let dies = loom::thread::spawn({
                let (segment, me) = (Arc::clone(&handles[0]), Arc::clone(&all[0]));
                let (data, legacy) = (Arc::clone(&data), Arc::clone(&legacy));
                move || mortal(&me, dies_at, &legacy, || story(&segment, &me, &data))
            });
            model::become_process(1, None);
            other(&handles[1], &all[1], &data, &legacy).unwrap();
            dies.join().unwrap();
            last(&handles[2], &all[2], &data, &legacy);
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
            let all = attach(handles, 3);
            lock_read(&handles[2], all[2].slot_handle(), Deadline::Now, &no_death).unwrap();
            let dies = loom::thread::spawn({
                let (segment, me) = (Arc::clone(&handles[0]), Arc::clone(&all[0]));
                let (data, legacy) = (Arc::clone(&data), Arc::clone(&legacy));
                move || mortal(&me, dies_at, &legacy, || change(&segment, &me, &data))
            });
            let waits = loom::thread::spawn({
                let (segment, me) = (Arc::clone(&handles[1]), Arc::clone(&all[1]));
                let (data, legacy) = (Arc::clone(&data), Arc::clone(&legacy));
                move || {
                    model::become_process(1, None);
                    recover(&segment, &me, &data, &legacy).unwrap();
                }
            });
            model::become_process(2, None);
            data.look();
            handles[2].lock.unlock_read(all[2].slot_handle()).unwrap();
            dies.join().unwrap();
            waits.join().unwrap();
            last(&handles[2], &all[2], &data, &legacy);
        });
    });
}

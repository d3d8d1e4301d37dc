//! A process dies at each of its steps while another one wants the lock, or has it. That one gets it, with poison if and only if the
//! dead one had marked a change and not finished it.

use std::sync::atomic::AtomicBool;

use super::*;

const BOUNDED: Bounds = Bounds { bell: Bell::Futex, timeouts: 3, preemptions: 2 };

/// What a process that may die left behind: a change marked and not finished, as far as nobody has been told.
#[derive(Default)]
pub(super) struct Legacy(AtomicBool);

impl Legacy {
    pub(super) fn is_untold(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Does `story` as that participant, which dies at its step `dies_at` or at the end of the story, whichever comes first.
pub(super) fn mortal(
    participant: &Participant,
    dies_at: u32,
    legacy: &Legacy,
    story: impl FnOnce() -> Result<(), Refused>,
) {
    let slot = participant.slot();
    model::become_process(slot, Some(dies_at));
    let outcome = story();
    assert!(model::is_dead() || outcome.is_ok(), "{outcome:?}");
    // Nobody clears what it left before the system has given back its token.
    let tag = u32::try_from(slot).unwrap() + 1;
    if model::peek::<u32>(at::DIRTY) == tag {
        assert_eq!(model::peek::<u64>(at::LOCK) & 0xffff, u64::from(tag), "dirty without the lock");
        legacy.0.store(true, Ordering::Relaxed);
    }
    model::bury();
}

/// Takes the write lock and makes a change, in full.
pub(super) fn change(segment: &Segment, me: &Participant, data: &Data) -> Result<(), Refused> {
    let held = segment.lock.write(me.slot(), Until::Forever, &|slot| participants::reap(segment, me, slot))?;
    assert!(!held.poisoned);
    segment.begin_change(me.slot())?;
    let next = data.read().0 + 1;
    data.set_first(next);
    model::step()?;
    data.set_second(next);
    segment.write_unlock(me.slot(), Change::Whole)?;
    Ok(())
}

/// Takes a read lock and looks.
fn look(segment: &Segment, me: &Participant, data: &Data) -> Result<(), Refused> {
    let held = segment.lock.read(me.slot(), Until::Forever, &|slot| participants::reap(segment, me, slot))?;
    if !held.poisoned {
        data.look();
    }
    segment.lock.unlock_read(me.slot())?;
    Ok(())
}

/// Takes the write lock, is told of poison if and only if there is reason, mends what is torn, and makes a change.
pub(super) fn recover(segment: &Segment, me: &Participant, data: &Data, legacy: &Legacy) -> Result<(), Refused> {
    let held = segment.lock.write(me.slot(), Until::Forever, &|slot| participants::reap(segment, me, slot))?;
    mend(segment, held, data, legacy)?;
    segment.begin_change(me.slot())?;
    data.change();
    segment.write_unlock(me.slot(), Change::Whole)?;
    Ok(())
}

fn mend(segment: &Segment, held: Held, data: &Data, legacy: &Legacy) -> Result<(), Fault> {
    assert_eq!(held.poisoned, legacy.is_untold());
    assert_eq!(segment.version.load()? % 2, 0, "readers without the lock would wait for ever");
    if held.poisoned {
        data.set_first(0);
        data.set_second(0);
        segment.lock.clear_poison()?;
        legacy.0.store(false, Ordering::Relaxed);
    }
    Ok(())
}

/// The last one gets the lock, and leaves nothing of what the dead had.
pub(super) fn last(segment: &Segment, me: &Participant, data: &Data, legacy: &Legacy) {
    model::become_process(me.slot(), None);
    recover(segment, me, data, legacy).unwrap();
    assert_eq!(model::peek::<u64>(at::LOCK), 0);
    assert_eq!(model::peek::<u32>(at::DIRTY), 0);
    for slot in 0..SLOTS {
        assert_eq!(segment.lock.slots().read_locks(slot), Ok(0));
    }
}

/// Participants with the slots from 0 on, in this order.
pub(super) fn attach(segment: &Segment, count: usize) -> Vec<Arc<Participant>> {
    let one = |slot| {
        model::become_process(slot, None);
        let participant = Participant::attach(segment).unwrap();
        assert_eq!(participant.slot(), slot);
        Arc::new(participant)
    };
    (0..count).map(one).collect()
}

type Story = fn(&Segment, &Participant, &Data) -> Result<(), Refused>;

/// One dies at each step of `story`; `other` recovers at the same time; a third one when both are done.
fn one_dies(story: Story, other: fn(&Segment, &Participant, &Data, &Legacy) -> Result<(), Refused>) {
    at_each_step(|dies_at| {
        check(BOUNDED, move |segment| {
            let (data, legacy) = (Data::new(), Arc::new(Legacy::default()));
            let all = attach(&segment, 3);
            let dies = loom::thread::spawn({
                let (segment, data, legacy, me) =
                    (Arc::clone(&segment), Arc::clone(&data), Arc::clone(&legacy), Arc::clone(&all[0]));
                move || mortal(&me, dies_at, &legacy, || story(&segment, &me, &data))
            });
            model::become_process(1, None);
            other(&segment, &all[1], &data, &legacy).unwrap();
            dies.join().unwrap();
            last(&segment, &all[2], &data, &legacy);
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
    one_dies(change, |segment, me, data, legacy| {
        let held = segment.lock.read(me.slot(), Until::Forever, &|slot| participants::reap(segment, me, slot))?;
        assert_eq!(held.poisoned, legacy.is_untold());
        if !held.poisoned {
            data.look();
        }
        segment.lock.unlock_read(me.slot())?;
        Ok(())
    });
}
